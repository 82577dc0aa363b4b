"""PinnerSage's compiled kernels: Ward clusters, medoids and importances; `interest_clusters.py` is their door.

Exact at single-precision speed. Squared distances and their Lance-Williams updates are float32; every height
is computed anew in float64 from the two centroids, and whenever the float32 values leave a choice open (two
neighbours nearer each other than rounding can tell, a height that near `alpha`), the choice is made in float64.
So partitions are those of a float64 Ward, at half the memory and less than half the arithmetic.

Two more savings, both exact. A merge rewrites its row only, never its column, which would be one cache line an
element: a row catches up with the clusters made since it was last read when it is next read. And a cluster
without a neighbour within `alpha` is final, since Ward is reducible: the chain stops there.

All of them stand in this one file, so that numba's cache of one cannot go stale when another changes.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import get_cython_function_address, intrinsic
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bits = NDArray[np.int32]
Matrix = NDArray[Any]

INFINITY = np.int32(0x7F800000)
"""Bits of float32 +inf."""
BLOCK = 64
"""Columns whose minimum is taken together: a few vector registers."""
TILE = 128
"""Rows and columns mirrored together."""
MS_PER_DAY = 86_400_000.0
LONGEST = 1e30
"""Squared norm from which a vector counts as broken: its distances would overflow float32."""
UNIT = 2.0**-24
"""Relative error of one float32 operation."""
SSYRK = get_cython_function_address("scipy.linalg.cython_blas", "ssyrk")
"""Address of BLAS's symmetric product."""


@intrinsic
def _syrk(typingctx: Any, address: Any, n: Any, k: Any, a: Any, lda: Any, c: Any, ldc: Any) -> Any:
    """Call BLAS ssyrk (upper, transposed) at `address`: C-ordered, the lower triangle of c = a @ a.T.

    By address, since numba's own product knows no symmetry, and a pointer in a global could not be cached.
    """
    signature = types.void(
        types.intp, types.int64, types.int64, types.intp, types.int64, types.intp, types.int64
    )

    def codegen(context: Any, builder: Any, _: Any, args: Any) -> Any:
        text, int32, single = ir.IntType(8), ir.IntType(32), ir.FloatType()
        address, n, k, a, lda, c, ldc = args

        def held(value: Any) -> Any:
            return cgutils.alloca_once_value(builder, value)

        def integer(value: Any) -> Any:
            return held(builder.trunc(value, int32))

        def matrix(value: Any) -> Any:
            return builder.inttoptr(value, single.as_pointer())

        operands = [
            held(text(ord("U"))),
            held(text(ord("T"))),
            integer(n),
            integer(k),
            held(single(1.0)),
            matrix(a),
            integer(lda),
            held(single(0.0)),
            matrix(c),
            integer(ldc),
        ]
        function = ir.FunctionType(ir.VoidType(), [operand.type for operand in operands])
        builder.call(builder.inttoptr(address, function.as_pointer()), operands)
        return context.get_dummy_value()

    return signature, codegen


@numba.njit(cache=True, nogil=True)
def _to_distances(products: Floats, squares: Floats, square: np.float32) -> None:
    for j in range(products.shape[0]):
        value = square + squares[j] - np.float32(2.0) * products[j]
        products[j] = value if value > 0 else np.float32(0.0)


@numba.njit(cache=True, nogil=True)
def _copy(to: Floats, column: Floats) -> None:
    for i in range(to.shape[0]):
        to[i] = column[i]


@numba.njit(cache=True, nogil=True)
def distances(x: Floats, out: Floats, syrk: int) -> float:
    """Squared distances of the rows of `x` into `out`, +inf up to a whole block; the largest squared norm."""
    m, d = x.shape
    _syrk(syrk, m, d, x.ctypes.data, d, out.ctypes.data, out.shape[1])
    squares = np.empty(m, np.float32)
    largest = np.float32(0.0)
    for i in range(m):
        squares[i] = out[i, i]
        if not squares[i] <= largest:  # a NaN stays
            largest = squares[i]
        if np.isnan(largest):
            return np.nan
    for top in range(0, m, TILE):
        bottom = min(top + TILE, m)
        for left in range(0, top + 1, TILE):
            right = min(left + TILE, bottom)
            for i in range(top, bottom):
                _to_distances(out[i, left : min(right, i)], squares[left : min(right, i)], squares[i])
            for j in range(left, right):
                low = max(top, j + 1)
                _copy(out[j, low:bottom], out[low:bottom, j])
    for i in range(m):
        out[i, i] = np.inf
        for j in range(m, (m + BLOCK - 1) // BLOCK * BLOCK):
            out[i, j] = np.inf
    return largest


@numba.njit(cache=True, nogil=True)
def _block_minima(bits: Bits, top: int, absent: Bits, minima: Bits) -> np.int32:
    """Minimum of the present columns of a row, by block and of all; bits of floats >= 0 order as floats do.

    numba widens integers to 64 bits where nobody says otherwise, at half the speed.
    """
    row = bits[top]
    least = INFINITY
    for b in range(minima.shape[0]):
        part, gone = row[b * BLOCK : (b + 1) * BLOCK], absent[b * BLOCK : (b + 1) * BLOCK]
        low = INFINITY
        for k in range(BLOCK):
            value = np.int32(part[k] | gone[k])
            low = value if value < low else low
        minima[b] = low
        least = low if low < least else least
    return least


@numba.njit(cache=True, nogil=True)
def _search(bits: Bits, top: int, absent: Bits, start: int, near: np.int32) -> tuple[int, int]:
    """Last column of the block at `start` that is at most `near`, and how many are."""
    part, gone = bits[top, start : start + BLOCK], absent[start : start + BLOCK]
    last, hits = np.int32(-1), np.int32(0)
    for k in range(BLOCK):
        hit = np.int32(part[k] | gone[k]) <= near
        place = np.int32(k) if hit else np.int32(-1)
        last = place if place > last else last
        hits = np.int32(hits + np.int32(hit))
    return start + last, hits


@numba.njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "reassoc", "contract"}, error_model="numpy")
def _gap(a: Matrix, i: int, b: Matrix, k: int) -> float:
    """Squared distance of two rows in float64."""
    total = 0.0
    for j in range(a.shape[1]):
        step = np.float64(a[i, j]) - np.float64(b[k, j])
        total += step * step
    return total


@numba.njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "reassoc", "contract"}, error_model="numpy")
def _meet(a: Matrix, i: int, b: Matrix, k: int, share: float, out: Doubles) -> float:
    """`_gap`, and out[i] becomes the point `share` of the way from one to the other."""
    total = 0.0
    for j in range(a.shape[1]):
        step = np.float64(a[i, j]) - np.float64(b[k, j])
        total += step * step
        out[i, j] = a[i, j] - share * step
    return total


@numba.njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "reassoc", "contract"}, error_model="numpy")
def _move(a: Doubles, i: int, b: Matrix, k: int, share: float) -> float:
    """`_meet` in place: a loop whose output may be its input is not vectorised unless it says so."""
    total = 0.0
    for j in range(a.shape[1]):
        step = a[i, j] - np.float64(b[k, j])
        total += step * step
        a[i, j] -= share * step
    return total


@numba.njit(cache=True, nogil=True)
def _exact(x: Floats, centroids: Doubles, size: Floats, i: int, k: int) -> float:
    """Ward distance of two clusters in float64; symmetric to the last bit."""
    a, b = np.float64(size[i]), np.float64(size[k])
    if a == 1.0:
        gap = _gap(x, i, x, k) if b == 1.0 else _gap(x, i, centroids, k)
    else:
        gap = _gap(centroids, i, x, k) if b == 1.0 else _gap(centroids, i, centroids, k)
    return 2.0 * a * b / (a + b) * gap


@numba.njit(cache=True, nogil=True)
def _nearest(
    x: Floats, centroids: Doubles, size: Floats, bits: Bits, absent: Bits, top: int, before: int, near: int
) -> tuple[int, float]:
    """The nearest in float64 of the columns that are at most `near` in float32, and its Ward distance.

    The one `before` wins ties, without which equal distances could go round in a circle; then the lowest.
    """
    nearest, height = -1, np.inf
    if before >= 0 and bits[top, before] | absent[before] <= near:
        nearest, height = before, _exact(x, centroids, size, top, before)
    for k in range(absent.shape[0]):
        if height == 0.0:  # copies of one vector: none is nearer
            break
        if bits[top, k] | absent[k] <= near:
            value = _exact(x, centroids, size, top, k)
            if value < height:
                nearest, height = k, value
    return nearest, height


@numba.njit(cache=True, nogil=True)
def _unite(x: Floats, centroids: Doubles, size: Floats, into: int, other: int) -> float:
    """The Ward distance of two clusters in float64; centroids[into] becomes that of their union."""
    a, b = np.float64(size[into]), np.float64(size[other])
    share = b / (a + b)
    if a == 1.0:
        if b == 1.0:
            gap = _meet(x, into, x, other, share, centroids)
        else:
            gap = _meet(x, into, centroids, other, share, centroids)
    elif b == 1.0:
        gap = _move(centroids, into, x, other, share)
    else:
        gap = _move(centroids, into, centroids, other, share)
    return 2.0 * a * b / (a + b) * gap


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _update(distance: Floats, into: int, other: int, size: Floats, height: float) -> None:
    """Lance-Williams: row `into` becomes the distances to the union of the two clusters."""
    a, b, h = size[into], size[other], np.float32(height)
    both = a + b
    for k in range(size.shape[0]):
        n = size[k]
        value = ((a + n) * distance[into, k] + (b + n) * distance[other, k] - n * h) / (both + n)
        distance[into, k] = value if value > 0 else np.float32(0.0)


@numba.njit(cache=True, nogil=True)
def _catch_up(distance: Floats, cluster: int, made: Ints, older: Ints, seen: int) -> None:
    """Take the distances to clusters changed after `seen` from their rows, which are newer."""
    m = made.shape[0]
    s = older[m]
    while s != m and made[s] > seen:
        distance[cluster, s] = distance[s, cluster]
        s = older[s]


@numba.njit(cache=True, nogil=True)
def ward(x: Floats, alpha: float, distance: Floats, centroids: Doubles, syrk: int) -> tuple[Ints, Ints]:
    """Nearest-neighbour chain: labels of the merges of height <= `alpha`, and the rows of `centroids` that hold
    the centroids of the clusters; a cluster of one has none there.

    Errors of the float32 distances stay below `slack * 2ab / (a + b)` for clusters of a and b points. The
    recursion hands on the leaves' errors (a dot product of d terms: sqrt(d) roundings, by chance; Higham and
    Mary 2019) in just that proportion, and with exact heights each merge adds its own roundings, no more.
    """
    m, d = x.shape
    labels = np.full(m, -1, np.int64)
    largest = distances(x, distance, syrk)
    if not largest < np.inf:
        return labels, labels[:0]
    width = (m + BLOCK - 1) // BLOCK * BLOCK
    bits = distance.view(np.int32)
    minima = np.empty(width // BLOCK, np.int32)
    level = np.empty(1, np.float32)
    level_bits = level.view(np.int32)
    size = np.ones(width, np.float32)
    absent = np.zeros(width, np.int32)  # infinity once a cluster is merged away or final
    absent[m:] = INFINITY
    parent = np.arange(m)
    depth = np.zeros(m, np.int64)
    deepest = 0
    made = np.zeros(m, np.int64)  # when a cluster was last changed
    seen = np.zeros(m, np.int64)  # up to when its row is right
    newer = np.full(m + 1, m, np.int64)  # changed clusters in a ring through m, newest last
    older = np.full(m + 1, m, np.int64)
    chain = np.empty(m, np.int64)
    length, first, now = 0, 0, 0
    leaf = 16.0 * np.sqrt(d) * UNIT * largest
    while True:
        if length == 0:
            while first < m and absent[first] > 0:
                first += 1
            if first == m:
                break
            chain[0] = first
            length = 1
        top = chain[length - 1]
        before = chain[length - 2] if length > 1 else -1
        _catch_up(distance, top, made, older, seen[top])
        seen[top] = now
        level_bits[0] = _block_minima(bits, top, absent, minima)
        least = level[0]
        slack = (leaf + 16.0 * UNIT * largest * deepest) * 2.0 * size[top]
        nearest, height, found = -1, np.inf, 0
        if least < np.inf and least - slack <= alpha:
            level[0] = least + 2.0 * slack
            near = level_bits[0]
            for b in range(minima.shape[0]):
                if minima[b] <= near:
                    at, hits = _search(bits, top, absent, b * BLOCK, near)
                    nearest = at
                    found += hits
            if found > 1:
                nearest, height = _nearest(x, centroids, size, bits, absent, top, before, near)
        if length == m and before >= 0:
            nearest, height = before, _exact(x, centroids, size, top, before)
        if nearest >= 0 and found < 2 and least + slack > alpha:
            height = _exact(x, centroids, size, top, nearest)
        if nearest < 0 or (height > alpha and height < np.inf):
            absent[top] = INFINITY
            length -= 1
            if made[top] > 0:
                newer[older[top]], older[newer[top]] = newer[top], older[top]
        elif nearest == before:
            length -= 2
            _catch_up(distance, before, made, older, seen[before])
            now += 1
            height = _unite(x, centroids, size, before, top)
            _update(distance, before, top, size, height)
            size[before] += size[top]
            parent[top] = before
            absent[top] = INFINITY
            depth[before] = max(depth[before], depth[top]) + 1
            deepest = max(deepest, depth[before])
            if made[top] > 0:
                newer[older[top]], older[newer[top]] = newer[top], older[top]
            if made[before] > 0:
                newer[older[before]], older[newer[before]] = newer[before], older[before]
            newer[before], older[before] = m, older[m]
            newer[older[m]] = before
            older[m] = before
            made[before] = now
            seen[before] = now
        else:
            chain[length] = nearest
            length += 1
    return labels, _number(parent, labels)


@numba.njit(cache=True, nogil=True)
def _number(parent: Ints, labels: Ints) -> Ints:
    """Clusters of a merge forest, numbered in order of their first member; the root of each."""
    m = parent.shape[0]
    names, roots = np.full(m, -1, np.int64), np.empty(m, np.int64)
    count = 0
    for i in range(m):
        root = i
        while parent[root] != root:
            parent[root] = parent[parent[root]]  # path halving: long merge trails are walked once
            root = parent[root]
        if names[root] < 0:
            names[root] = count
            roots[count] = root
            count += 1
        labels[i] = names[root]
    return roots[:count]


@numba.njit(cache=True, nogil=True)
def means_of(x: Floats, labels: Ints, clusters: int) -> Doubles:
    """Mean vector of each cluster."""
    m, d = x.shape
    means, sizes = np.zeros((clusters, d)), np.zeros(clusters, np.int64)
    for i in range(m):
        c = labels[i]
        sizes[c] += 1
        for j in range(d):
            means[c, j] += x[i, j]
    for c in range(clusters):
        for j in range(d):
            means[c, j] /= sizes[c]
    return means


@numba.njit(cache=True, nogil=True)
def medoids_of(x: Floats, labels: Ints, sizes: Ints, centroids: Doubles, roots: Ints) -> Ints:
    """Member of each cluster nearest its centroid, which is row `roots[cluster]`; the earlier of equals."""
    clusters = sizes.shape[0]
    medoid, best = np.full(clusters, -1, np.int64), np.full(clusters, np.inf)
    for i in range(x.shape[0]):
        c = labels[i]
        if medoid[c] < 0:
            medoid[c] = i
        if sizes[c] > 2:  # both of two are as near
            gap = _gap(x, i, centroids, roots[c])
            if gap < best[c]:
                best[c] = gap
                medoid[c] = i
    return medoid


@numba.njit(cache=True, nogil=True)
def cluster_slice(
    pin_ids: Ints,
    vectors: Floats,
    rows: Ints,
    times_ms: Ints,
    offsets: Ints,
    span: tuple[int, int, int, int, int],
    shape: tuple[float, float],
    space: tuple[Floats, Doubles, Floats],
    out: tuple[Ints, Ints, Doubles, Ints],
    syrk: int,
) -> None:
    """`cluster_users`; `span` and `shape` are the fields of Limits, `out` those of Medoids."""
    start_ms, end_ms, now_ms, most_actions, most_pins = span
    decay, alpha = shape
    points, centroids, distances = space
    for u in range(offsets.shape[0] - 1):
        begin, end = offsets[u], offsets[u + 1]
        begin += np.searchsorted(times_ms[begin:end], start_ms)
        end = begin + np.searchsorted(times_ms[begin:end], end_ms)
        if begin == end:
            continue
        owner = np.full(end - begin, -1, np.int64)
        newest = np.empty(min(end - begin, most_pins), np.int64)
        m = _gather(
            pin_ids[begin:end],
            rows[begin:end],
            times_ms[begin:end],
            vectors,
            most_actions,
            points[:most_pins],
            owner,
            newest,
        )
        if m == 0:
            continue
        x = points[:m]
        if m == 1:
            labels, roots = np.zeros(1, np.int64), np.zeros(1, np.int64)
        else:
            wide = (m + BLOCK - 1) // BLOCK * BLOCK + 16
            labels, roots = ward(x, alpha, distances[: m * wide].reshape(m, wide), centroids, syrk)
        clusters = roots.shape[0]
        weights = np.zeros(clusters)
        for a in range(end - begin - 1, -1, -1):
            if owner[a] >= 0:
                age = max(now_ms - times_ms[begin + a], 0) / MS_PER_DAY
                weights[labels[owner[a]]] += np.exp(-decay * age)
        sizes = np.zeros(clusters, np.int64)
        for i in range(m):
            sizes[labels[i]] += 1
        medoid = medoids_of(x, labels, sizes, centroids, roots)
        kept = min(clusters, out[1].shape[1])
        for place in range(kept):
            best = -1
            for c in range(clusters):
                if weights[c] < 0.0:
                    continue
                lighter = best < 0 or weights[best] < weights[c]
                if not lighter and weights[best] == weights[c]:
                    lighter = pin_ids[begin + newest[medoid[c]]] < pin_ids[begin + newest[medoid[best]]]
                if lighter:
                    best = c
            out[1][u, place] = begin + newest[medoid[best]]
            out[2][u, place] = weights[best]
            out[3][u, place] = sizes[best]
            weights[best] = -1.0
        out[0][u] = kept


@numba.njit(cache=True, nogil=True)
def _gather(
    pin_ids: Ints,
    rows: Ints,
    times_ms: Ints,
    vectors: Floats,
    most_actions: int,
    points: Floats,
    owner: Ints,
    newest: Ints,
) -> int:
    """Vectors of the newest distinct pins into `points`, newest first; how many there are.

    `owner[a]` becomes the point of action a, -1 where it does not count; `newest[i]` the newest action on
    point i. Of actions at one moment the earlier row comes first. Pins are told apart by a hash table.
    """
    n = pin_ids.shape[0]
    mask = 4
    while mask < 2 * n:
        mask *= 2
    mask -= 1
    keys = np.empty(mask + 1, np.int64)
    values = np.full(mask + 1, -2, np.int64)  # -2 free, -1 a pin that does not count
    found, taken, stop = 0, 0, n
    while stop > 0 and taken < most_actions:
        begin = stop - 1
        while begin > 0 and times_ms[begin - 1] == times_ms[begin]:
            begin -= 1
        for a in range(begin, stop):
            slot = (pin_ids[a] * 0x9E3779B1 >> 7) & mask
            while values[slot] != -2 and keys[slot] != pin_ids[a]:
                slot = (slot + 1) & mask
            if values[slot] == -2:
                keys[slot] = pin_ids[a]
                values[slot] = -1
                if found < newest.shape[0] and _take(vectors, rows[a], points, found):
                    newest[found] = a
                    values[slot] = found
                    found += 1
            if values[slot] >= 0:
                owner[a] = values[slot]
                taken += 1
                if taken == most_actions:
                    break
        stop = begin
    return found


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _take(vectors: Floats, row: int, points: Floats, place: int) -> bool:
    """Copy a vector; False for a zero one and for one not finite or too long to have finite distances."""
    square = np.float32(0.0)
    for j in range(vectors.shape[1]):
        value = vectors[row, j]
        points[place, j] = value
        square += value * value
    return 0.0 < square < LONGEST
