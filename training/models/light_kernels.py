"""Lists of several sources made one row a pin, compiled: a few thousand entries in a tenth of a millisecond.

Entries stand list after list; list p holds entries offsets[p] to offsets[p + 1], its ranks rising and its pins
distinct. Pins are found by open addressing: a slot holds a row + 1, 0 when free.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def compiled(values: Any, kind: type[np.generic]) -> NDArray[Any]:
    """`values` as the one form that a kernel here is compiled for, dense, aligned and writeable; others are
    copied."""
    if isinstance(values, np.ndarray) and values.dtype == kind and values.flags.carray:
        return values  # `np.require` would say so too, in ten times the time
    return np.require(values, kind, ("C", "A", "W"))


@numba.njit(cache=True, nogil=True)
def rows_in_turns(ids: Ints, ranks: Ints, offsets: Ints) -> tuple[Ints, Ints]:
    """(row of each entry (m,), entry that each row was first met in (n,)): rows are distinct pins in the order
    in which lists taking turns, by rank, would bring them."""
    slots, shift = _empty(len(ids))
    keys = np.empty(len(slots), np.int64)
    rows, first = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64)
    order, count = _turns(ranks, offsets), 0
    for entry in order:
        slot = _slot(slots, keys, ids[entry], shift)
        if slots[slot] == 0:
            first[count] = entry
            count += 1
            slots[slot], keys[slot] = count, ids[entry]
        rows[entry] = slots[slot] - 1
    return rows, first[:count].copy()


@numba.njit(cache=True, nogil=True)
def _turns(ranks: Ints, offsets: Ints) -> Ints:
    """Entries by rank, equal ones list by list, (m,)."""
    order, count, longest = np.empty(len(ranks), np.int64), 0, 0
    for p in range(len(offsets) - 1):
        length = offsets[p + 1] - offsets[p]
        longest = max(longest, length)
        if length and ranks[offsets[p + 1] - 1] != length - 1:
            longest = -1
            break
    for rank in range(longest):  # whole lists: every rank is there
        for p in range(len(offsets) - 1):
            if offsets[p] + rank < offsets[p + 1]:
                order[count] = offsets[p] + rank
                count += 1
    at = offsets[:-1].copy()
    for place in range(count, len(ranks)):
        turn = -1
        for p in range(len(at)):
            if at[p] < offsets[p + 1] and (turn < 0 or ranks[at[p]] < ranks[at[turn]]):
                turn = p
        order[place] = at[turn]
        at[turn] += 1
    return order


@numba.njit(cache=True, nogil=True)
def rows_among(ids: Ints, pin_ids: Ints) -> Ints:
    """Row in `pin_ids` (n,) of each entry, its last where it stands there twice, n where it is another pin,
    (m,)."""
    slots, keys, shift = _filled(pin_ids)
    rows = np.empty(len(ids), np.int64)
    for entry in range(len(ids)):
        found = slots[_slot(slots, keys, ids[entry], shift)]
        rows[entry] = found - 1 if found else len(pin_ids)
    return rows


@numba.njit(cache=True, nogil=True)
def dealt(ids: Ints, scores: Floats, shares: Ints) -> tuple[Ints, Floats, Ints]:
    """(ids, scores, rows that brought them), (n,) each: the first `shares[r]` entries of each row r of `ids`
    (q, k), in turns, every id once and none that is 0."""
    most = longest = 0
    for share in shares:
        most, longest = most + share, max(longest, share)
    most = min(most, ids.size)
    slots, shift = _empty(most)
    keys = np.empty(len(slots), np.int64)
    found, said, owners = np.empty(most, np.int64), np.empty(most, np.float32), np.empty(most, np.int64)
    count = 0
    for place in range(min(longest, ids.shape[1])):
        for row in range(len(ids)):
            if place >= shares[row] or ids[row, place] == 0:
                continue
            slot = _slot(slots, keys, ids[row, place], shift)
            if slots[slot] == 0:
                slots[slot], keys[slot] = 1, ids[row, place]
                found[count], said[count], owners[count] = ids[row, place], scores[row, place], row
                count += 1
    return found[:count].copy(), said[:count].copy(), owners[:count].copy()


@numba.njit(cache=True, nogil=True)
def falling_keys(bits: NDArray[np.int32]) -> Ints:
    """(n,) keys that rise as the floats of these bits fall, equal floats in their order: the place of each is
    the key's lower half."""
    keys = np.empty(len(bits), np.int64)
    for place in range(len(bits)):
        bit = np.int64(bits[place])
        # A float's bits order as it does, those of negative ones the other way round, and 0 is -0.
        order = -1 - bit if bit > 0 else (0 if bit & 0x7FFFFFFF == 0 else bit & 0x7FFFFFFF)
        keys[place] = (order << 32) | place
    return keys


@numba.njit(cache=True, nogil=True)
def fit_places(ids: Ints, scores: Floats, most: int) -> tuple[Ints, int]:
    """Where entries stand that have an id above 0 and a score that is a number, each id's first and at most
    `most` of them, rising, and how many have not."""
    slots, shift = _empty(len(ids))
    keys = np.empty(len(slots), np.int64)
    places, count, unfit = np.empty(len(ids), np.int64), 0, 0
    for place in range(len(ids)):
        if ids[place] <= 0 or not np.isfinite(scores[place]):
            unfit += 1
            continue
        slot = _slot(slots, keys, ids[place], shift)
        if slots[slot] == 0:
            slots[slot], keys[slot] = 1, ids[place]
            places[count] = place
            count += 1
    return places[: min(count, most)].copy(), unfit


@numba.njit(cache=True, nogil=True)
def matched(topics: Ints, wanted: Ints, weights: Floats) -> Floats:
    """Sum of the `weights` (m,) of those topics of each row (n, t) that are `wanted` (m,), distinct, (n,); what
    is not above 0 is no topic."""
    slots, keys, shift = _filled(wanted)
    out = np.zeros(len(topics), np.float32)
    for row in range(len(topics)):
        for t in range(topics.shape[1]):
            found = slots[_slot(slots, keys, topics[row, t], shift)] if topics[row, t] > 0 else 0
            if found:
                out[row] += weights[found - 1]
    return out


@numba.njit(cache=True, nogil=True)
def counted(topics: Ints) -> tuple[Ints, Ints]:
    """(distinct topics of all rows (n, t), as they come; how often each is there); not above 0 is none."""
    slots, shift = _empty(topics.size)
    keys = np.empty(len(slots), np.int64)
    found, times, count = np.empty(topics.size, np.int64), np.zeros(topics.size, np.int64), 0
    for row in range(len(topics)):
        for t in range(topics.shape[1]):
            if topics[row, t] <= 0:
                continue
            slot = _slot(slots, keys, topics[row, t], shift)
            if slots[slot] == 0:
                found[count] = topics[row, t]
                count += 1
                slots[slot], keys[slot] = count, topics[row, t]
            times[slots[slot] - 1] += 1
    return found[:count].copy(), times[:count].copy()


@numba.njit(cache=True, nogil=True)
def gather(
    rows: Ints,
    ranks: Ints,
    scores: Floats,
    offsets: Ints,
    columns: Ints,
    weights: NDArray[np.float64],
    n: int,
    width: int,
    damping: int,
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """What lists say of rows 0..n-1: scores and ranks (n, width), NaN where list p, whose column is columns[p]
    (-1: none), has not the pin; how many lists have it, its best rank and its reciprocal rank fusion, in which
    list p counts weights[p], (n,).

    Entries of row n are left out.
    """
    said = np.full((n, width), np.nan, np.float32)
    placed = np.full((n, width), np.nan, np.float32)
    brought, best = np.zeros(n, np.float32), np.full(n, np.inf, np.float32)
    fused = np.zeros(n, np.float64)
    for p in range(len(columns)):
        for entry in range(offsets[p], offsets[p + 1]):
            row = rows[entry]
            if row == n:
                continue
            if columns[p] >= 0:
                said[row, columns[p]], placed[row, columns[p]] = scores[entry], ranks[entry]
            brought[row] += 1
            best[row] = min(best[row], np.float32(ranks[entry]))
            fused[row] += weights[p] / (damping + 1 + ranks[entry])
    return said, placed, brought, best, fused.astype(np.float32)


@numba.njit(cache=True, nogil=True)
def assembled(
    said: Floats,
    placed: Floats,
    fetched: tuple[Floats, Floats, Floats],
    scalars: Floats,
    columns: Ints,
    rate: tuple[int, int, float],
    created_at_ms: Ints,
    now_ms: Ints,
    age_cap: float,
    followed: Floats,
    recent: Floats,
    width: int,
) -> Floats:
    """The first columns of `LightSpec.assemble`'s rows, (n, width): all but the user's, which stay unset.

    `fetched` are what `gather` gives after `said` and `placed`; `columns` those of `scalars` (n, p) that are
    read as they are; `rate` is which are divided, one more by `rate[2]` more. `now_ms` is (n,) or (1,).
    """
    n, sources = said.shape
    brought, best, fused = fetched
    acted, shown, prior = rate
    out = np.empty((n, width), np.float32)
    for row in range(n):
        for place in range(sources):
            out[row, place] = said[row, place]
            out[row, sources + place] = placed[row, place]
        at = 2 * sources
        out[row, at], out[row, at + 1], out[row, at + 2] = brought[row], best[row], fused[row]
        at += 3
        for place in range(len(columns)):
            out[row, at + place] = scalars[row, columns[place]]
        at += len(columns)
        out[row, at] = (scalars[row, acted] + np.float32(1)) / (scalars[row, shown] + np.float32(prior))
        age = (now_ms[min(row, len(now_ms) - 1)] - created_at_ms[row]) / 86_400_000.0
        out[row, at + 1] = min(max(age, 0.0), age_cap) if created_at_ms[row] > 0 else age_cap
        out[row, at + 2], out[row, at + 3] = followed[row], recent[row]
    return out


@numba.njit(inline="always")
def _empty(keys: int) -> tuple[Ints, np.uint64]:
    """Free slots, at least twice as many as keys, and the shift that brings a hash among them."""
    bits = 4
    while (1 << bits) < 2 * keys:
        bits += 1
    return np.zeros(1 << bits, np.int64), np.uint64(64 - bits)


@numba.njit(inline="always")
def _filled(ids: Ints) -> tuple[Ints, Ints, np.uint64]:
    """Slots with every row of `ids`, the last of those that are equal; the keys of the slots; the shift."""
    slots, shift = _empty(len(ids))
    keys = np.empty(len(slots), np.int64)
    for row in range(len(ids)):
        slot = _slot(slots, keys, ids[row], shift)
        slots[slot], keys[slot] = row + 1, ids[row]
    return slots, keys, shift


@numba.njit(inline="always")
def _slot(slots: Ints, keys: Ints, key: int, shift: np.uint64) -> int:
    """The slot that holds `key`, or the free one where it belongs."""
    slot = np.int64((np.uint64(key) * _GOLDEN) >> shift)
    while slots[slot] != 0 and keys[slot] != key:
        slot = (slot + 1) & (len(slots) - 1)
    return slot
