"""The walk engine: compiled kernels over plain arrays. No bounds are checked: their callers have done that.

Steps. A pin -> board -> pin step is four reads that depend on each other (two row bounds, two ends), each a
likely cache miss. The loops are staged: every stage does one read for all walkers and asks for the next
stage's line, so that the misses of all walkers overlap. Indexes are unsigned: a signed one costs a test for
Python's negative places.

Counters. One byte a pin where that fits the caches, else open addressing as in the paper (section 3.3). A
byte that would pass 255 goes back to 128 and its pin to a list, where one entry stands for 128 visits. The
table probes linearly; a slot is one int64, (pin + 1) in the high half, its count in the low half, 0 when free.

Walks. A query's walk is that of every query pin in turn, with restarts and early stopping; then the multi-hit
booster. Importance neighbourhoods are many short walks without restarts.

Prefetches. A load that misses stalls the core once its reorder buffer is full; a prefetch retires at once, so
the reads of all walkers are in flight together. Lines are brought to the second level of cache, which takes
more misses at a time than the first: on a Zen 4 at 50M edges a step of 128 walkers takes 0.55x the time that it
takes with lines brought to the first level.

All of it is in one file on purpose: numba renews a kernel's cache when the kernel's own file changes, and not
when a function that it inlines from another file does.
"""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

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

_READ, _SECOND_LEVEL, _DATA = 0, 2, 1


@intrinsic
def prefetch(typing_context, array, index):
    """Ask for the line of `array[index]` (one dimension). A hint: an index out of bounds does no harm."""
    signature = types.void(array, index)

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = arguments[1]
        if signature.args[1].bitwidth < 64:
            place = builder.sext(place, ir.IntType(64))
        pointer = ir.IntType(8).as_pointer()
        word = ir.IntType(32)
        declared = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, declared, "llvm.prefetch.p0")
        address = builder.bitcast(builder.gep(data, [place]), pointer)
        builder.call(function, [address, word(_READ), word(_SECOND_LEVEL), word(_DATA)])
        return context.get_dummy_value()

    return signature, generate


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


COUNT = 0xFFFFFFFF
HALF_FULL = 128
"""Where a byte restarts, and so the largest number of visits that early stopping can wait for, plus one."""


def slots_for(keys: int) -> int:
    """Slots of a table for at most `keys` distinct pins: a power of two, at most half full."""
    return 1 << max(4, (2 * keys - 1).bit_length())


@numba.njit(inline="always")
def home_slot(pin, shift):
    """Where the search for `pin` starts: the high bits of a multiplicative hash, `shift` = 64 - bits of the
    table.
    """
    return np.int64((np.uint64(pin) * GOLDEN) >> shift)


@numba.njit(inline="always")
def shift_of(table):
    """64 - log2 of the table's slots."""
    bits = 0
    while (1 << bits) < len(table):
        bits += 1
    return np.uint64(64 - bits)


@numba.njit(inline="always")
def slot_of(table, pin, slot):
    """The slot that holds `pin`, or the free one where it belongs, searching from `slot`."""
    key = np.int64(pin) + 1
    value = table[slot]
    # `&`, not `and`: whether a pin is new is a coin toss, and must not be a branch
    while (value != 0) & ((value >> 32) != key):
        slot = (slot + 1) & (len(table) - 1)
        value = table[slot]
    return slot


@numba.njit(inline="always")
def visit(table, pin, slot):
    """Count one visit: (slot, count after it)."""
    slot = slot_of(table, pin, slot)
    value = max(table[slot], (np.int64(pin) + 1) << 32) + 1
    table[slot] = value
    return slot, value & COUNT


@numba.njit(inline="always")
def tally_bytes(visits, full, fulls, pins, width, touched, distinct, enough):
    """Count a visit of each of `pins[:width]`: (distinct pins so far, entries of `full`, how many reached
    `enough`).

    The first visit of a pin appends it to `touched`; written every time and kept by moving on, since whether a
    pin is new is a coin toss, and must not be a branch.
    """
    reached = 0
    for w in range(width):
        pin = np.uint64(pins[w])  # unsigned: no test for Python's negative indexes
        count = np.int64(visits[pin]) + 1
        if count == 2 * HALF_FULL:
            count = HALF_FULL
            full[fulls] = pin
            fulls += 1
        visits[pin] = count
        touched[distinct] = pins[w]
        distinct += count == 1
        reached += count == enough
    return distinct, fulls, reached


@numba.njit(cache=True, nogil=True)
def take_bytes(visits, full, fulls, table, touched, distinct, pins, counts):
    """Move the visits of `touched[:distinct]` to pins and counts, which leaves `visits` at zero.

    `table`, all zero before and after, adds up the entries of `full`.
    """
    shift = shift_of(table)
    for i in range(fulls):
        full[i], _ = visit(table, full[i], home_slot(full[i], shift))  # from here on the slot, to clear it by
    for i in range(distinct):
        prefetch(visits, touched[min(i + 16, distinct - 1)])
        pin = touched[i]
        count = np.int64(visits[pin])
        visits[pin] = 0
        if count >= HALF_FULL:
            slot = slot_of(table, pin, home_slot(pin, shift))
            count += HALF_FULL * (table[slot] & COUNT)
        pins[i] = pin
        counts[i] = count
    for i in range(fulls):
        table[full[i]] = 0


@numba.njit(inline="always")
def tally_hashed(table, pins, slots, width, touched, distinct, enough):
    """As `tally_bytes` in an open-addressing table, searching from `slots`; `touched` takes the slots found."""
    reached = 0
    for w in range(width):
        slot, count = visit(table, pins[w], slots[w])
        touched[distinct] = slot
        distinct += count == 1
        reached += count == enough
    return distinct, reached


@numba.njit(cache=True, nogil=True)
def take_hashed(table, touched, distinct, pins, counts):
    """Move the visits in the slots `touched[:distinct]` to pins and counts, which leaves the table at zero."""
    for i in range(distinct):
        prefetch(table, touched[min(i + 16, distinct - 1)])
        value = table[touched[i]]
        table[touched[i]] = 0
        pins[i] = np.int32((value >> 32) - 1)
        counts[i] = np.int32(value & COUNT)


WALKERS = 64
"""Walks of one seed in flight; the seed's own first reads are shared by them."""

ROUNDS = 4
"""Mean walk lengths that each walker should get; query pins with few steps take fewer walkers."""


@numba.njit(cache=True, nogil=True)
def walk_query(
    rows,
    extra,
    plain,
    bias,
    sources,
    steps,
    streams,
    restart,
    stop_pins,
    stop_visits,
    walkers,
    room,
    ends,
    taken,
):
    """Walk `steps[q]` steps from each pin `sources[q]`; visits of query q are room's
    pins/counts[ends[q-1]:ends[q]].

    A walker returns to its query pin before a step with chance `restart`, so that walk lengths are geometric
    (paper, algorithm 1). The walk of a query pin stops early once `stop_pins` pins have `stop_visits` visits
    each (0 never): the counter belongs to that walk, or the later query pins would starve. `taken[q]` says
    how many steps were counted. `room` is a `Room`; its counters are all zero before and after. Sources must
    have edges.
    """
    pin_offsets, pin_boards = rows.pin_offsets, rows.pin_boards
    board_offsets, board_pins = rows.board_offsets, rows.board_pins
    visits, table, full, touched = room.visits, room.table, room.full, room.touched
    in_bytes = len(visits) > 0
    shift = shift_of(table)
    threshold = np.uint64(restart * 4294967296.0)
    pins = np.empty(walkers, np.int32)
    slots = np.empty(walkers, np.int64)
    at = np.empty(walkers, np.uint64)
    edges = np.empty(walkers, np.int64)
    low = np.empty(walkers, np.uint64)
    coins = np.empty(walkers, np.uint64)
    total = 0
    for q in range(len(sources)):
        home = sources[q]
        state = streams[q]
        most = min(walkers, max(1, np.int64(steps[q] * restart / ROUNDS)))
        pins[:most] = home
        left = steps[q]
        pending, distinct, fulls, reached = 0, 0, 0, 0
        while left > 0 or pending > 0:
            width = min(most, left)
            if plain:
                state = to_boards(pin_offsets, pin_boards, pins, width, home, threshold, at, low, state)
            else:
                state = to_boards_any(rows, extra, bias, pins, width, home, threshold, edges, low, coins, state)
            # The visits of the round before are counted here, while this round's reads are on their way.
            if in_bytes:
                distinct, fulls, hits = tally_bytes(
                    visits, full, fulls, pins, pending, touched, distinct, stop_visits
                )
            else:
                distinct, hits = tally_hashed(table, pins, slots, pending, touched, distinct, stop_visits)
            reached += hits
            if stop_pins > 0 and reached >= stop_pins:
                break
            if plain:
                to_pins(pin_boards, board_offsets, board_pins, pin_offsets, pins, width, at, low)
            else:
                to_pins_any(rows, extra, bias, pins, width, edges, low, coins)
            if in_bytes:
                for w in range(width):
                    prefetch(visits, pins[w])
            else:
                for w in range(width):
                    slots[w] = home_slot(pins[w], shift)
                    prefetch(table, slots[w])
            pending = width
            left -= width
        taken[q] = steps[q] - left
        if in_bytes:
            take_bytes(visits, full, fulls, table, touched, distinct, room.pins[total:], room.counts[total:])
        else:
            take_hashed(table, touched, distinct, room.pins[total:], room.counts[total:])
        total += distinct
        ends[q] = total
    return total


@numba.njit(cache=True, nogil=True)
def merge_visits(room, total, boost):
    """Visits of all query pins to one score a pin, in place in room's pins and sums; returns the pins.

    With `boost` a pin scores (sum over query pins of sqrt(visits))^2, which favours pins that several
    query pins reach (paper, eq. 3), else the sum of visits.
    """
    table, touched, pins, counts, sums = room.table, room.touched, room.pins, room.counts, room.sums
    shift = shift_of(table)
    merged = 0
    for i in range(total):
        prefetch(table, home_slot(pins[min(i + 24, total - 1)], shift))
        pin = pins[i]
        slot = slot_of(table, pin, home_slot(pin, shift))
        gain = np.sqrt(np.float64(counts[i])) if boost else np.float64(counts[i])
        if table[slot] == 0:
            table[slot] = ((np.int64(pin) + 1) << 32) | merged
            touched[merged] = slot
            pins[merged] = pin  # merged <= i: what is overwritten has been read
            sums[merged] = gain
            merged += 1
        else:
            sums[table[slot] & COUNT] += gain
    for i in range(merged):
        table[touched[i]] = 0
        if boost:
            sums[i] *= sums[i]
    return merged


@numba.njit(cache=True, nogil=True)
def neighbour_rows(rows, extra, plain, seeds, degrees, states, walks, hops, table, ids, weights):
    shift = shift_of(table)
    top = ids.shape[1]
    pin_offsets, pin_boards = rows.pin_offsets, rows.pin_boards
    board_offsets, board_pins = rows.board_offsets, rows.board_pins
    no_bias = (np.int64(0), np.int64(0), np.uint64(0))
    never = np.uint64(0)
    pins = np.empty(WALKERS, np.int32)
    at = np.empty(WALKERS, np.uint64)
    edges = np.empty(WALKERS, np.int64)
    low = np.empty(WALKERS, np.uint64)
    coins = np.empty(WALKERS, np.uint64)
    touched = np.empty(walks * hops + 1, np.int64)
    place = np.empty(walks * hops + 2, np.int32)
    for i in range(len(seeds)):
        if degrees[i] == 0:
            continue
        home = seeds[i]
        state = states[i]
        distinct = 0
        left = walks
        while left > 0:
            width = min(WALKERS, left)
            left -= width
            pins[:width] = home
            for _ in range(hops):
                if plain:
                    state = to_boards(pin_offsets, pin_boards, pins, width, home, never, at, low, state)
                    to_pins(pin_boards, board_offsets, board_pins, pin_offsets, pins, width, at, low)
                else:
                    state = to_boards_any(
                        rows, extra, no_bias, pins, width, home, never, edges, low, coins, state
                    )
                    to_pins_any(rows, extra, no_bias, pins, width, edges, low, coins)
                for w in range(width):
                    if pins[w] != home:
                        slot, count = visit(table, pins[w], home_slot(pins[w], shift))
                        touched[distinct] = slot
                        distinct += count == 1
        # Counting sort by falling count, first met first: place[c] is where the pins of count c start.
        place[:] = 0
        for k in range(distinct):
            place[table[touched[k]] & COUNT] += 1
        start = 0
        for count in range(walks * hops, 0, -1):
            start, place[count] = start + place[count], start
        total = 0.0
        for k in range(distinct):
            value = table[touched[k]]
            table[touched[k]] = 0
            count = value & COUNT
            rank = place[count]
            place[count] += 1
            if rank < top:
                ids[i, rank] = np.int32((value >> 32) - 1)
                weights[i, rank] = count
                total += count
        for rank in range(min(top, distinct)):
            weights[i, rank] /= total
