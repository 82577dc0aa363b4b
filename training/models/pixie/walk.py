"""A query's walk: every query pin's walkers, restarts, early stopping, and the multi-hit booster."""

from __future__ import annotations

import numba
import numpy as np

from training.models.pixie.counter import (
    COUNT,
    home_slot,
    shift_of,
    slot_of,
    take_bytes,
    take_hashed,
    tally_bytes,
    tally_hashed,
)
from training.models.pixie.prefetch import prefetch
from training.models.pixie.walkers import to_boards, to_boards_any, to_pins, to_pins_any

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
