"""The encoder in float32 for one candidate after the other, in one call, while it is in the second cache.

A token is a row. A matrix by which others are multiplied lies in strips as wide as a product's tile, so that a
strip stays in the first cache while rows go by it; a few rows at a time go through all of a layer behind its
keys and values. What follows a product is done with each tile of it in registers: biases, the residual, relu.
Tokens are filled up to a multiple of ROWS by the first of them over again, which changes no maximum, and no
weight falls on those.

The first layer's weights are products of what is the user's and what is the candidate's,

    exp(A[t, s] + b_c[s]) = E[t, s] w_c[s] (what all s share)  E = exp(A - max), w_c = exp(b_c - max)

so that a candidate weighs the values, and E is the same for all. Where these lie so far apart that sums of the
products vanish in float32, the scores are added and made weights of.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from training.models.transact.lanes import (
    INNER,
    JIT,
    LANES,
    ROWS,
    VECTORS,
    larger,
    like,
    load,
    loads,
    root,
    row_like,
    spread,
    spreads,
    store,
    store_largest,
    store_sums,
    store_turned,
    taken,
    tiled,
    times_power,
)

ONE, ZERO = np.float32(1), np.float32(0)
GROUP = 5 * ROWS
"""Rows that go through a layer together."""
ROUND = np.float32(1.5 * 2**23)
"""Added and taken off again it leaves the nearest integer; added, that integer is in the last bits."""
LEAST = np.float32(-100)
"""Powers of two below are nothing beside the largest, which is 1, and products of the others are normal."""
_POWERS = Chebyshev.interpolate(lambda f: 2.0**f, 5, domain=[-0.5, 0.5]).convert(kind=Polynomial).coef
C0, C1, C2, C3, C4, C5 = (np.float32(c) for c in _POWERS)  # 2^f, |f| <= 1/2, within 1e-7 of it
SUMS = MOST, OVER, TOTAL, SQUARES, SCALE, LESS = range(6)
"""Rows of a panel's `sums`, a number a token: the largest score; what makes weights sum to one; the sum of
weights, or of what is to be normed, and of its squares; what a norm multiplies by, and that times the mean."""
LEAST_TOTAL = np.float32(1e-25)
"""Sums of weights below have lost digits to underflow."""


@numba.njit(**JIT)
def power(x):  # type: ignore[no-untyped-def]
    """2^x of a block, x < 127."""
    x = larger(x, spread(LEAST))
    n = x + spread(ROUND)
    f = x - (n - spread(ROUND))
    made = spread(C5) * f + spread(C4)
    made = ((made * f + spread(C3)) * f + spread(C2)) * f + spread(C1)
    return times_power(made * f + spread(C0), n)


@numba.njit(**JIT)
def softmax(scores, rows, wide, sums):  # type: ignore[no-untyped-def]
    """scores[:rows, :wide] = 2^(score - the row's largest), sums[OVER] = 1 / the rows' sums."""
    for i in range(0, rows, ROWS):
        most = loads(scores, i, 0)
        for j in range(LANES, wide, LANES):
            most = larger(most, loads(scores, i, j))
        store_largest(sums, MOST, i, most)
        most = spreads(sums, MOST, i)
        total = most - most
        for j in range(0, wide, LANES):
            weights = power(loads(scores, i, j) - most)
            store(scores, i, j, weights)
            total = total + weights
        store_sums(sums, TOTAL, i, total)
    for i in range(0, rows, LANES):
        store(sums, OVER, i, spread(ONE) / load(sums, TOTAL, i))


@numba.njit(**JIT)
def added(scores, at, rows, lift, c, out):  # type: ignore[no-untyped-def]
    """out[i] = scores[at + i] + lift[c], for `rows` of them."""
    for i in range(rows):
        for j in range(0, scores.shape[1], LANES):
            store(out, i, j, load(scores, at + i, j) + load(lift, c, j))


@numba.njit(**JIT)
def weighed(values, weights, out):  # type: ignore[no-untyped-def]
    """out[:, s] = values[:, s] weights[s]; strips."""
    for strip in range(len(values)):
        part, to = values[strip], out[strip]
        for s in range(len(weights)):
            weight = spread(weights[s])
            for j in range(0, VECTORS * LANES, LANES):
                store(to, s, j, load(part, s, j) * weight)


@numba.njit(**JIT)
def transposed(x, wide, out):  # type: ignore[no-untyped-def]
    """out = x.T in strips, whose `wide` columns are at least those of the rows of x."""
    at = strip = 0
    while at < len(x):
        part, columns = out[strip], taken(wide, at) * LANES
        for j in range(0, min(columns, len(x) - at), ROWS):
            for i in range(0, x.shape[1], LANES):
                store_turned(part, i, j, loads(x, at + j, i))
        at += columns
        strip += 1


@numba.njit(**JIT)
def in_strips(tile, i, j, strip, to, more, last):  # type: ignore[no-untyped-def]
    """What becomes of values: a matrix for others to be multiplied by."""
    store(to[strip], i, 0, tile)


@numba.njit(**JIT)
def biased(tile, i, j, strip, to, bias, n):  # type: ignore[no-untyped-def]
    """What becomes of queries, bias[n], and of scores, whose bias hides columns that are no token's."""
    store(to, i, j, tile + row_like(tile, bias, n, j))


@numba.njit(**JIT)
def attended(tile, i, j, strip, panel, x, bias):  # type: ignore[no-untyped-def]
    """What becomes of values that attention has added up: x, and a bias."""
    bias, n = bias
    own = like(tile, x, i, j) + row_like(tile, bias, n, j)
    store(panel.x, i, j, tile * spreads(panel.sums, OVER, i) + own)


@numba.njit(**JIT)
def normed(x, rows, d, eps, gain, shift, n, sums, out, at):  # type: ignore[no-untyped-def]
    """out[at + i] = x[i] normed, times gain[n], plus shift[n], for `rows` of them, of `d` numbers and zeros.

    All that is added up is centred but for what gains of the norm before make of it. The mean is then at most
    the deviation of these gains, small beside the numbers: its square is taken off without loss.
    """
    for i in range(0, rows, ROWS):
        own = loads(x, i, 0)
        total, squares = own, own * own
        for j in range(LANES, x.shape[1], LANES):
            own = loads(x, i, j)
            total, squares = total + own, squares + own * own
        store_sums(sums, TOTAL, i, total)
        store_sums(sums, SQUARES, i, squares)
    share = spread(ONE / np.float32(d))
    for i in range(0, rows, LANES):
        mean = load(sums, TOTAL, i) * share
        variance = larger(load(sums, SQUARES, i) * share - mean * mean, spread(ZERO))
        scale = spread(ONE) / root(variance + spread(eps))
        store(sums, SCALE, i, scale)
        store(sums, LESS, i, mean * scale)
    for i in range(0, rows, ROWS):
        scale, less = spreads(sums, SCALE, i), spreads(sums, LESS, i)
        for j in range(0, x.shape[1], LANES):
            z = loads(x, i, j) * scale - less
            store(out, at + i, j, z * load(gain, n, j) + load(shift, n, j))


@numba.njit(**JIT)
def bent(tile, i, j, strip, to, bias, n):  # type: ignore[no-untyped-def]
    """What becomes of a tile of `up`."""
    store(to, i, j, larger(tile + row_like(tile, bias, n, j), spread(ZERO)))


@numba.njit(**JIT)
def with_own(tile, i, j, strip, x, more, last):  # type: ignore[no-untyped-def]
    """What becomes of a tile of `down`."""
    store(x, i, j, tile + like(tile, x, i, j))


@numba.njit(**JIT)
def maxima(x, out):  # type: ignore[no-untyped-def]
    """out[0] = the largest of each column of x."""
    for j in range(0, x.shape[1], LANES):
        most = load(x, 0, j)
        for i in range(1, len(x)):
            most = larger(most, load(x, i, j))
        store(out, 0, j, most)


@numba.njit(**JIT)
def copied(x, out):  # type: ignore[no-untyped-def]
    """out[:len(x)] = x."""
    for i in range(len(x)):
        out[i] = x[i]


@numba.njit(**INNER)
def layer(layers, n, shared, given, c, x, own, values, keys, panel, out):  # type: ignore[no-untyped-def]
    """out = layer `n` of the rows `own`, out of `x`, all tokens; values and keys are scratch, strips."""
    d, eps, wide = layers.d, layers.eps, layers.query_bias.shape[1]
    far, sums, begin = panel.weights.shape[1], panel.sums, panel.begin
    if n:
        tiled(in_strips, x, len(x), layers.value[n], wide, values, None, None)
        transposed(x, far, keys)
    elif given.sound[c]:
        weighed(shared.values, given.weights[c], values)
    else:
        values = shared.values
    bias, row = (layers.value_bias, n) if n else (given.plus, c)
    at = begin
    while at < len(own):
        rows = min(GROUP, len(own) - at)
        mine, left = own[at : at + rows], panel.weights
        if n:
            tiled(biased, mine, rows, layers.query[n], wide, panel.x, layers.query_bias, n)
            tiled(biased, panel.x, rows, keys, far, panel.weights, panel.hide, begin)
            softmax(panel.weights, rows, far, sums)
        elif given.sound[c]:
            left = shared.exponentials[at : at + rows]
            copied(given.over[c, at : at + rows], sums[OVER])
        else:
            added(shared.scores, at, rows, given.lift, c, panel.weights)
            softmax(panel.weights, rows, far, sums)
        tiled(attended, left, rows, values, wide, panel, mine, (bias, row))
        normed(panel.x, rows, d, eps, layers.gain1, layers.shift1, n, sums, panel.x, begin)
        tiled(bent, panel.x, rows, layers.up[n], layers.up_bias.shape[1], panel.hidden, layers.up_bias, n)
        tiled(with_own, panel.hidden, rows, layers.down[n], wide, panel.x, None, None)
        normed(panel.x, rows, d, eps, layers.gain2, layers.shift2, n, sums, out, at)
        at += rows


@numba.njit(**JIT)
def encode(layers, shared, given, asked, columns, tokens, panel, most, out):  # type: ignore[no-untyped-def]
    """Every candidate's tokens through all layers.

    The maximum over tokens goes to `most` (C, d). Where that is (0, d) nobody wants it, and the last of several
    layers answers for the tokens `asked` (w,) alone, a multiple of ROWS of them. Of what comes out, the tokens
    `columns` (k,) go one behind the other to `out` (C, n), behind the place of the maximum if that is wanted.
    """
    depth, d, everything = len(layers.query), layers.d, len(most) > 0
    begin = d if everything else 0
    for c in range(len(given.plus)):
        x = tokens.x
        for n in range(depth):
            own, made = x if n else shared.tokens, x
            if not everything and 0 < n == depth - 1:
                for i in range(len(asked)):
                    copied(x[asked[i]], tokens.few[i])
                own = made = tokens.few
            # The one call: every other is compiled again.
            layer(layers, n, shared, given, c, x, own, tokens.values, tokens.keys, panel, made)
            x = made
        if everything:
            maxima(x, panel.most)
            copied(panel.most[0, :d], most[c])
        for k in range(len(columns)):
            copied(x[columns[k], :d], out[c, begin + k * d :])
