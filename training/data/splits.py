"""Splits by time: what is learned from always lies before what is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd

DAY = timedelta(days=1)


class TooShort(ValueError):
    """The data's interval cannot hold the split asked for."""


@dataclass(frozen=True)
class Interval:
    """UTC times from `start` to `end`, exclusive."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            if getattr(self, name).tzinfo is None:
                raise ValueError(f"{name} of an interval needs a zone (UTC), got {getattr(self, name)}")
        if self.end < self.start:
            raise ValueError(f"an interval cannot end ({self.end}) before it starts ({self.start})")

    def __contains__(self, when: datetime) -> bool:
        return self.start <= when < self.end

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC"

    def mask(self, times: pd.Series) -> np.ndarray:
        """bool (n,): which of the zoned times lie inside."""
        return ((times >= self.start) & (times < self.end)).to_numpy()

    def days(self) -> list[datetime]:
        """UTC midnights of every day the interval touches, ascending."""
        if self.start == self.end:
            return []
        first = midnight(self.start)
        count = -(-(self.end - first) // DAY)
        return [first + i * DAY for i in range(count)]


@dataclass(frozen=True)
class TimeSplit:
    """Training, validation and test intervals, in this order of time and without overlap."""

    train: Interval
    validation: Interval
    test: Interval


def midnight(when: datetime) -> datetime:
    """The UTC midnight at or before `when` (zoned)."""
    return when.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def time_split(
    start: datetime,
    end: datetime,
    *,
    validation: timedelta = DAY,
    test: timedelta = DAY,
    gap: timedelta = timedelta(0),
    at_least: timedelta = DAY,
) -> TimeSplit:
    """The last `test` of [start, end) for testing, `validation` before it, everything earlier for training.

    `gap` is left out before validation and before the test, so that labels that take time to arrive (an
    action up to `gap` after its impression) cannot reach over a border. Raises TooShort, with what would fit,
    when less than `at_least` is left to train on.
    """
    border = end - test - gap
    cut = border - validation - gap
    if cut - start < at_least:
        needed = at_least + validation + test + 2 * gap
        raise TooShort(
            f"{start} to {end} lasts {end - start}; training, validation and test need at least {needed}: "
            "bring more days or ask for shorter validation and test"
        )
    return TimeSplit(
        train=Interval(start, cut),
        validation=Interval(cut + gap, border),
        test=Interval(end - test, end),
    )


def walk_forward(start: datetime, end: datetime, *, folds: int, test: timedelta = DAY) -> list[TimeSplit]:
    """`folds` splits whose tests are the last `folds` steps of `test`, oldest first; each trains on all before.

    Validation is empty (it starts and ends where training ends). Raises TooShort where the first fold would
    have nothing to train on.
    """
    first = end - folds * test
    if first <= start:
        raise TooShort(f"{folds} folds of {test} do not fit between {start} and {end}; ask for fewer")
    borders = [first + i * test for i in range(folds + 1)]
    return [
        TimeSplit(Interval(start, cut), Interval(cut, cut), Interval(cut, stop))
        for cut, stop in pairwise(borders)
    ]
