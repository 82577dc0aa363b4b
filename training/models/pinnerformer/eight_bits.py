"""A network whose blocks multiply integers of eight bits: on CPUs without bfloat16, in half of float32's time.

Weights have a step a row, inputs a step a token: what a token becomes depends on no other one of its batch. The
token layer, the last block and the output layers stay as they are: of them only the first sees every token's
values, and it is 2 % of the work.
"""

from __future__ import annotations

import copy
from functools import lru_cache

import torch
from torch import Tensor, nn

from training.models.pinnerformer.network import PinnerFormer

PRODUCTS = ("qkv", "out", "up", "down")
"""Of a block."""
MOST, MIDDLE = 63, 64
"""Inputs are MIDDLE - MOST to MIDDLE + MOST: of seven bits, since AVX2 adds pairs of products in sixteen."""
_LEAST = 1e-30
"""What the largest number of a row counts as where all are zero."""


class EightBits(nn.Module):
    """`nn.Linear` without a bias, by oneDNN, for inference. Raises ValueError for a layer that has one."""

    def __init__(self, exact: nn.Linear) -> None:
        super().__init__()
        if exact.bias is not None:
            raise ValueError("a layer with a bias has no product of eight-bit integers here")
        weight = exact.weight.detach()
        self._steps = weight.abs().amax(dim=1).clamp(min=_LEAST) / 127
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        integers = (weight / self._steps[:, None]).round().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(integers, None)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) float32."""
        step = x.abs().amax(dim=-1, keepdim=True).clamp_(min=_LEAST) / MOST
        integers = (x / step).round_().add_(MIDDLE).to(torch.uint8)
        made = torch.ops.onednn.qlinear_pointwise(
            integers,
            1.0,
            MIDDLE,
            self._packed,
            self._steps,
            self._zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return made.mul_(step)


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether torch multiplies such integers here: by oneDNN, on x86, as this torch is asked to."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.cpu.get_cpu_capability().startswith(
        "AVX"
    ):
        return False
    try:
        return EightBits(nn.Linear(1, 1, bias=False))(torch.ones(1, 1)).shape == (1, 1)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def in_eight_bits(network: PinnerFormer) -> PinnerFormer:
    """A copy, for inference."""
    made = copy.deepcopy(network)
    for block in made.blocks[:-1]:
        for name in PRODUCTS:
            setattr(block, name, EightBits(getattr(block, name)))
    return made.eval()
