"""Lifelong histories of TransAct V2: vectors in one byte a number, and the nearest of them to a candidate.

    q = clamp(round(e / 0.65 * 127), -127, 127)
    S = NN(S_LL, c) + S_RT[:r] + NN(S_RT[r:], c) + NN(S_imp, c)      nearest by the dot of pin vectors

The tokens selected stand newest first, so that a causal encoder sees only what was older.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from training.models.transact.config import Lifelong

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

LARGEST = 0.65
"""Magnitude at which numbers of a vector are cut."""
_STEPS = 127


def quantise(vectors: Floats) -> NDArray[np.int8]:
    """Vectors (n, d) in a quarter of their memory; numbers beyond LARGEST are cut. NaN counts as 0."""
    scaled = np.rint(np.nan_to_num(vectors) * np.float32(_STEPS / LARGEST))
    return np.clip(scaled, -_STEPS, _STEPS).astype(np.int8)


def restore(stored: NDArray[np.int8]) -> Floats:
    """Vectors (n, d) float32, within LARGEST / 254 of what was stored, a number."""
    return stored.astype(np.float32) * np.float32(LARGEST / _STEPS)


def nearest(stored: NDArray[np.int8], candidates: NDArray[np.int8], k: int) -> Ints:
    """The k rows of `stored` (n, d) with the largest dots with each candidate (C, d): (C, min(k, n)) int64.

    Exact in integers, the earlier row first of two alike; rows in order of their dots.
    """
    taken = min(k, len(stored))
    if taken <= 0 or len(candidates) == 0:
        return np.zeros((len(candidates), 0), np.int64)
    dots = _dots(np.ascontiguousarray(stored), np.ascontiguousarray(candidates))  # (C, n)
    # the row number settles ties, so that a partial sort of distinct keys has one answer
    keys = dots.astype(np.int64) * len(stored) - np.arange(len(stored))
    part = np.argpartition(-keys, taken - 1, axis=1)[:, :taken]
    inner = np.argsort(-np.take_along_axis(keys, part, axis=1), axis=1)
    return np.take_along_axis(part, inner, axis=1)


def select(
    config: Lifelong,
    stored: NDArray[np.int8],
    times_ms: Ints,
    shown: NDArray[np.int8],
    shown_ms: Ints,
    candidates: NDArray[np.int8],
) -> tuple[Ints, Ints]:
    """Which tokens each candidate (C, d) is met with: (places, ranks), (C, S) int64 each.

    `stored` (n, d) and `times_ms` (n,) are the user's actions, newest first; `shown` (m, d) and `shown_ms` the
    impressions without action, newest first. Place i < n is an action, n + j impression j, -1 padding behind
    the oldest. Ranks count the newest `recent` actions from 1; 0 for every other token.
    """
    n = min(len(stored), config.length)
    recent, realtime = min(config.recent, n), min(config.realtime, n)
    count = len(candidates)
    groups = (
        np.broadcast_to(np.arange(recent), (count, recent)),
        recent + nearest(stored[recent:realtime], candidates, config.nearest_realtime),
        realtime + nearest(stored[realtime:n], candidates, config.nearest_lifelong),
        len(stored) + nearest(shown, candidates, config.nearest_impressions),
    )
    places = np.concatenate(groups, axis=1)
    times = np.concatenate([times_ms, shown_ms])
    # newest first; of one instant in the order of the arrays, actions before impressions
    order = np.lexsort((places, -times[places]), axis=1)
    out = np.full((count, config.tokens), -1, np.int64)
    out[:, : places.shape[1]] = np.take_along_axis(places, order, axis=1)
    ranks = np.where((out >= 0) & (out < recent), out + 1, 0)
    return out, ranks


@numba.njit(cache=True)
def _dots(stored, candidates):  # type: ignore[no-untyped-def]
    count, n, d = len(candidates), len(stored), stored.shape[1]
    out = np.empty((count, n), np.int32)
    for c in range(count):
        for i in range(n):
            total = np.int32(0)
            for j in range(d):
                total += np.int32(stored[i, j]) * np.int32(candidates[c, j])
            out[c, i] = total
    return out
