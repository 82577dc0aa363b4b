"""Visit counters: one byte a pin where that fits the caches, else open addressing as in the paper (section
3.3).

A byte that would pass 255 goes back to 128 and its pin to a list, where one entry stands for 128 visits. Open
addressing probes linearly: a slot is one int64, (pin + 1) in the high half and its count in the low half, 0
when free, and the table is sized by the steps of a walk, so that a worker's memory does not grow with the
graph.
"""

from __future__ import annotations

import numba
import numpy as np

from training.models.pixie.prefetch import prefetch
from training.models.pixie.walkers import GOLDEN

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
