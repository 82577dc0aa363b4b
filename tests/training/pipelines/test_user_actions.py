"""Actions by user: order, what is left out, and the cut in time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from training.context import TrainingContext
from training.models.interactions import Pins
from training.pipelines.pinnersage import holdout
from training.pipelines.user_actions import UserActions
from validation.lake import Lake
from validation.tables import Polarity

MS = 1_700_000_000_000


@pytest.fixture
def pins() -> Pins:
    vectors = np.eye(4, dtype=np.float32)
    vectors[3] = 0  # pin 40 has no content
    return Pins(np.array([10, 20, 30, 40]), vectors, np.zeros((4, 4), np.int64), np.ones(4, np.int64))


@pytest.fixture
def actions(pins: Pins) -> UserActions:
    rows = [(2, 20, 5), (1, 10, 3), (1, 30, 1), (1, 40, 2), (1, 99, 4), (2, 10, 1), (1, 10, 9), (7, 40, 1)]
    frame = pd.DataFrame(rows, columns=["user_id", "pin_id", "at"])
    frame["timestamp"] = pd.to_datetime(frame.pop("at") * 1000 + MS, unit="ms", utc=True)
    return UserActions.of(frame, pins)


def test_rows_are_by_user_oldest_first_and_only_of_pins_with_a_vector(actions: UserActions):
    assert actions.users.tolist() == [1, 2]
    first = actions.history(0)
    assert first.pin_ids.tolist() == [30, 10, 10]
    assert ((first.times_ms - MS) // 1000).tolist() == [1, 3, 9]
    np.testing.assert_array_equal(first.vectors, np.eye(4)[[2, 0, 0]])
    assert actions.history(1).pin_ids.tolist() == [10, 20]


def test_histories_of_a_slice_are_those_of_each_user(actions: UserActions):
    for start, stop in ((0, 2), (1, 9), (0, 1)):
        together = actions.histories(start, stop)
        assert len(together) == min(stop, 2) - start
        for place, user in enumerate(range(start, min(stop, 2))):
            part = slice(together.offsets[place], together.offsets[place + 1])
            alone = actions.history(user)
            np.testing.assert_array_equal(together.pin_ids[part], alone.pin_ids)
            np.testing.assert_array_equal(together.times_ms[part], alone.times_ms)
            np.testing.assert_array_equal(together.vectors[together.rows[part]], alone.vectors)


def test_histories_of_chosen_users_are_those_of_each_in_their_order(actions: UserActions):
    together = actions.histories_of(np.array([1, 0, 1]))
    assert len(together) == 3
    for place, user in enumerate((1, 0, 1)):
        part = slice(together.offsets[place], together.offsets[place + 1])
        np.testing.assert_array_equal(together.pin_ids[part], actions.history(user).pin_ids)
        np.testing.assert_array_equal(together.times_ms[part], actions.history(user).times_ms)
        np.testing.assert_array_equal(together.vectors[together.rows[part]], actions.history(user).vectors)
    assert len(actions.histories_of(np.empty(0, np.int64))) == 0


def test_who_acted_on_what_between_two_times(actions: UserActions):
    assert actions.active(MS + 5000, MS + 9000).tolist() == [1]
    assert actions.active(MS + 9000, MS + 9001).tolist() == [0]
    assert actions.between(0, MS + 1000, MS + 9000).tolist() == [0, 2]
    assert actions.between(0, MS + 4000, MS + 9000).tolist() == []


def test_the_cut_is_strict_on_one_side_and_closed_on_the_other(actions: UserActions):
    assert actions.history(0, MS + 3000).pin_ids.tolist() == [30]
    assert actions.since(0, MS + 3000).tolist() == [0]
    assert actions.since(1, MS + 6000).tolist() == []


def test_popular_counts_actions_inside_the_interval(actions: UserActions):
    assert actions.popular(MS, MS + 9000, 2).tolist() == [0, 1]
    assert actions.popular(MS + 4000, MS + 6000, 1).tolist() == [1]


def test_samples_are_seeded_and_distinct(actions: UserActions):
    assert list(actions.sample(9, 0)) == [0, 1]
    assert list(actions.sample(1, 5)) == list(actions.sample(1, 5))


def test_of_no_actions(pins: Pins):
    empty = pd.DataFrame({"user_id": [], "pin_id": [], "timestamp": pd.to_datetime([], utc=True)})
    assert len(UserActions.of(empty, pins)) == 0


def test_reading_keeps_positive_actions_of_the_interval(ctx: TrainingContext):
    lake = Lake(ctx.lake)
    start, end = lake.interval()
    frame = lake.read("actions")
    ids = np.unique(lake.read("pins", ["pin_id"])["pin_id"])
    known = Pins(ids, np.ones((len(ids), 2), np.float32), np.zeros((len(ids), 4), np.int64), ids)
    middle = start + (end - start) / 2
    found = UserActions.read(lake, known, middle, end)
    positive = frame["action"].isin(lake.contract().vocabulary.codes(Polarity.POSITIVE))
    expected = frame[positive & (frame["timestamp"] >= middle)]
    counts = expected.groupby("user_id").size()
    assert found.users.tolist() == counts.index.tolist()
    np.testing.assert_array_equal(np.diff(found.offsets), counts.to_numpy())


def test_the_holdout_grows_until_enough_users_are_in_it(pins: Pins):
    day = 86_400_000
    end = 20_000 * day
    rows = [(user, 10, end - 3 * day) for user in range(1, 41)] + [(1, 20, end - 1000)]
    frame = pd.DataFrame(rows, columns=["user_id", "pin_id", "at"])
    frame["timestamp"] = pd.to_datetime(frame.pop("at"), unit="ms", utc=True)
    assert holdout(UserActions.of(frame, pins), end) == end - 4 * day, "one user of forty is not a quarter"
    assert holdout(UserActions.of(frame[-1:], pins), end) == end - day
    assert holdout(UserActions.of(frame[:0], pins), end) == end - day
