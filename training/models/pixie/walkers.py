"""The walk engine: one pin -> board -> pin step of many walkers, interleaved.

A step is four reads that depend on each other (two row bounds, two ends), each a likely cache miss. The loops
below are staged: every stage does one read for all walkers and asks for the next stage's line, so that the
misses of all walkers overlap. Kernels are plain functions of arrays and a random state; no bounds are
checked.
"""

from __future__ import annotations

import numba
import numpy as np

from training.models.pixie.prefetch import prefetch

_U = np.uint64
GOLDEN = _U(0x9E3779B97F4A7C15)
HALF = _U(32)
LOW = _U(0xFFFFFFFF)
_M1, _M2 = _U(0xBF58476D1CE4E5B9), _U(0x94D049BB133111EB)
_S27, _S30, _S31 = _U(27), _U(30), _U(31)
_COIN = _U(0xD1342543DE82EF95)
_ONE, _WORD = _U(1), _U(63)
_B1, _B2, _B4, _BSUM = (
    _U(0x5555555555555555),
    _U(0x3333333333333333),
    _U(0x0F0F0F0F0F0F0F0F),
    _U(0x0101010101010101),
)


@numba.njit(inline="always")
def mix(z):
    """splitmix64's output function of a uint64 state that moves by GOLDEN."""
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)


@numba.njit(inline="always")
def below(draw, n):
    """uint64 in [0, n) from the 32 random bits of `draw`, by multiplication and no division."""
    return (draw * _U(n)) >> HALF


@numba.njit(inline="always")
def to_boards(pin_offsets, pin_boards, pins, width, home, restart, at, low, state):
    """First half of a step of walkers 0..width-1, which stand on `pins`: the places in `pin_boards` they go
    through.

    Before it, a walker returns to the pin `home` with chance `restart` (as 32 bits: 0 never, 2^32 always).
    Fills `at` (uint64) and `low`, the random half for `to_pins`; returns the state. One 64-bit draw a step:
    its high half picks the board, its low half the pin, and a product of both, which row lengths leave free,
    the restart.
    """
    for w in range(width):
        state += GOLDEN
        draw = mix(state)
        pin = _U(home if ((draw * _COIN) >> HALF) < restart else pins[w])
        start = _U(pin_offsets[pin])
        place = start + below(draw >> HALF, _U(pin_offsets[pin + _ONE]) - start)
        at[w] = place
        low[w] = draw & LOW
        prefetch(pin_boards, place)
    return state


@numba.njit(inline="always")
def to_pins(pin_boards, board_offsets, board_pins, pin_offsets, pins, width, at, low):
    """Second half: from the places `at` to the boards, and to a pin of each, which overwrites `pins`."""
    for w in range(width):
        board = pin_boards[at[w]]
        pins[w] = board
        prefetch(board_offsets, board)
    for w in range(width):
        board = _U(pins[w])
        start = _U(board_offsets[board])
        place = start + below(low[w], _U(board_offsets[board + _ONE]) - start)
        at[w] = place
        prefetch(board_pins, place)
    for w in range(width):
        pin = board_pins[at[w]]
        pins[w] = pin
        prefetch(pin_offsets, pin)


@numba.njit(cache=True, nogil=True)
def to_boards_any(rows, extra, bias, pins, width, home, restart, at, low, coins, state):
    """As `to_boards` (`at` is int64 here), over fresh edges too and with a bias `(low label, high label,
    chance as 32 bits)`.

    With the bias's chance a hop takes a uniform edge among those whose label is in [low, high), wherever the
    row has one; else a uniform edge of the whole row. `coins` (uint64) keeps the second hop's coin.
    """
    bias_low, bias_high, chance = bias
    for w in range(width):
        state += GOLDEN
        draw = mix(state)
        state += GOLDEN
        toss = mix(state)
        at[w] = _edge(
            rows.pin_offsets,
            rows.pin_edge_labels,
            extra.pin_bits,
            extra.pin_rank,
            extra.pin_offsets,
            extra.pin_edge_labels,
            home if ((draw * _COIN) >> HALF) < restart else pins[w],
            bias_low,
            bias_high,
            (toss >> HALF) < chance,
            draw >> HALF,
        )
        low[w] = draw & LOW
        coins[w] = toss & LOW
        if at[w] >= 0:
            prefetch(rows.pin_boards, at[w])
    return state


@numba.njit(cache=True, nogil=True)
def to_pins_any(rows, extra, bias, pins, width, at, low, coins):
    """As `to_pins`, after `to_boards_any`."""
    bias_low, bias_high, chance = bias
    for w in range(width):
        board = rows.pin_boards[at[w]] if at[w] >= 0 else extra.pin_boards[-at[w] - 1]
        pins[w] = board
        prefetch(rows.board_offsets, board)
    for w in range(width):
        at[w] = _edge(
            rows.board_offsets,
            rows.board_edge_labels,
            extra.board_bits,
            extra.board_rank,
            extra.board_offsets,
            extra.board_edge_labels,
            pins[w],
            bias_low,
            bias_high,
            coins[w] < chance,
            low[w],
        )
        if at[w] >= 0:
            prefetch(rows.board_pins, at[w])
    for w in range(width):
        pins[w] = rows.board_pins[at[w]] if at[w] >= 0 else extra.board_pins[-at[w] - 1]
        prefetch(rows.pin_offsets, pins[w])


@numba.njit(inline="always")
def _edge(offsets, labels, bits, rank, more_offsets, more_labels, node, low, high, biased, draw):
    """Place of a random edge of `node`: >= 0 in the rows, else `-place - 1` among the extra edges."""
    start, stop, more, more_stop = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    if node < len(offsets) - 1:
        start, stop = np.int64(offsets[node]), np.int64(offsets[node + 1])
    word = node >> 6
    if word < len(bits):
        mark = _ONE << (np.uint64(node) & _WORD)
        if bits[word] & mark:
            row = rank[word] + popcount(bits[word] & (mark - _ONE))
            more, more_stop = more_offsets[row], more_offsets[row + 1]
    if biased:
        a = _lower(labels, start, stop, low)
        b = _lower(labels, a, stop, high)
        c = _lower(more_labels, more, more_stop, low)
        d = _lower(more_labels, c, more_stop, high)
        if b - a + d - c > 0:
            start, stop, more, more_stop = a, b, c, d
    place = np.int64(below(draw, stop - start + more_stop - more))
    return start + place if place < stop - start else -(more + place - (stop - start)) - 1


@numba.njit(inline="always")
def popcount(word):
    """Set bits of a uint64, int64."""
    word = word - ((word >> _ONE) & _B1)
    word = (word & _B2) + ((word >> _U(2)) & _B2)
    word = (word + (word >> _U(4))) & _B4
    return np.int64((word * _BSUM) >> _U(56))


@numba.njit(inline="always")
def _lower(labels, start, stop, bound):
    """First place in the sorted labels[start:stop] that is >= bound; `stop` where labels are absent."""
    if len(labels) == 0:
        return stop
    while start < stop:
        middle = (start + stop) >> 1
        if labels[middle] < bound:
            start = middle + 1
        else:
            stop = middle
    return start
