"""The visit counter: open addressing with linear probing, as in the paper (section 3.3).

A slot is one int64, (pin + 1) in the high half and its count in the low half, 0 when free. The table is sized
by the steps of a walk, so that a worker's memory does not grow with the graph.
"""

from __future__ import annotations

import numba
import numpy as np

from training.models.pixie.walkers import GOLDEN

COUNT = 0xFFFFFFFF


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
