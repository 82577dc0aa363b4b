"""What lies between the encoder's matrix products, one pass over each row while it is in the first cache.

Arrays are bfloat16 as uint16 bits where nothing else is said; arithmetic is float32. torch's own softmax and
norms take as long as the products around them where those are bfloat16.
"""

from __future__ import annotations

import math

import numba
import numpy as np

LOG2_E = np.float32(1.4426950408889634)
FARTHEST = np.float32(126.0)
"""Powers of two beyond it are no float32."""
BIAS, BIAS_AND_HALF = np.float32(127.0), np.float32(127.5)
SMALLEST, LARGEST = np.float32(1e-20), np.float32(1e38)
# Taylor series of 2^f, |f| <= 1/2: within 1e-8 of it
_C = tuple(np.float32(math.log(2) ** n / math.factorial(n)) for n in range(8))
C1, C2, C3, C4, C5, C6, C7 = _C[1:]
ONE = np.float32(1.0)

_FAST = {"reassoc", "contract", "arcp", "nsz", "nnan"}
"""Sums in any order and fused multiply-adds; whoever calls sees to it that every number is one."""
_JIT = {"cache": True, "nogil": True, "fastmath": _FAST, "error_model": "numpy"}


@numba.njit(**_JIT)
def _read(source, bits):  # type: ignore[no-untyped-def]
    """`source` (d,) as the bits of float32."""
    for j in range(len(bits)):
        bits[j] = np.uint32(source[j]) << np.uint32(16)


@numba.njit(**_JIT)
def _write(bits, out):  # type: ignore[no-untyped-def]
    """The float32 whose bits are `bits` into `out` (d,), to the nearest bfloat16 (even of two)."""
    for j in range(len(bits)):
        b = bits[j]
        odd = (b >> np.uint32(16)) & np.uint32(1)
        out[j] = np.uint16((b + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@numba.njit(**_JIT)
def _normed(row, gain, shift, eps):  # type: ignore[no-untyped-def]
    """LayerNorm of `row` (d,), in place."""
    d = len(row)
    total = np.float32(0)
    for j in range(d):
        total += row[j]
    mean = total / np.float32(d)
    spread = np.float32(0)
    for j in range(d):
        spread += (row[j] - mean) * (row[j] - mean)
    scale = ONE / np.float32(math.sqrt(spread / np.float32(d) + eps))
    for j in range(d):
        row[j] = (row[j] - mean) * scale * gain[j] + shift[j]


@numba.njit(**_JIT)
def weighted(weights, values, candidates, out):  # type: ignore[no-untyped-def]
    """out[s, c] = weights[c, s] (values[s] + candidates[c]): (C, S), (S, d), (C, d) -> (S, C, d)."""
    count, length, d = len(candidates), len(values), values.shape[1]
    bits = np.empty(d, np.uint32)
    row = bits.view(np.float32)
    for s in range(length):
        for c in range(count):
            w = weights[c, s]
            for j in range(d):
                row[j] = w * (values[s, j] + candidates[c, j])
            _write(bits, out[s, c])


@numba.njit(**_JIT)
def first_norm(seen, total, own, gain, shift, eps, out):  # type: ignore[no-untyped-def]
    """out[c, t] = LN(own[t] + seen[t, c] / total[c, t]): (T, C, d), (T, C), (T, d) -> (C, T, d)."""
    length, count, d = seen.shape
    bits = np.empty(d, np.uint32)
    row = bits.view(np.float32)
    for t in range(length):
        for c in range(count):
            _read(seen[t, c], bits)
            over = ONE / total[c, t]
            for j in range(d):
                row[j] = own[t, j] + row[j] * over
            _normed(row, gain, shift, eps)
            _write(bits, out[c, t])


@numba.njit(**_JIT)
def norm(x, gain, shift, eps):  # type: ignore[no-untyped-def]
    """LayerNorm of every row of `x` (n, d), in place."""
    bits = np.empty(x.shape[1], np.uint32)
    row = bits.view(np.float32)
    for i in range(len(x)):
        _read(x[i], bits)
        _normed(row, gain, shift, eps)
        _write(bits, x[i])


@numba.njit(**_JIT)
def last_norm(x, gain, shift, eps, places, most, kept):  # type: ignore[no-untyped-def]
    """LayerNorm of every row of `x` (C, T, d), of which only this is kept: the maximum over T, in `most`
    (C, d) float32, and the rows `places` (k,), in `kept` (C, k, d) float32."""
    count, length, d = x.shape
    bits = np.empty(d, np.uint32)
    row = bits.view(np.float32)
    at = np.full(length, -1)
    for k in range(len(places)):
        at[places[k]] = k
    for c in range(count):
        for j in range(d):
            most[c, j] = -np.inf
        for t in range(length):
            _read(x[c, t], bits)
            _normed(row, gain, shift, eps)
            for j in range(d):
                most[c, j] = row[j] if row[j] > most[c, j] else most[c, j]
            if at[t] >= 0:
                for j in range(d):
                    kept[c, at[t], j] = row[j]
        for k in range(len(places)):  # a place asked for twice
            if at[places[k]] != k:
                for j in range(d):
                    kept[c, k, j] = kept[c, at[places[k]], j]


@numba.njit(**_JIT)
def softmax(x):  # type: ignore[no-untyped-def]
    """Softmax of every row of `x` (n, T), in place."""
    wide = x.shape[1]
    bits, powers = np.empty(wide, np.uint32), np.empty(wide, np.int32)
    row, scale = bits.view(np.float32), powers.view(np.float32)
    for i in range(len(x)):
        _read(x[i], bits)
        total = _exponentials(row, powers, scale, np.float32(0))
        if not SMALLEST < total < LARGEST:  # scores so far from 0 that their maximum has to be taken off
            _read(x[i], bits)
            largest = row[0]
            for j in range(wide):
                largest = max(largest, row[j])
            total = _exponentials(row, powers, scale, largest)
        over = ONE / total
        for j in range(wide):
            row[j] *= over
        _write(bits, x[i])


@numba.njit(**_JIT)
def _exponentials(row, powers, scale, taken):  # type: ignore[no-untyped-def]
    """e^(row - taken) in place, and their sum; `scale` is the memory of `powers` (both (T,), scratch)."""
    _split(row, powers, taken)
    total = np.float32(0)
    for j in range(len(row)):
        row[j] *= scale[j]
        total += row[j]
    return total


@numba.njit(**{**_JIT, "fastmath": _FAST - {"reassoc"}})
def _split(row, powers, taken):  # type: ignore[no-untyped-def]
    """e^(row - taken) as row times the power of two whose bits are `powers`. Order matters here: 127 added to
    the fraction would take seven of its bits."""
    for j in range(len(row)):
        t = (row[j] - taken) * LOG2_E
        t = -FARTHEST if t < -FARTHEST else t
        t = FARTHEST if t > FARTHEST else t
        n = np.int32(t + BIAS_AND_HALF)  # the nearest integer, and the bias of a float32's exponent
        f = t - (np.float32(n) - BIAS)
        row[j] = ONE + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * (C6 + f * C7))))))
        powers[j] = n << np.int32(23)
