"""What one training step sees, as a pure function of (seed, epoch, step): any step can be made again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.interests.engagements import UserDays

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """b user-days, their n engagements, and the pool of u distinct items they are told apart from."""

    days: UserDays
    owner: Ints  # (n,) user-day of each engagement
    positives: Ints  # (n,) place of each engagement's item in the pool
    pool: Ints  # (u,) catalogue rows; the batch's own items first, then uniform ones
    pool_ms: Ints  # (u,) the midnight as of which an item is seen
    own: int
    """How many of the pool are the batch's own."""
    blocked: NDArray[np.bool_]  # (n, u) items the engagement's user engaged with in this batch


@dataclass(frozen=True)
class BatchPlan:
    """How user-days become batches. Creating it does nothing."""

    days: UserDays
    size: int
    """Engagements a batch, at most (a single user-day may have more)."""
    uniform: int
    """Items drawn evenly from `candidates` beside the batch's own."""
    candidates: Ints
    """Catalogue rows."""
    by_day: bool
    """Whether an item seen as of two days is two items of the pool (its features change from day to day)."""
    seed: int

    def order(self, epoch: int) -> list[Ints]:
        """Rows of every batch of `epoch`."""
        rng = np.random.default_rng([self.seed, epoch])
        rows = rng.permutation(len(self.days))
        sizes = np.cumsum(np.diff(self.days.offsets)[rows])
        batches, start = [], 0
        while start < len(rows):
            before = sizes[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(sizes, before + self.size, side="right")))
            batches.append(rows[start:stop])
            start = stop
        return batches

    def batch(self, epoch: int, step: int, rows: Ints) -> Batch:
        """Batch `step` of `epoch`, whose rows `order` chose."""
        rng = np.random.default_rng([self.seed, epoch, step])
        days = self.days.take(np.sort(rows))
        owner = days.owner
        pool, pool_ms, positives = self._pool(days, owner)
        own = len(pool)
        if self.uniform and len(self.candidates):
            drawn = np.unique(rng.choice(self.candidates, min(self.uniform, len(self.candidates))))
            drawn = drawn[~np.isin(drawn, pool)]
            pool = np.concatenate([pool, drawn])
            pool_ms = np.concatenate([pool_ms, rng.choice(days.times_ms, len(drawn))])
        users, user = np.unique(days.users, return_inverse=True)
        pins, pin = np.unique(pool, return_inverse=True)
        engaged = np.zeros((len(users), len(pins)), bool)
        engaged[user[owner], pin[positives]] = True
        return Batch(days, owner, positives, pool, pool_ms, own, engaged[user[owner]][:, pin])

    def _pool(self, days: UserDays, owner: Ints) -> tuple[Ints, Ints, Ints]:
        when = days.times_ms[owner]
        keys = np.column_stack([days.pins, when if self.by_day else np.zeros_like(when)])
        distinct, first, positives = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        return distinct[:, 0], when[first], positives.reshape(-1)
