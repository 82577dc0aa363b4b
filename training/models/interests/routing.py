"""Single-assignment routing with farthest-point initialisation, compiled (arXiv 2506.23060, DCM).

    c_1 = a valid item;  c_j = argmax_i min_{j' < j} (-c_j' . e_i)  over valid items            VA-FPI
    b_ij = softmax_j(s c_j . e_i), kept for the argmax j only;  c_j = squash(sum_i b_ij e_i)    SAR, iterated

The assignment carries no gradient, so it runs outside torch; `conditions.py` gives the last sums theirs.
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

TILE = 64
"""Items whose products with a centroid are summed together: a cache holds all dimensions of so many."""
STEP = 8
"""Dimensions that a sum takes at a time."""


class Assignment(NamedTuple):
    """Where every item of every history went."""

    clusters: NDArray[np.int32]
    """(b, m): cluster of each item, -1 for items that take no part."""
    weights: Floats
    """(b, m): the item's b_ij for that cluster, 0 for items that take no part."""
    counts: NDArray[np.int32]
    """(b,): clusters that hold an item, at most K; they are numbered from 0 without gaps."""
    shares: Floats
    """(b, K): sum of b_ij of a cluster's items, 0 past the count."""
    sums: Floats
    """(b, K, d'): sum of b_ij e_i, 0 past the count."""


def assign(
    items: Floats,
    valid: NDArray[np.bool_],
    first: Ints,
    clusters: int,
    iterations: int,
    sharpness: float,
    summed: Floats | None = None,
) -> Assignment:
    """VA-FPI and single-assignment routing of b histories.

    `items` (b, m, d) float32, unit rows where valid; `valid` (b, m); `first` (b,) picks the first centroid
    as the (first mod valid items)-th valid item. Where a history has fewer distinct items than `clusters`
    it gets as many clusters as it has distinct items, none where nothing is valid; clusters that routing
    empties are dropped. `summed` (b, m, d') float32 are the vectors that sums are made of, `items` if left out.
    Raises ValueError on shapes that do not fit and for no iteration.
    """
    if iterations < 1:
        raise ValueError("routing takes at least one iteration: before it no item has a cluster")
    b, m, _ = items.shape
    summed = items if summed is None else summed
    if valid.shape != (b, m) or first.shape != (b,) or summed.shape[:2] != (b, m):
        shapes = f"items {items.shape}, valid {valid.shape}, first {first.shape}, summed {summed.shape}"
        raise ValueError(f"{shapes} do not fit")
    out = Assignment(
        np.empty((b, m), np.int32),
        np.empty((b, m), np.float32),
        np.empty(b, np.int32),
        np.zeros((b, clusters), np.float32),
        np.zeros((b, clusters, summed.shape[2]), np.float32),
    )
    _assign(
        np.ascontiguousarray(items, np.float32),
        np.ascontiguousarray(summed, np.float32),
        valid,
        first,
        clusters,
        iterations,
        np.float32(sharpness),
        *out,
    )
    return out


def spread(sums: Floats, found: Assignment) -> Floats:
    """(b, m, d'): b_ij times the row (b, K, d') of each item's cluster: the gradient of `found.sums`."""
    b, m = found.clusters.shape
    out = np.zeros((b, m, sums.shape[2]), np.float32)
    _spread(np.ascontiguousarray(sums, np.float32), found.clusters, found.weights, out)
    return out


_FAST = {"reassoc", "contract", "nsz"}


@numba.njit(cache=True, nogil=True)
def _tabulate(items: Floats, valid: NDArray[np.bool_], place: Ints, table: Floats) -> int:
    """Valid items into `table` (tiles, dimensions * TILE), a dimension's items side by side; how many."""
    n = 0
    for i in range(items.shape[0]):
        if valid[i]:
            row, tile, at = items[i], table[n // TILE], n % TILE
            for c in range(row.shape[0]):
                tile[c * TILE + at] = row[c]
            place[n] = i
            n += 1
    return n


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _products(x: Floats, tile: Floats, out: Floats) -> None:
    """Inner products of `x` with a tile's items. Eight dimensions at a time, and the compiler holds them in
    registers while it goes over the items."""
    for i in range(TILE):
        out[i] = 0
    for c in range(0, x.shape[0], STEP):
        x0, x1, x2, x3 = x[c], x[c + 1], x[c + 2], x[c + 3]
        x4, x5, x6, x7 = x[c + 4], x[c + 5], x[c + 6], x[c + 7]
        e = tile[c * TILE : (c + STEP) * TILE]
        for i in range(TILE):
            low = (x0 * e[i] + x1 * e[TILE + i]) + (x2 * e[2 * TILE + i] + x3 * e[3 * TILE + i])
            high = (x4 * e[4 * TILE + i] + x5 * e[5 * TILE + i]) + (x6 * e[6 * TILE + i] + x7 * e[7 * TILE + i])
            out[i] += low + high


@numba.njit(cache=True, nogil=True, fastmath=_FAST | {"nnan"})
def _least(values: Floats) -> np.float32:
    low = np.float32(np.inf)
    for i in range(values.shape[0]):
        low = values[i] if values[i] < low else low
    return low


@numba.njit(cache=True, nogil=True)
def _farthest(
    items: Floats, place: Ints, first: int, table: Floats, centroids: Floats, logits: Floats, nearest: Floats
) -> int:
    """Items far from each other into `centroids`, their products with all items into `logits`; how many there
    are. `place` (n,) are the rows of the valid items; `nearest` is scratch."""
    n, wanted, tiles = place.shape[0], centroids.shape[0], table.shape[0]
    if n == 0:
        return 0
    pick = first % n
    nearest[:] = -np.inf
    for j in range(wanted):
        row, products = items[place[pick]], logits[j]
        for c in range(row.shape[0]):  # assigning the row compiles numba's shape errors, for four seconds
            centroids[j, c] = row[c]
        for tile in range(tiles):
            _products(centroids[j], table[tile], products[tile * TILE : (tile + 1) * TILE])
        for i in range(nearest.shape[0]):
            nearest[i] = products[i] if products[i] > nearest[i] else nearest[i]
        least = _least(nearest[:n])
        if least > REPEAT:
            return j + 1
        pick = 0
        while pick < n - 1 and nearest[pick] != least:
            pick += 1
    return wanted


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _higher(row: Floats, j: np.int32, top: Floats, home: NDArray[np.int32]) -> None:
    """`top` and `home` become `row` and `j` where the row is higher."""
    for i in range(top.shape[0]):
        higher = row[i] > top[i]
        top[i] = row[i] if higher else top[i]
        home[i] = j if higher else home[i]


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _add_powers(row: Floats, top: Floats, scale: np.float32, total: Floats) -> None:
    """Add 2^(scale * (row - top)), no exponent above 0.

    2^x = 2^(whole) * 2^(rest), the rest by its Taylor polynomial of degree 6 (relative error 2e-7), in a plain
    loop over items that the compiler vectorises.
    """
    for i in range(top.shape[0]):
        x = scale * (row[i] - top[i])
        x = x if x > np.float32(-120.0) else np.float32(-120.0)
        whole = np.floor(x + np.float32(0.5))
        r = (x - whole) * np.float32(0.69314718)
        tail = np.float32(1 / 6) + r * (
            np.float32(1 / 24) + r * (np.float32(1 / 120) + r * np.float32(1 / 720))
        )
        rest = np.float32(1) + r * (np.float32(1) + r * (np.float32(0.5) + r * tail))
        power = np.int32((whole + np.float32(127)) * np.float32(2**23)).view(np.float32)
        total[i] += rest * power


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _nearest(
    logits: Floats, k: int, sharpness: np.float32, home: NDArray[np.int32], top: Floats, weight: Floats
) -> None:
    """Argmax over the first k rows of `logits`, first of equals, and its softmax weight; `top` is scratch.

    A call a row, of arrays of one dimension: the compiler then sees that they are apart.
    """
    for i in range(top.shape[0]):
        top[i], home[i], weight[i] = logits[0, i], 0, 0
    for j in range(1, k):
        _higher(logits[j], np.int32(j), top, home)
    scale = sharpness * np.float32(1.44269504)
    for j in range(k):
        _add_powers(logits[j], top, scale, weight)
    for i in range(top.shape[0]):
        weight[i] = np.float32(1) / weight[i]


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _add(items: Floats, place: Ints, home: NDArray[np.int32], weight: Floats, sums: Floats) -> None:
    """Add every item, weighed, to the row of its cluster."""
    for i in range(place.shape[0]):
        into, row, share = sums[home[i]], items[place[i]], weight[i]
        for c in range(row.shape[0]):
            into[c] += share * row[c]


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _squash(centroids: Floats) -> None:
    """Rows become row * |row| / (1 + |row|^2)."""
    for j in range(centroids.shape[0]):
        row, square = centroids[j], np.float32(0.0)
        for c in range(row.shape[0]):
            square += row[c] * row[c]
        factor = np.float32(np.sqrt(square)) / (np.float32(1.0) + square)
        for c in range(row.shape[0]):
            row[c] *= factor


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
    summed: Floats,
    valid: NDArray[np.bool_],
    first: Ints,
    wanted: int,
    iterations: int,
    sharpness: np.float32,
    clusters: NDArray[np.int32],
    weights: Floats,
    counts: NDArray[np.int32],
    shares: Floats,
    sums: Floats,
) -> None:
    b, m, d = items.shape
    tiles, depth = (m + TILE - 1) // TILE, (d + STEP - 1) // STEP * STEP
    table, place = np.zeros((tiles, depth * TILE), np.float32), np.empty(m, np.int64)
    centroids, logits = np.zeros((wanted, depth), np.float32), np.empty((wanted, tiles * TILE), np.float32)
    scratch, weight = np.empty(tiles * TILE, np.float32), np.empty(tiles * TILE, np.float32)
    home, renamed = np.empty(tiles * TILE, np.int32), np.empty(wanted, np.int32)
    for user in range(b):
        clusters[user] = -1
        weights[user] = 0
        n = _tabulate(items[user], valid[user], place, table)
        full = (n + TILE - 1) // TILE
        own = place[:n]
        k = _farthest(items[user], own, first[user], table[:full], centroids, logits, scratch[: full * TILE])
        for turn in range(iterations if n else 0):
            for tile in range(full if turn else 0):
                for j in range(k):
                    _products(centroids[j], table[tile], logits[j, tile * TILE : (tile + 1) * TILE])
            _nearest(logits, k, sharpness, home, scratch[: full * TILE], weight)
            k = _drop_empty(k, home[:n], renamed)
            if turn + 1 < iterations:
                centroids[:k] = 0
                _add(items[user], own, home, weight, centroids)
                _squash(centroids[:k])
        for i in range(n):
            clusters[user, own[i]] = home[i]
            weights[user, own[i]] = weight[i]
            shares[user, home[i]] += weight[i]
        _add(summed[user], own, home, weight, sums[user])
        counts[user] = k


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _spread(sums: Floats, clusters: NDArray[np.int32], weights: Floats, out: Floats) -> None:
    b, m, d = out.shape
    for user in range(b):
        for i in range(m):
            if clusters[user, i] >= 0:
                into, row, share = out[user, i], sums[user, clusters[user, i]], weights[user, i]
                for c in range(d):
                    into[c] = share * row[c]
