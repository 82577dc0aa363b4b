"""Products of a training step in float32 by numpy's BLAS, where torch's are slower than the CPU.

On AMD's cores with AVX2 torch multiplies at two thirds to three quarters of what they can, numpy's OpenBLAS at
nearly nine tenths. Everywhere else, by narrow matrices, without gradients and in lower precision it is torch's
that are taken.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WIDE = 256
"""Rows and columns of a matrix from which a product gains more than the call costs."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight.T + bias, (..., in) and (out, in) -> (..., out)."""
    exact = x.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
    if exact and min(weight.shape) >= WIDE and torch.is_grad_enabled() and numpy_is_faster():
        made = _Product.apply(x.reshape(-1, x.shape[-1]), weight).view(*x.shape[:-1], len(weight))
        return made if bias is None else made + bias
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """torch's, by `product`."""

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias)


@cache
def numpy_is_faster() -> bool:
    """Whether this CPU is one of AMD's with AVX2 alone; False where that cannot be told."""
    try:
        known = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "AuthenticAMD" in known and "avx2" in known and "avx512f" not in known


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiplied(x, weight.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        return (
            _multiplied(grad, weight) if ctx.needs_input_grad[0] else None,
            _multiplied(grad.t(), x) if ctx.needs_input_grad[1] else None,
        )


def _multiplied(a: Tensor, b: Tensor) -> Tensor:
    """a b by as many threads as torch has."""
    out = torch.empty(len(a), b.shape[1])
    with _blas().limit(limits=torch.get_num_threads(), user_api="blas"):
        np.matmul(a.detach().numpy(), b.detach().numpy(), out=out.numpy())
    return out


@cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries of this process, which take a millisecond to find."""
    return ThreadpoolController()
