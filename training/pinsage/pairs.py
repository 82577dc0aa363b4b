"""Training pairs: (q, i) where a user engaged with pin i right after pin q (paper, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Rows = NDArray[np.int32]


@dataclass(frozen=True)
class Pairs:
    """Pairs as rows of the catalogue, in order of time; parallel arrays."""

    queries: Rows  # (n,)
    positives: Rows  # (n,)
    times_ms: Ints  # (n,) when the positive was engaged with

    def __len__(self) -> int:
        return len(self.queries)

    def where(self, mask: NDArray[np.bool_]) -> Pairs:
        return Pairs(self.queries[mask], self.positives[mask], self.times_ms[mask])

    def sample(self, count: int, seed: int) -> Pairs:
        """At most `count` of the pairs, drawn evenly, still in order of time."""
        if len(self) <= count:
            return self
        drawn = np.random.default_rng(seed).choice(len(self), count, replace=False)
        kept = np.zeros(len(self), bool)
        kept[drawn] = True
        return self.where(kept)

    def split(self, time_ms: int) -> tuple[Pairs, Pairs]:
        """Pairs before `time_ms` and those from it on."""
        later = self.times_ms >= time_ms
        return self.where(~later), self.where(later)


def consecutive_pairs(
    users: Ints, rows: NDArray[np.integer], times_ms: Ints, order_ids: Ints, *, max_gap_ms: int | None = None
) -> Pairs:
    """Pairs of consecutive positive actions of one user on two different pins.

    Parallel arrays of positive actions in any order: user ids, catalogue rows of the pins (-1, a pin the
    catalogue lacks, is passed over), Unix ms, and event ids, which break ties of time. Several actions in a
    row on one pin (closeup, click, save) are one engagement, at the time of the first. Pairs further apart
    than `max_gap_ms` are left out.
    """
    known = np.flatnonzero(rows >= 0)
    order = known[np.lexsort((order_ids[known], times_ms[known], users[known]))]
    users, rows, times_ms = users[order], rows[order], times_ms[order]
    if len(rows) < 2:
        empty = np.empty(0, np.int32)
        return Pairs(empty, empty, np.empty(0, np.int64))
    first = np.concatenate([[True], (users[1:] != users[:-1]) | (rows[1:] != rows[:-1])])
    users, rows, times_ms = users[first], rows[first], times_ms[first]
    paired = users[1:] == users[:-1]
    if max_gap_ms is not None:
        paired &= times_ms[1:] - times_ms[:-1] <= max_gap_ms
    at = np.flatnonzero(paired)
    at = at[np.argsort(times_ms[at + 1], kind="stable")]
    return Pairs(rows[at].astype(np.int32), rows[at + 1].astype(np.int32), times_ms[at + 1])
