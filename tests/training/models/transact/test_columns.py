"""The float32 kernels against torch: products that fill no tile, widths of any size, scores far from 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.models.transact import columns
from training.models.transact.columns import OVER, SQUARES, SUMS, TOTAL
from training.models.transact.lanes import LANES, ROWS, VECTORS, product

EPS = np.float32(1e-5)


def drawn(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * scale).astype(np.float32)


@pytest.mark.parametrize("vectors", range(2, VECTORS + 1))
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
    lift, sums = drawn(length, scale=scale), np.ones((len(SUMS), 2 * LANES), np.float32)
    for moved in (0, 500, -500):
        x = drawn(length + 1, 3 * LANES, scale=scale) + np.float32(moved)
        out = np.zeros((length + 1, 2 * LANES), np.float32)
        added = x[:length, LANES:] + lift[:, None]
        columns.added(x, LANES, lift, out, sums, 2)
        np.testing.assert_array_equal(out[:length], added)
        wanted = (torch.from_numpy(added).double() * np.log(2)).softmax(dim=0).numpy()
        columns.softmax(out, length, sums, 2)
        rtol = 2e-6 * max(1.0, scale)
        np.testing.assert_allclose(out[:length] * sums[OVER], wanted, rtol=rtol, atol=1e-29)
        assert not out[length].any()


@pytest.mark.parametrize("width", [2, 5, 12, 96])
def test_norm(width: int) -> None:
    x, sums = drawn(width, 3 * LANES), np.zeros((len(SUMS), 2 * LANES), np.float32)
    gain, shift, out = drawn(width) + 1, drawn(width), x.copy()
    sums[TOTAL], sums[SQUARES] = x[:, LANES:].sum(axis=0), (x[:, LANES:] ** 2).sum(axis=0)
    columns.measured(sums, width, EPS, 2)
    columns.normed(sums, gain, shift, out, LANES, 2)
    given = (torch.from_numpy(v) for v in (gain, shift))
    wanted = F.layer_norm(torch.from_numpy(x[:, LANES:].T), (width,), *given, 1e-5)
    np.testing.assert_allclose(out[:, LANES:].T, wanted, atol=2e-5)
    np.testing.assert_array_equal(out[:, :LANES], x[:, :LANES])
    assert not sums[[TOTAL, SQUARES]].any(), "the next sums begin at nothing"


def test_maxima() -> None:
    x, out = drawn(9, 2 * LANES), np.zeros(9, np.float32)
    columns.maxima(x, out)
    np.testing.assert_array_equal(out, x.max(axis=1))


def test_weights_from_products_and_their_largest_sum_over() -> None:
    shared, own = np.abs(drawn(6, 3 * LANES)), np.abs(drawn(5))
    out, sums = np.zeros((6, 2 * LANES), np.float32), np.ones((len(SUMS), 2 * LANES), np.float32)
    most = columns.weighed(shared, LANES, own, out, sums, 2)
    wanted = shared[:5, LANES:] * own[:, None]
    np.testing.assert_allclose(out[:5], wanted, rtol=1e-6)
    np.testing.assert_allclose(sums[OVER], 1 / wanted.sum(axis=0), rtol=1e-6)
    assert most == sums[OVER].max() and not out[5].any()
