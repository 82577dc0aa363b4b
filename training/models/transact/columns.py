"""The encoder in float32 for one candidate after the other, in one call, while it is in the second cache.

Matrices are transposed, (d, T): a token is a column. Softmax and norms then run down columns that stand beside
each other, no number of a register meets another of it, and whatever is multiplied has its tokens side by side.
Behind the values of a layer no column needs its neighbours, so a few of them go through all of it while they
are in the first cache. T is filled up to whole registers by the first token over again, which changes no
maximum; rows are filled up to a multiple of ROWS.

The first layer's weights are products of what is the user's and what is the candidate's,

    exp(A[t, s] + b_c[s]) = E[t, s] w_c[s] (what all s share)  E = exp(A - max), w_c = exp(b_c - max)

Where these lie so far apart that the products vanish in float32, the scores are added and made weights of.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from training.models.transact.lanes import (
    INNER,
    JIT,
    LANES,
    VECTORS,
    larger,
    largest,
    load,
    product,
    root,
    spread,
    store,
    times_power,
)

ONE, ZERO = np.float32(1), np.float32(0)
ROUND = np.float32(1.5 * 2**23)
"""Added and taken off again it leaves the nearest integer; added, that integer is in the last bits."""
LEAST = np.float32(-100)
"""Powers of two below are nothing beside the largest, which is 1, and products of the others are normal."""
_POWERS = Chebyshev.interpolate(lambda f: 2.0**f, 5, domain=[-0.5, 0.5]).convert(kind=Polynomial).coef
C0, C1, C2, C3, C4, C5 = (np.float32(c) for c in _POWERS)  # 2^f, |f| <= 1/2, within 1e-7 of it
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
def softmax(scores, length, over, vectors):  # type: ignore[no-untyped-def]
    """scores[:length] = 2^(score - its column's largest), over[0] = 1 / the columns' sums."""
    for j in range(0, vectors * LANES, LANES):
        most = load(scores, 0, j)
        for i in range(1, length):
            most = larger(load(scores, i, j), most)
        total = spread(ZERO)
        for i in range(length):
            weight = power(load(scores, i, j) - most)
            store(scores, i, j, weight)
            total = total + weight
        store(over, 0, j, spread(ONE) / total)


@numba.njit(**JIT)
def weighed(exponentials, at, weights, out, over, vectors):  # type: ignore[no-untyped-def]
    """out[s, j] = exponentials[s, at + j] weights[s], over[0] = 1 / the columns' sums; returns the largest."""
    most = spread(ZERO)
    for j in range(0, vectors * LANES, LANES):
        total = spread(ZERO)
        for i in range(len(weights)):
            weight = load(exponentials, i, at + j) * spread(weights[i])
            store(out, i, j, weight)
            total = total + weight
        times = spread(ONE) / total
        store(over, 0, j, times)
        most = larger(most, times)
    return largest(most)


@numba.njit(**JIT)
def norm(x, at, more, over, gain, shift, eps, out, to, vectors):  # type: ignore[no-untyped-def]
    """LayerNorm of the columns x[:d, at + j] + over[0, j] more[:d, j], d = len(gain), to out[:d, to + j].

    `more` is spent.

    Mean and variance are taken in one pass about the column's first number, which stands within (d - 1)^(1/2)
    deviations of the mean: at most log2 d bits are lost.
    """
    d = len(gain)
    share = spread(ONE / np.float32(d))
    for j in range(0, vectors * LANES, LANES):
        times = load(over, 0, j)
        first = load(x, 0, at + j) + load(more, 0, j) * times
        store(more, 0, j, first)
        even, odd, even2, odd2 = spread(ZERO), spread(ZERO), spread(ZERO), spread(ZERO)
        for i in range(1, d - 1, 2):  # two chains of sums, that none waits for the other
            a = load(x, i, at + j) + load(more, i, j) * times
            b = load(x, i + 1, at + j) + load(more, i + 1, j) * times
            store(more, i, j, a)
            store(more, i + 1, j, b)
            a, b = a - first, b - first
            even, odd, even2, odd2 = even + a, odd + b, even2 + a * a, odd2 + b * b
        if d % 2 == 0:
            a = load(x, d - 1, at + j) + load(more, d - 1, j) * times
            store(more, d - 1, j, a)
            a = a - first
            even, even2 = even + a, even2 + a * a
        mean = (even + odd) * share
        variance = larger((even2 + odd2) * share - mean * mean, spread(ZERO))
        scale = spread(ONE) / root(variance + spread(eps))
        mean = (first + mean) * scale
        for i in range(d):
            store(out, i, to + j, (load(more, i, j) * scale - mean) * spread(gain[i]) + spread(shift[i]))


@numba.njit(**JIT)
def added(a, at, column, out, vectors):  # type: ignore[no-untyped-def]
    """out[:n, :w] = a[:n, at : at + w] + column[:n, None], n = len(column), w = `vectors` registers."""
    for i in range(len(column)):
        plus = spread(column[i])
        for j in range(0, vectors * LANES, LANES):
            store(out, i, j, load(a, i, at + j) + plus)


@numba.njit(**JIT)
def relu(x, vectors):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        for j in range(0, vectors * LANES, LANES):
            store(x, i, j, larger(load(x, i, j), spread(ZERO)))


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


@numba.njit(**INNER)
def finished(layers, n, x, at, values, panel, out, vectors):  # type: ignore[no-untyped-def]
    """Layer `n` behind its weights, which are in `panel`, for the columns of `x` from `at`: to `out`."""
    d, ffn, begin = layers.query.shape[2], layers.down.shape[2], panel.begin
    product(panel.more, begin, panel.none, values, panel.weights, begin, vectors)
    gain, shift = layers.gain1[n, :d], layers.shift1[n, :d]
    norm(x, at, panel.more, panel.over, gain, shift, layers.eps, panel.x, begin, vectors)
    product(panel.hidden, begin, layers.up_bias[n], layers.up[n, :, :d], panel.x, begin, vectors)
    relu(panel.hidden, vectors)
    product(panel.more, begin, panel.none, layers.down[n, :, :ffn], panel.hidden, begin, vectors)
    gain, shift = layers.gain2[n, :d], layers.shift2[n, :d]
    norm(panel.x, begin, panel.more, panel.one, gain, shift, layers.eps, out, at, vectors)


@numba.njit(**INNER)
def attended(layers, n, shared, lift, weights, keys, x, at, panel, vectors):  # type: ignore[no-untyped-def]
    """The weights of layer `n` for the columns of `x` from `at`, to `panel.weights` and `panel.over`."""
    d, rows, begin = layers.query.shape[2], len(panel.weights), panel.begin
    if n == 0:
        most = weighed(shared.exponentials, at, weights, panel.weights, panel.over, vectors)
        if most < ONE / LEAST_TOTAL:
            return
        added(shared.scores, at, lift, panel.weights, vectors)
    else:
        product(panel.more, begin, layers.query_bias[n], layers.query[n, :, :d], x, at, vectors)
        product(panel.weights, begin, panel.none, keys[:d, :rows].T, panel.more, begin, vectors)
    softmax(panel.weights, len(lift), panel.over, vectors)


@numba.njit(**INNER)
def layer(layers, n, shared, lift, weights, keys, x, values, panel, out):  # type: ignore[no-untyped-def]
    """Layer `n` for the columns of `x` (D, w), out of those of `keys` (D, W); `values` (D, W) is scratch."""
    d, at = layers.query.shape[2], panel.begin
    while n and at < keys.shape[1]:
        vectors = taken(keys.shape[1], at)
        product(values, at, layers.value_bias[n], layers.value[n, :, :d], keys, at, vectors)
        at += vectors * LANES
    seen = (values if n else shared.values)[:, : len(lift)]
    at = panel.begin
    while at < x.shape[1]:
        vectors = taken(x.shape[1], at)
        attended(layers, n, shared, lift, weights, keys, x, at, panel, vectors)
        finished(layers, n, x, at, seen, panel, out, vectors)
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
    depth, d, everything = len(layers.query), given.plus.shape[1], len(most) > 0
    begin = d if everything else 0
    for c in range(len(given.plus)):
        lift, weights = given.lift[c], given.weights[c]
        x, y = tokens.x, tokens.y
        added(shared.tokens, panel.begin, given.plus[c], y, y.shape[1] // LANES)
        for n in range(depth):
            x, y = y, x
            few = not everything and 0 < n == depth - 1
            if few:
                gathered(x, asked, tokens.few)
            rows, to = (tokens.few, tokens.last) if few else (x, y)
            layer(layers, n, shared, lift, weights, x, rows, tokens.values, panel, to)
        made = y if everything or depth == 1 else tokens.last
        if everything:
            maxima(made, most[c])
        for i in range(d):
            for k in range(len(columns)):
                out[c, begin + k * d + i] = made[i, columns[k]]
