"""The float32 kernels against torch: products that fill no tile, widths of any size, scores far from 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.benchmarks.ranking_products import product
from training.models.transact import tiles
from training.models.transact.float32 import registers, strips
from training.models.transact.lanes import DEEP, LANES, ROWS
from training.models.transact.tiles import OVER, SUMS

EPS = np.float32(1e-5)


def drawn(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * scale).astype(np.float32)


def cut(x: np.ndarray) -> np.ndarray:
    return strips(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("wide", [2, 3, 4, 7])
@pytest.mark.parametrize("depth", [DEEP, 5 * DEEP])
def test_product(wide: int, depth: int) -> None:
    left, right = drawn(4 * ROWS, depth + 3), drawn(depth, wide * LANES)
    before = np.zeros((4 * ROWS, wide * LANES), np.float32)
    out = before.copy()
    product(left[: 3 * ROWS], cut(right), out[: 3 * ROWS])
    wanted = left[: 3 * ROWS, :depth].astype(np.float64) @ right
    np.testing.assert_allclose(out[: 3 * ROWS], wanted, atol=1e-5)
    np.testing.assert_array_equal(out[3 * ROWS :], before[3 * ROWS :])


@pytest.mark.parametrize("length", [1, 2, 7, 100])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_softmax(length: int, scale: float) -> None:
    wide, sums = registers(length), np.ones((len(SUMS), 2 * LANES), np.float32)
    lift = np.full((2, wide), -np.inf, np.float32)
    lift[1, :length] = drawn(length, scale=scale)
    for moved in (0, 500, -500):
        x = drawn(3 * ROWS, wide, scale=scale) + np.float32(moved)
        out = np.zeros((2 * ROWS, wide), np.float32)
        tiles.added(x, ROWS, 2 * ROWS, lift, 1, out)
        wanted = x[ROWS:, :length] + lift[1, :length]
        np.testing.assert_array_equal(out[:, :length], wanted)
        wanted = (torch.from_numpy(wanted).double() * np.log(2)).softmax(dim=1).numpy()
        tiles.softmax(out, 2 * ROWS, wide, sums)
        made = out * sums[OVER, : 2 * ROWS, None]
        np.testing.assert_allclose(made[:, :length], wanted, rtol=2e-6 * max(1.0, scale), atol=1e-29)
        assert made[:, length:].max(initial=0) < 1e-29, "what is no token's weighs nothing"


@pytest.mark.parametrize("width", [2, 5, 12, 96])
def test_norm(width: int) -> None:
    rows, wide = 3 * ROWS, registers(width)
    x, sums = np.zeros((rows, wide), np.float32), np.zeros((len(SUMS), rows + LANES), np.float32)
    gain, shift = np.zeros((2, wide), np.float32), np.zeros((2, wide), np.float32)
    x[:, :width], gain[1, :width], shift[1, :width] = drawn(rows, width), drawn(width) + 1, drawn(width)
    out = np.ones((rows + ROWS, wide), np.float32)
    tiles.normed(x, rows, width, EPS, gain, shift, 1, sums, out, ROWS)
    given = (torch.from_numpy(v[1, :width].copy()) for v in (gain, shift))
    wanted = F.layer_norm(torch.from_numpy(x[:, :width].copy()), (width,), *given, 1e-5)
    np.testing.assert_allclose(out[ROWS:, :width], wanted, atol=2e-5)
    assert not out[ROWS:, width:].any() and (out[:ROWS] == 1).all()


def test_maxima() -> None:
    x, out = drawn(9, 2 * LANES), np.zeros((1, 2 * LANES), np.float32)
    tiles.maxima(x, out)
    np.testing.assert_array_equal(out[0], x.max(axis=0))


@pytest.mark.parametrize("rows", [ROWS, 3 * ROWS, 25 * ROWS])
def test_transposed(rows: int) -> None:
    x, wide = drawn(rows, 2 * LANES), registers(rows)
    wanted = cut(np.pad(x.T, ((0, 0), (0, wide - rows))))
    out = np.zeros_like(wanted)
    tiles.transposed(x, wide, out)
    np.testing.assert_array_equal(out, wanted)


def test_weights_of_values() -> None:
    values, weights = drawn(6, 4 * LANES), drawn(6)
    out = cut(np.zeros_like(values))
    tiles.weighed(cut(values), weights, out)
    np.testing.assert_array_equal(out, cut(values * weights[:, None]))
