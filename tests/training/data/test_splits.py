"""Splits by time never let what comes later into what is learned from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.splits import Interval, TooShort, midnight, time_split, walk_forward

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def test_the_last_days_test_and_validate() -> None:
    split = time_split(START, START + 10 * DAY, validation=2 * DAY, test=DAY)
    assert split.train == Interval(START, START + 7 * DAY)
    assert split.validation == Interval(START + 7 * DAY, START + 9 * DAY)
    assert split.test == Interval(START + 9 * DAY, START + 10 * DAY)


@given(st.integers(1, 60), st.integers(0, 10), st.integers(1, 10), st.integers(0, 48), st.integers(1, 10))
def test_splits_are_ordered_disjoint_and_gapped(
    days: int, validation: int, test: int, gap: int, least: int
) -> None:
    asked = {
        "validation": validation * DAY,
        "test": test * DAY,
        "gap": timedelta(hours=gap),
        "at_least": least * DAY,
    }
    needed = asked["validation"] + asked["test"] + 2 * asked["gap"] + asked["at_least"]
    if needed > days * DAY:
        with pytest.raises(TooShort, match=str(needed)):
            time_split(START, START + days * DAY, **asked)
        return
    split = time_split(START, START + days * DAY, **asked)
    assert split.train.start == START
    assert split.test.end == START + days * DAY
    assert split.validation.start - split.train.end == asked["gap"]
    assert split.test.start - split.validation.end == asked["gap"]
    assert split.train.end - split.train.start >= asked["at_least"]


def test_walk_forward_trains_on_everything_before() -> None:
    folds = walk_forward(START, START + 5 * DAY, folds=3)
    assert [f.test.start for f in folds] == [START + i * DAY for i in (2, 3, 4)]
    assert all(f.train == Interval(START, f.test.start) for f in folds)
    with pytest.raises(TooShort, match="fewer"):
        walk_forward(START, START + 3 * DAY, folds=3)


def test_intervals() -> None:
    interval = Interval(START + timedelta(hours=12), START + 2 * DAY)
    assert interval.days() == [START, START + DAY]
    assert Interval(START, START).days() == []
    assert interval.start in interval
    assert interval.end not in interval
    times = pd.Series([START, START + DAY, START + 2 * DAY])
    assert interval.mask(times).tolist() == [False, True, False]
    east = timezone(timedelta(hours=9))
    assert midnight(datetime(2026, 1, 2, 8, tzinfo=east)) == START
    with pytest.raises(ValueError, match="zone"):
        Interval(datetime(2026, 1, 1), START)
    with pytest.raises(ValueError, match="before it starts"):
        Interval(START + DAY, START)
