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
Bytes = NDArray[np.int8]

LARGEST = 0.65
"""Magnitude at which numbers of a vector are cut."""
_STEPS = 127

EXACT_DIM = 2**24 // _STEPS**2
"""Widest vectors whose dots, sums of whole numbers, float32 has exactly."""


def levels(vectors: Floats) -> Floats:
    """What `quantise` stores of vectors (n, d), as whole float32 numbers."""
    scaled = np.rint(np.nan_to_num(vectors) * np.float32(_STEPS / LARGEST))
    return np.clip(scaled, -_STEPS, _STEPS, out=scaled)


def quantise(vectors: Floats) -> Bytes:
    """Vectors (n, d) in a quarter of their memory; numbers beyond LARGEST are cut. NaN counts as 0."""
    return levels(vectors).astype(np.int8)


def restore(stored: Bytes) -> Floats:
    """Vectors (n, d) float32, within LARGEST / 254 of what was stored, a number."""
    return stored.astype(np.float32) * np.float32(LARGEST / _STEPS)


def nearest(stored: Bytes | Floats, candidates: Bytes | Floats, k: int) -> Ints:
    """The k rows of `stored` (n, d) with the largest dots with each candidate (C, d): (C, min(k, n)) int64.

    Both hold whole numbers (`quantise`, `levels`). Exact, the earlier row first of two alike; rows in order of
    their dots.
    """
    taken = min(k, len(stored))
    if taken <= 0 or len(candidates) == 0:
        return np.zeros((len(candidates), 0), np.int64)
    exact = np.float32 if stored.shape[1] <= EXACT_DIM else np.float64
    dots = candidates.astype(exact, copy=False) @ stored.astype(exact, copy=False).T  # (C, n)
    return _largest(dots, taken)


def select(
    config: Lifelong,
    stored: Bytes | Floats,
    times_ms: Ints,
    shown: Bytes | Floats,
    shown_ms: Ints,
    candidates: Bytes | Floats,
) -> tuple[Ints, Ints]:
    """Which tokens each candidate (C, d) is met with: (places, ranks), (C, S) int64 each.

    `stored` (n, d) and `times_ms` (n,) are the user's actions, newest first; `shown` (m, d) and `shown_ms` the
    impressions without action, newest first. Place i < n is an action, n + j impression j, -1 padding behind
    the oldest: every candidate has as many. Ranks count the newest `recent` actions from 1; 0 for every other
    token.
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
    order = np.argsort(-times, kind="stable")
    age = np.empty(len(order), np.int64)
    age[order] = np.arange(len(order))
    out = np.full((count, config.tokens), -1, np.int64)
    out[:, : places.shape[1]] = order[np.sort(age[places], axis=1)]
    ranks = np.where((out >= 0) & (out < recent), out + 1, 0)
    return out, ranks


@numba.njit(cache=True)
def _largest(dots, k):  # type: ignore[no-untyped-def]
    """(C, k) int64 columns of the largest numbers of each row, in order; the first of equal ones first."""
    out = np.empty((len(dots), k), np.int64)
    best = np.empty(k, dots.dtype)
    for c in range(len(dots)):
        row, held = dots[c], 0
        for i in range(len(row)):
            if held == k and row[i] <= best[k - 1]:
                continue
            at = held if held < k else k - 1
            while at > 0 and row[i] > best[at - 1]:
                best[at], out[c, at] = best[at - 1], out[c, at - 1]
                at -= 1
            best[at], out[c, at] = row[i], i
            held += held < k
    return out
