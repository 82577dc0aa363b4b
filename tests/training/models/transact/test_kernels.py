"""The bfloat16 kernels against torch: lengths that fill no vector, scores far from 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.models.transact import kernels
from training.models.transact.bfloat16 import _bits

EPS = np.float32(1e-5)


def drawn(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) * scale).to(dtype)


def close(made: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(made.float(), wanted.float(), atol=2**-8, rtol=2**-8)


@pytest.mark.parametrize("width", [1, 7, 16, 100])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_softmax(width: int, scale: float) -> None:
    x = drawn(9, width, dtype=torch.bfloat16, scale=scale)
    for moved in (x, x + 500, x - 500):
        made = moved.clone()
        kernels.softmax(_bits(made))
        close(made, moved.float().softmax(dim=1))


@pytest.mark.parametrize("width", [1, 12, 96])
def test_norms(width: int) -> None:
    gain, shift = drawn(width) + 1, drawn(width, scale=0.5)
    x = drawn(4, 5, width, dtype=torch.bfloat16) * 3 + 1
    wanted = F.layer_norm(x.float(), (width,), gain, shift, 1e-5)
    most, kept = torch.empty(4, width), torch.empty(4, 3, width)
    kernels.last_norm(
        _bits(x), gain.numpy(), shift.numpy(), EPS, np.array([4, 0, 4]), most.numpy(), kept.numpy()
    )
    torch.testing.assert_close(most, wanted.amax(dim=1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(kept, wanted[:, [4, 0, 4]], atol=1e-5, rtol=1e-5)
    kernels.norm(_bits(x.view(-1, width)), gain.numpy(), shift.numpy(), EPS)
    close(x, wanted)


def test_the_first_layers_passes() -> None:
    weights, values, candidates = drawn(3, 5).exp(), drawn(5, 12), drawn(3, 12)
    made = torch.empty(5, 3, 12, dtype=torch.bfloat16)
    kernels.weighted(weights.numpy(), values.numpy(), candidates.numpy(), _bits(made))
    close(made, weights.t()[..., None] * (values[:, None] + candidates))
    seen, total, own = drawn(5, 3, 12, dtype=torch.bfloat16), drawn(3, 5).exp(), drawn(5, 12)
    gain, shift, out = drawn(12) + 1, drawn(12), torch.empty(3, 5, 12, dtype=torch.bfloat16)
    kernels.first_norm(_bits(seen), total.numpy(), own.numpy(), gain.numpy(), shift.numpy(), EPS, _bits(out))
    sums = own[:, None] + seen.float() / total.t()[..., None]
    close(out, F.layer_norm(sums, (12,), gain, shift, 1e-5).transpose(0, 1))
