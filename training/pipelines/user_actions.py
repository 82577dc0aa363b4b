"""Positive actions on pins of a space, grouped by user: what PinnerSage clusters and is measured on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.models.interactions import Pins
from training.models.pinnersage import Histories, History
from validation.lake import Lake
from validation.tables import Polarity

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class UserActions:
    """User `users[u]` owns rows `offsets[u]:offsets[u + 1]`, oldest first; 16 bytes an action."""

    users: Ints  # (U,) ascending
    offsets: Ints  # (U + 1,)
    pin_rows: Ints  # (A,) row in `pins`
    times_ms: Ints  # (A,)
    pins: Pins

    @classmethod
    def read(cls, lake: Lake, pins: Pins, start: datetime, end: datetime) -> UserActions:
        """Positive actions in [start, end) on pins that have a vector. `pins.ids` must ascend."""
        positive = lake.contract().vocabulary.codes(Polarity.POSITIVE)
        rows = lake.read("actions", ["user_id", "pin_id", "action", "timestamp"], start, end)
        rows = rows[rows["action"].isin(positive)]
        return cls.of(rows, pins)

    @classmethod
    def of(cls, rows: pd.DataFrame, pins: Pins) -> UserActions:
        """From rows of user_id, pin_id and timestamp, in any order."""
        ids = rows["pin_id"].to_numpy(np.int64)
        places = np.minimum(np.searchsorted(pins.ids, ids), max(len(pins.ids) - 1, 0))
        known = (pins.ids[places] == ids) & pins.vectors[places].any(axis=1)
        user_ids = rows["user_id"].to_numpy(np.int64)[known]
        times = rows["timestamp"].dt.as_unit("ms").astype("int64").to_numpy()[known]
        order = np.lexsort((places[known], times, user_ids))
        users, counts = np.unique(user_ids, return_counts=True)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return cls(users, offsets, places[known][order], times[order], pins)

    def __len__(self) -> int:
        return len(self.users)

    def history(self, user: int, before_ms: int | None = None) -> History:
        """Actions of `users[user]`, those at or after `before_ms` left out."""
        start, end = self.offsets[user], self.offsets[user + 1]
        if before_ms is not None:
            end = start + np.searchsorted(self.times_ms[start:end], before_ms)
        rows = self.pin_rows[start:end]
        return History(self.pins.ids[rows], self.pins.vectors[rows], self.times_ms[start:end])

    def histories(self, start: int, stop: int) -> Histories:
        """All actions of `users[start:stop]`."""
        stop = min(stop, len(self))
        begin, end = self.offsets[start], self.offsets[stop]
        rows = self.pin_rows[begin:end]
        return Histories(
            offsets=self.offsets[start : stop + 1] - begin,
            pin_ids=self.pins.ids[rows],
            rows=rows,
            times_ms=self.times_ms[begin:end],
            vectors=self.pins.vectors,
        )

    def histories_of(self, users: Ints) -> Histories:
        """All actions of the users at these positions, in their order."""
        counts = self.offsets[users + 1] - self.offsets[users]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        taken = np.arange(offsets[-1]) + np.repeat(self.offsets[users] - offsets[:-1], counts)
        rows = self.pin_rows[taken]
        return Histories(offsets, self.pins.ids[rows], rows, self.times_ms[taken], self.pins.vectors)

    def active(self, from_ms: int, before_ms: int) -> Ints:
        """Positions of the users with an action in [from, before), ascending."""
        inside = (self.times_ms >= from_ms) & (self.times_ms < before_ms)
        return np.unique(np.searchsorted(self.offsets, np.flatnonzero(inside), side="right") - 1)

    def between(self, user: int, from_ms: int, before_ms: int) -> Ints:
        """Distinct rows of pins that `users[user]` acted on in [from, before)."""
        part = slice(self.offsets[user], self.offsets[user + 1])
        low, high = np.searchsorted(self.times_ms[part], (from_ms, before_ms))
        return np.unique(self.pin_rows[part][low:high])

    def since(self, user: int, from_ms: int) -> Ints:
        """Distinct rows of pins that `users[user]` acted on at or after `from_ms`."""
        start, end = self.offsets[user], self.offsets[user + 1]
        start += np.searchsorted(self.times_ms[start:end], from_ms)
        return np.unique(self.pin_rows[start:end])

    def popular(self, from_ms: int, before_ms: int, count: int) -> Ints:
        """Rows of the `count` pins with the most actions in [from, before), most first."""
        inside = (self.times_ms >= from_ms) & (self.times_ms < before_ms)
        counts = np.bincount(self.pin_rows[inside], minlength=len(self.pins.ids))
        return np.argsort(-counts, kind="stable")[:count]

    def sample(self, count: int, seed: int) -> Iterator[int]:
        """Positions of at most `count` users drawn evenly, ascending."""
        rng = np.random.default_rng(seed)
        drawn = rng.choice(len(self), min(count, len(self)), replace=False)
        return iter(np.sort(drawn).tolist())
