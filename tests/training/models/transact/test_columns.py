"""The float32 kernels against torch: products that fill no tile, widths of any size, scores far from 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.models.transact import columns
from training.models.transact.lanes import LANES, ROWS, VECTORS, product

EPS = np.float32(1e-5)


def drawn(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * scale).astype(np.float32)


@pytest.mark.parametrize("vectors", range(1, VECTORS + 1))
@pytest.mark.parametrize("depth", [1, 2, 37])
@pytest.mark.parametrize("transposed", [False, True])
def test_product(vectors: int, depth: int, transposed: bool) -> None:
    rows, wide = 3 * ROWS, 5 * LANES
    a, b, bias, out = drawn(rows, depth), drawn(depth, wide), drawn(rows), drawn(rows, wide)
    left = np.ascontiguousarray(a.T).T if transposed else a
    before, at, to = out.copy(), LANES, 2 * LANES
    product(out, to, bias, left, b, at, vectors)
    width = vectors * LANES
    wanted = bias[:, None].astype(np.float64) + a.astype(np.float64) @ b[:, at : at + width]
    np.testing.assert_allclose(out[:, to : to + width], wanted, atol=1e-5)
    np.testing.assert_array_equal(out[:, :to], before[:, :to])
    np.testing.assert_array_equal(out[:, to + width :], before[:, to + width :])


@pytest.mark.parametrize("length", [1, 2, 7, 100])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_softmax(length: int, scale: float) -> None:
    for moved in (0, 500, -500):
        x, over = (
            drawn(length + 1, 2 * LANES, scale=scale) + np.float32(moved),
            np.ones((1, 2 * LANES), np.float32),
        )
        wanted = (torch.from_numpy(x[:length]).double() * np.log(2)).softmax(dim=0).numpy()
        columns.softmax(x, length, over, 2)
        np.testing.assert_allclose(x[:length] * over, wanted, rtol=2e-6 * max(1.0, scale), atol=1e-29)


@pytest.mark.parametrize("width", [2, 5, 12, 96])
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_norm(width: int, mean: float) -> None:
    """Numbers far from 0 beside their spread lose no more than torch's own norm in float32 does."""
    x, more, over = drawn(width, 3 * LANES) + np.float32(mean), drawn(width, 2 * LANES), drawn(1, 2 * LANES)
    gain, shift, out = drawn(width) + 1, drawn(width), np.zeros((width, 3 * LANES), np.float32)
    sums = x[:, LANES:].astype(np.float64) + over * more
    wanted = F.layer_norm(
        torch.from_numpy(sums.T), (width,), *(torch.from_numpy(v).double() for v in (gain, shift)), 1e-5
    )
    columns.norm(x, LANES, more, over, gain, shift, EPS, out, LANES, 2)
    np.testing.assert_allclose(out[:, LANES:].T, wanted, atol=2e-5 * (1 + mean), rtol=1e-5)
    assert not out[:, :LANES].any()


def test_maxima_and_relu() -> None:
    x, out = drawn(9, 2 * LANES), np.zeros(9, np.float32)
    columns.maxima(x, out)
    np.testing.assert_array_equal(out, x.max(axis=1))
    wanted = np.maximum(x, 0)
    columns.relu(x, 2)
    np.testing.assert_array_equal(x, wanted)


def test_weights_from_products_and_their_largest_sum_over() -> None:
    shared, own = np.abs(drawn(6, 3 * LANES)), np.abs(drawn(5))
    out, over = np.zeros((6, 2 * LANES), np.float32), np.ones((1, 2 * LANES), np.float32)
    most = columns.weighed(shared, LANES, own, out, over, 2)
    wanted = shared[:5, LANES:] * own[:, None]
    np.testing.assert_allclose(out[:5], wanted, rtol=1e-6)
    np.testing.assert_allclose(over[0], 1 / wanted.sum(axis=0), rtol=1e-6)
    assert most == over.max() and not out[5].any()
