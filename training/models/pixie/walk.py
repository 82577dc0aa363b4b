"""A query's walk: every query pin's walkers, restarts, early stopping, and the multi-hit booster."""

from __future__ import annotations

import numba
import numpy as np

from training.models.pixie.counter import COUNT, home_slot, shift_of, slot_of, visit
from training.models.pixie.prefetch import prefetch
from training.models.pixie.walkers import GOLDEN, HALF, mix, step, step_any

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
    how many steps were counted. `room` is a `Room`; its table is all zero before and after. Sources must have
    edges.
    """
    table, touched, pins, counts = room.table, room.touched, room.pins, room.counts
    shift = shift_of(table)
    threshold = np.uint64(restart * 4294967296.0)
    source = np.empty(walkers, np.int32)
    target = np.empty(walkers, np.int32)
    counted = np.empty(walkers, np.int32)
    slots = np.empty(walkers, np.int64)
    next_slots = np.empty(walkers, np.int64)
    at = np.empty(walkers, np.int64)
    low = np.empty(walkers, np.uint64)
    total = 0
    for q in range(len(sources)):
        state = streams[q]
        coins = mix(state ^ GOLDEN)
        most = min(walkers, max(1, np.int64(steps[q] * restart / ROUNDS)))
        source[:most] = sources[q]
        left = steps[q]
        pending = 0  # visits of the round before: counted one round late, when their slots have arrived
        distinct = 0
        reached = 0
        done = 0
        while left > 0 or pending > 0:
            width = min(most, left)
            if plain:
                state = step(rows, width, source, target, at, low, state)
            else:
                state = step_any(rows, extra, bias, width, source, target, at, low, state)
            left -= width
            for w in range(width):
                next_slots[w] = home_slot(target[w], shift)
                prefetch(table, next_slots[w])
            for w in range(pending):
                slot, count = visit(table, counted[w], slots[w])
                touched[distinct] = slot
                distinct += count == 1
                reached += count == stop_visits
            done += pending
            if stop_pins > 0 and reached >= stop_pins:
                break
            for w in range(width):
                pin = target[w]
                counted[w] = pin
                slots[w] = next_slots[w]
                coins += GOLDEN
                source[w] = sources[q] if (mix(coins) >> HALF) < threshold else pin
            pending = width
        for i in range(distinct):
            value = table[touched[i]]
            pins[total + i] = np.int32((value >> 32) - 1)
            counts[total + i] = np.int32(value & COUNT)
            table[touched[i]] = 0
        total += distinct
        ends[q] = total
        taken[q] = done
    return total


@numba.njit(cache=True, nogil=True)
def merge_visits(room, total, boost):
    """Visits of all query pins to one score a pin, in place in room's pins and scores; returns the pins.

    With `boost` a pin scores (sum over query pins of sqrt(visits))^2, which favours pins that several
    query pins reach (paper, eq. 3), else the sum of visits.
    """
    table, touched, pins, counts, scores = room.table, room.touched, room.pins, room.counts, room.scores
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
            scores[merged] = gain
            merged += 1
        else:
            scores[table[slot] & COUNT] += gain
    for i in range(merged):
        table[touched[i]] = 0
        if boost:
            scores[i] *= scores[i]
    return merged
