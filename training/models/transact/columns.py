"""The encoder in float32 for one candidate after the other, in one call, while it is in the second cache.

Matrices are transposed, (d, T): a token is a column. Softmax and norms then run down columns that stand beside
each other, no number of a register meets another of it, and whatever is multiplied has its tokens side by side.
Behind the values of a layer no column needs its neighbours, so a few of them go through all of it while they
are in the first cache. What follows a product is done with each tile of it in registers: the largest score,
the residual, the sums that a norm is made of, relu; `folding.centred` takes norms apart for that. T is filled
up to whole registers by the first token over again, which changes no maximum; rows are filled up to a multiple
of ROWS.

The first layer's weights are products of what is the user's and what is the candidate's,

    exp(A[t, s] + b_c[s]) = E[t, s] w_c[s] (what all s share)  E = exp(A - max), w_c = exp(b_c - max)

Where these lie so far apart that the products vanish in float32, the scores are added and made weights of.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

from training.models.transact.lanes import (
    INNER,
    JIT,
    LANES,
    VECTORS,
    highest,
    larger,
    largest,
    load,
    loads,
    product,
    root,
    spread,
    spreads,
    store,
    stores,
    tiled,
    times_power,
    together,
)

ONE, ZERO, NONE = np.float32(1), np.float32(0), np.float32(-np.inf)
ROUND = np.float32(1.5 * 2**23)
"""Added and taken off again it leaves the nearest integer; added, that integer is in the last bits."""
LEAST = np.float32(-100)
"""Powers of two below are nothing beside the largest, which is 1, and products of the others are normal."""
_POWERS = Chebyshev.interpolate(lambda f: 2.0**f, 5, domain=[-0.5, 0.5]).convert(kind=Polynomial).coef
C0, C1, C2, C3, C4, C5 = (np.float32(c) for c in _POWERS)  # 2^f, |f| <= 1/2, within 1e-7 of it
SUMS = MOST, OVER, TOTAL, SQUARES, SCALE, LESS = range(6)
"""Rows of a panel's `sums`, a number a column: the largest score; what makes weights sum to one; the sum of
what is to be normed, and of its squares; what the norm multiplies by, and that times the mean."""
LEAST_TOTAL = np.float32(1e-25)
"""Sums of weights below have lost digits to underflow."""


@numba.njit(**JIT)
def power(x):  # type: ignore[no-untyped-def]
    """2^x of a vector, x < 127."""
    x = larger(x, spread(LEAST))
    n = x + spread(ROUND)
    f = x - (n - spread(ROUND))
    # three sums beside each other, where Horner's scheme would wait for five
    low, middle, high = spread(C0) + spread(C1) * f, spread(C2) + spread(C3) * f, spread(C4) + spread(C5) * f
    return times_power(low + f * f * (middle + f * f * high), n)


@numba.njit(**JIT)
def softmax(scores, length, sums, vectors):  # type: ignore[no-untyped-def]
    """scores[:length] = 2^(score - sums[MOST]), sums[OVER] = 1 / the columns' sums."""
    for j in range(0, vectors * LANES, LANES):
        most, total = load(sums, MOST, j), spread(ZERO)
        for i in range(length):
            weight = power(load(scores, i, j) - most)
            store(scores, i, j, weight)
            total = total + weight
        store(sums, OVER, j, spread(ONE) / total)


@numba.njit(**JIT)
def weighed(exponentials, at, weights, out, sums, vectors):  # type: ignore[no-untyped-def]
    """out[s, j] = exponentials[s, at + j] weights[s], sums[OVER] = 1 / its columns' sums; the largest."""
    most = spread(ZERO)
    for j in range(0, vectors * LANES, LANES):
        total = spread(ZERO)
        for i in range(len(weights)):
            weight = load(exponentials, i, at + j) * spread(weights[i])
            store(out, i, j, weight)
            total = total + weight
        over = spread(ONE) / total
        store(sums, OVER, j, over)
        most = larger(most, over)
    return largest(most)


@numba.njit(**JIT)
def added(scores, at, lift, out, sums, vectors):  # type: ignore[no-untyped-def]
    """out[s, j] = scores[s, at + j] + lift[s], sums[MOST] = the columns' largest."""
    for j in range(0, vectors * LANES, LANES):
        most = spread(NONE)
        for i in range(len(lift)):
            score = load(scores, i, at + j) + spread(lift[i])
            store(out, i, j, score)
            most = larger(most, score)
        store(sums, MOST, j, most)


@numba.njit(**JIT)
def with_most(rows, i, j, sums, out, to, more):  # type: ignore[no-untyped-def]
    """What `scored` does with a tile."""
    stores(out, i, to + j, rows)
    store(sums, MOST, j, larger(load(sums, MOST, j), highest(rows)))


@numba.njit(**INNER)
def scored(panel, query, query_bias, keys, x, at, vectors):  # type: ignore[no-untyped-def]
    """panel.weights = scores of x[:, at : at + w] with `keys` (S, d), sums[MOST] = the columns' largest."""
    begin = panel.begin
    product(panel.more, begin, query_bias, query, x, at, vectors)
    for j in range(0, vectors * LANES, LANES):
        store(panel.sums, MOST, j, spread(NONE))
    tiled(with_most, panel.sums, panel.weights, begin, None, panel.none, keys, panel.more, begin, vectors)


@numba.njit(**JIT)
def summed(rows, j, sums):  # type: ignore[no-untyped-def]
    store(sums, TOTAL, j, load(sums, TOTAL, j) + together(rows))
    store(sums, SQUARES, j, load(sums, SQUARES, j) + together(rows * rows))


@numba.njit(**JIT)
def with_own(rows, i, j, panel, x, at, shift):  # type: ignore[no-untyped-def]
    """What `attended` does with a tile."""
    rows = rows * load(panel.sums, OVER, j) + (loads(x, i, at + j) + spreads(shift, i))
    stores(panel.x, i, j, rows)
    summed(rows, j, panel.sums)


@numba.njit(**INNER)
def attended(panel, values, x, at, shift, vectors):  # type: ignore[no-untyped-def]
    """panel.x = x[:, at : at + w] + shift + `values` (D, T) by the panel's weights, summed for a norm."""
    tiled(with_own, panel, x, at, shift, panel.none, values, panel.weights, panel.begin, vectors)


@numba.njit(**JIT)
def measured(sums, d, eps, vectors):  # type: ignore[no-untyped-def]
    """sums[SCALE] and sums[LESS] of columns of `d` numbers by their sums, which begin anew.

    All that is added up is centred but for what gains of the norm before make of it. The mean is then at most
    the deviation of these gains, small beside the numbers: its square is taken off without loss.
    """
    share = spread(ONE / np.float32(d))
    for j in range(0, vectors * LANES, LANES):
        mean = load(sums, TOTAL, j) * share
        variance = larger(load(sums, SQUARES, j) * share - mean * mean, spread(ZERO))
        scale = spread(ONE) / root(variance + spread(eps))
        store(sums, SCALE, j, scale)
        store(sums, LESS, j, mean * scale)
        store(sums, TOTAL, j, spread(ZERO))
        store(sums, SQUARES, j, spread(ZERO))


@numba.njit(**JIT)
def bent(rows, i, j, sums, out, to, bias):  # type: ignore[no-untyped-def]
    """What `forwarded` does with a tile of `up`."""
    stores(out, i, to + j, larger(rows * load(sums, SCALE, j) + spreads(bias, i), spread(ZERO)))


@numba.njit(**JIT)
def with_normed(rows, i, j, panel, out, to, gain):  # type: ignore[no-untyped-def]
    """What `forwarded` does with a tile of `down`."""
    own = loads(panel.x, i, j) * load(panel.sums, SCALE, j) - load(panel.sums, LESS, j)
    rows = rows + own * spreads(gain, i)
    stores(out, i, to + j, rows)
    summed(rows, j, panel.sums)


@numba.njit(**INNER)
def forwarded(panel, up, up_bias, down, gain, shift, out, at, vectors):  # type: ignore[no-untyped-def]
    """out[:, at : at + w] = y + down relu(up z + up_bias), y = gain z + shift, z the normed panel.x; summed."""
    begin, none, sums = panel.begin, panel.none, panel.sums
    tiled(bent, sums, panel.hidden, begin, up_bias, none, up, panel.x, begin, vectors)
    tiled(with_normed, panel, out, at, gain, shift, down, panel.hidden, begin, vectors)


@numba.njit(**JIT)
def normed(sums, gain, shift, out, at, vectors):  # type: ignore[no-untyped-def]
    """out[:, at : at + w] as measured, times gain, plus shift."""
    for j in range(0, vectors * LANES, LANES):
        scale, less = load(sums, SCALE, j), load(sums, LESS, j)
        for i in range(len(gain)):
            z = load(out, i, at + j) * scale - less
            store(out, i, at + j, z * spread(gain[i]) + spread(shift[i]))


@numba.njit(**JIT)
def maxima(x, out):  # type: ignore[no-untyped-def]
    """out[i] = the largest of x[i], whole registers."""
    for i in range(len(out)):
        most = load(x, i, 0)
        for j in range(LANES, x.shape[1], LANES):
            most = larger(load(x, i, j), most)
        out[i] = largest(most)


@numba.njit(**JIT)
def taken(wide, at):  # type: ignore[no-untyped-def]
    """Registers of the next panel: VECTORS, but two and two rather than one alone, which waits for itself."""
    left = (wide - at) // LANES
    return 2 if left == VECTORS + 1 else min(left, VECTORS)


class Own(NamedTuple):
    """What one candidate brings to the first layer: a row of each of `Given`'s."""

    plus: NDArray[np.float32]  # (D,)
    lift: NDArray[np.float32]  # (T,)
    weights: NDArray[np.float32]  # (T,)


@numba.njit(**INNER)
def layer(layers, n, shared, own, keys, x, values, panel, out):  # type: ignore[no-untyped-def]
    """Layer `n` for the columns of `x` (D, w), out of those of `keys` (D, W); `values` (D, W) is scratch."""
    d, length, begin, eps = layers.query.shape[2], len(own.lift), panel.begin, layers.eps
    at = begin
    while n and at < keys.shape[1]:
        vectors = taken(keys.shape[1], at)
        product(values, at, layers.value_bias[n], layers.value[n, :, :d], keys, at, vectors)
        at += vectors * LANES
    seen, shift = (values if n else shared.values)[:, :length], (panel.none if n else own.plus)
    query, query_bias, asked = layers.query[n, :, :d], layers.query_bias[n], keys[:d, : len(panel.weights)].T
    up, up_bias, down = layers.up[n, :, :d], layers.up_bias[n], layers.down[n, :, : layers.down.shape[2]]
    gain1, shift1, gain2, shift2 = layers.gain1[n], layers.shift1[n], layers.gain2[n], layers.shift2[n]
    at = begin
    while at < x.shape[1]:
        vectors = taken(x.shape[1], at)
        if n:
            scored(panel, query, query_bias, asked, x, at, vectors)
            softmax(panel.weights, length, panel.sums, vectors)
        else:
            most = weighed(shared.exponentials, at, own.weights, panel.weights, panel.sums, vectors)
            if most > ONE / LEAST_TOTAL:
                added(shared.scores, at, own.lift, panel.weights, panel.sums, vectors)
                softmax(panel.weights, length, panel.sums, vectors)
        attended(panel, seen, x, at, shift, vectors)
        measured(panel.sums, d, eps, vectors)
        forwarded(panel, up, up_bias, down, gain1, shift1, out, at, vectors)
        measured(panel.sums, d, eps, vectors)
        normed(panel.sums, gain2, shift2, out, at, vectors)
        at += vectors * LANES


@numba.njit(**JIT)
def gathered(x, columns, out):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        for j in range(len(columns)):
            out[i, j] = x[i, columns[j]]


@numba.njit(**JIT)
def encode(layers, shared, given, asked, columns, tokens, panel, most, out):  # type: ignore[no-untyped-def]
    """Every candidate's tokens through all layers.

    The maximum over tokens goes to `most` (C, d). Where that is (0, d) nobody wants it, and the last of several
    layers answers for the columns `asked` (w,) alone, whole registers of them. Of what comes out, the columns
    `columns` (k,) go one behind the other to `out` (C, n), behind the place of the maximum if that is wanted.
    """
    depth, d, everything = len(layers.query), layers.query.shape[2], len(most) > 0
    begin = d if everything else 0
    for c in range(len(given.plus)):
        own = Own(given.plus[c], given.lift[c], given.weights[c])
        x, y, spare = shared.tokens, tokens.x, tokens.y
        for n in range(depth):
            few = not everything and 0 < n == depth - 1
            if few:
                gathered(x, asked, tokens.few)
                y = tokens.last
            layer(layers, n, shared, own, x, tokens.few if few else x, tokens.values, panel, y)
            x, y, spare = y, spare, y
        if everything:
            maxima(x, most[c])
        for k in range(len(columns)):
            for i in range(d):
                out[c, begin + k * d + i] = x[i, columns[k]]
