"""Single-assignment routing with farthest-point initialisation, compiled (arXiv 2506.23060, DCM).

    c_1 = a valid item;  c_j = argmax_i min_{j' < j} (-c_j' . e_i)  over valid items            VA-FPI
    b_ij = softmax_j(s c_j . e_i), kept for the argmax j only;  c_j = squash(sum_i b_ij e_i)    SAR, iterated

The assignment carries no gradient, so it runs outside torch; `capsules.py` takes the last mean, which does.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

REPEAT = 1.0 - 1e-5
"""Cosine from which an item counts as a centroid that is there already."""

ONE_THREAD = 262_144
"""Multiplications up to which OpenBLAS keeps a product on the calling thread; waking others costs more."""


class Assignment(NamedTuple):
    """Where every item of every history went."""

    clusters: NDArray[np.int32]
    """(b, m): cluster of each item, -1 for items that take no part."""
    weights: Floats
    """(b, m): the item's b_ij for that cluster, 0 for items that take no part."""
    counts: NDArray[np.int32]
    """(b,): clusters that hold an item, at most K; they are numbered from 0 without gaps."""


def assign(
    items: Floats, valid: NDArray[np.bool_], first: Ints, clusters: int, iterations: int, sharpness: float
) -> Assignment:
    """VA-FPI and single-assignment routing of b histories.

    `items` (b, m, d) float32, unit rows where valid; `valid` (b, m); `first` (b,) picks the first centroid
    as the (first mod valid items)-th valid item. Where a history has fewer distinct items than `clusters`
    it gets as many clusters as it has distinct items, none where nothing is valid; clusters that routing
    empties are dropped. Raises ValueError on shapes that do not fit.
    """
    b, m, _ = items.shape
    if valid.shape != (b, m) or first.shape != (b,):
        raise ValueError(f"items {items.shape}, valid {valid.shape} and first {first.shape} do not fit")
    out = Assignment(np.empty((b, m), np.int32), np.empty((b, m), np.float32), np.empty(b, np.int32))
    contiguous = np.ascontiguousarray(items, np.float32)
    _assign(contiguous, valid, first, clusters, iterations, np.float32(sharpness), *out)
    return out


_FAST = {"reassoc", "contract", "nsz"}


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _dot(a: Floats, b: Floats) -> np.float32:
    total = np.float32(0.0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@numba.njit(cache=True, nogil=True)
def _farthest(rows: Floats, first: int, centroids: Floats, nearest: Floats) -> int:
    """Copy rows far from each other into `centroids`; how many there are. `nearest` is scratch, (n,)."""
    n, wanted = rows.shape[0], centroids.shape[0]
    if n == 0:
        return 0
    pick = first % n
    nearest[:n] = -np.inf
    for j in range(wanted):
        for c in range(rows.shape[1]):  # assigning the row compiles numba's shape errors, for four seconds
            centroids[j, c] = rows[pick, c]
        pick, least = 0, np.float32(np.inf)
        for i in range(n):
            near = max(nearest[i], _dot(centroids[j], rows[i]))
            nearest[i] = near
            if near < least:
                pick, least = i, near
        if least > REPEAT:
            return j + 1
    return wanted


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _nearest(
    logits: Floats,
    powers: NDArray[np.int32],
    k: int,
    sharpness: np.float32,
    home: NDArray[np.int32],
    weight: Floats,
) -> None:
    """Argmax of each row's first k logits and its softmax weight; destroys `logits`.

    exp(x) = 2^(whole) * 2^(rest), the rest by its Taylor polynomial of degree 6 (relative error 2e-7), in
    plain loops that the compiler vectorises.
    """
    n = logits.shape[0]
    for i in range(n):
        best = 0
        for j in range(1, k):
            if logits[i, j] > logits[i, best]:
                best = j
        top = logits[i, best]
        home[i] = best
        for j in range(k):
            x = max(np.float32(sharpness * (logits[i, j] - top) * np.float32(1.44269504)), np.float32(-120.0))
            whole = np.floor(x + np.float32(0.5))
            r = (x - whole) * np.float32(0.69314718)
            tail = np.float32(1 / 6) + r * (
                np.float32(1 / 24) + r * (np.float32(1 / 120) + r * np.float32(1 / 720))
            )
            logits[i, j] = np.float32(1) + r * (np.float32(1) + r * (np.float32(0.5) + r * tail))
            powers[i, j] = (np.int32(whole) + np.int32(127)) << np.int32(23)
    scale = powers.view(np.float32)
    for i in range(n):
        total = np.float32(0.0)
        for j in range(k):
            total += logits[i, j] * scale[i, j]
        weight[i] = np.float32(1.0) / total


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _move(rows: Floats, k: int, home: NDArray[np.int32], weight: Floats, centroids: Floats) -> None:
    """Centroids become squash(sum of their rows, weighed): row * |row| / (1 + |row|^2)."""
    d = rows.shape[1]
    centroids[:k] = 0
    for i in range(rows.shape[0]):
        into, share = centroids[home[i]], weight[i]
        for c in range(d):
            into[c] += share * rows[i, c]
    for j in range(k):
        square = _dot(centroids[j], centroids[j])
        factor = np.float32(np.sqrt(square)) / (np.float32(1.0) + square)
        for c in range(d):
            centroids[j, c] *= factor


@numba.njit(cache=True, nogil=True)
def _drop_empty(k: int, home: NDArray[np.int32], renamed: NDArray[np.int32]) -> int:
    """Number the clusters that hold an item from 0 without gaps, in `home`; how many there are."""
    renamed[:k] = -1
    for i in range(home.shape[0]):
        renamed[home[i]] = 0
    kept = 0
    for j in range(k):
        if renamed[j] == 0:
            renamed[j] = kept
            kept += 1
    if kept < k:
        for i in range(home.shape[0]):
            home[i] = renamed[home[i]]
    return kept


@numba.njit(cache=True, nogil=True)
def _assign(
    items: Floats,
    valid: NDArray[np.bool_],
    first: Ints,
    wanted: int,
    iterations: int,
    sharpness: np.float32,
    clusters: NDArray[np.int32],
    weights: Floats,
    counts: NDArray[np.int32],
) -> None:
    b, m, d = items.shape
    rows, place = np.empty((m, d), np.float32), np.empty(m, np.int64)
    centroids = np.empty((wanted, d), np.float32)
    logits, powers = np.empty((m, wanted), np.float32), np.empty((m, wanted), np.int32)
    nearest, weight = np.empty(m, np.float32), np.empty(m, np.float32)
    home, renamed = np.empty(m, np.int32), np.empty(wanted, np.int32)
    block = max(1, ONE_THREAD // (wanted * d))
    for user in range(b):
        n = 0
        for i in range(m):
            clusters[user, i] = -1
            weights[user, i] = 0
            if valid[user, i]:
                rows[n] = items[user, i]
                place[n] = i
                n += 1
        k = _farthest(rows[:n], first[user], centroids, nearest)
        centroids[k:] = 0
        for turn in range(iterations if n else 0):
            for start in range(0, n, block):
                stop = min(start + block, n)
                np.dot(rows[start:stop], centroids.T, logits[start:stop])
            _nearest(logits[:n], powers[:n], k, sharpness, home[:n], weight)
            k = _drop_empty(k, home[:n], renamed)
            if turn + 1 < iterations:
                _move(rows[:n], k, home, weight, centroids)
        for i in range(n):
            clusters[user, place[i]] = home[i]
            weights[user, place[i]] = weight[i]
        counts[user] = k
