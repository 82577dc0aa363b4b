"""Which action answers which impression, against a rule applied one action at a time."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.labels import CLOCK_SKEW, attribute, known_until, multi_hot

ZERO = pd.Timestamp("2026-01-01", tz="UTC")
WINDOW = timedelta(hours=24)


def _shown(rows: list[tuple[int, int, int, float]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["request_id", "user_id", "pin_id", "hour"])
    frame["timestamp"] = (ZERO + pd.to_timedelta(frame.pop("hour"), unit="h")).dt.as_unit("us")
    return frame


def _acted(rows: list[tuple[int | None, int, int, float]]) -> pd.DataFrame:
    frame = _shown([(r or 0, u, p, h) for r, u, p, h in rows])
    frame["request_id"] = pd.array([r for r, *_ in rows], dtype="Int64")
    return frame


def test_the_request_decides_where_it_is_named() -> None:
    shown = _shown([(1, 7, 3, 0), (2, 7, 3, 5), (2, 7, 4, 5)])
    acted = _acted([(1, 7, 3, 6), (2, 7, 4, 6), (3, 7, 3, 6), (1, 8, 3, 6), (1, 7, 9, 6), (1, 7, 3, 25)])
    # the older request; its pin; no such request; another user; no such pin; too late
    assert attribute(shown, acted, WINDOW).tolist() == [0, 2, -1, -1, -1, -1]


def test_the_latest_impression_decides_where_it_is_not() -> None:
    shown = _shown([(1, 7, 3, 0), (2, 7, 3, 5), (3, 8, 3, 5.5)])
    acted = _acted([(None, 7, 3, 6), (None, 7, 3, 4), (None, 7, 3, -1), (None, 7, 3, 30), (None, 8, 3, 6)])
    assert attribute(shown, acted, WINDOW).tolist() == [1, 0, -1, -1, 2]


def test_request_0_is_no_request() -> None:
    shown = _shown([(1, 7, 3, 0)])
    assert attribute(shown, _acted([(0, 7, 3, 1)]), WINDOW).tolist() == [0]


def test_a_clients_clock_may_run_ahead_of_the_page_a_little() -> None:
    shown = _shown([(1, 7, 3, 1)])
    minutes = CLOCK_SKEW.total_seconds() / 60
    acted = _acted([(1, 7, 3, 1 - (minutes - 1) / 60), (1, 7, 3, 1 - (minutes + 1) / 60)])
    assert attribute(shown, acted, WINDOW).tolist() == [0, -1]


def test_features_look_no_further_than_the_earliest_answer() -> None:
    shown = _shown([(1, 7, 3, 1), (1, 7, 4, 1), (2, 7, 3, 5)])
    acted = _acted([(1, 7, 3, 0.97), (1, 7, 3, 0.95), (1, 7, 4, 2), (9, 7, 3, 0)])
    known = known_until(shown, acted, attribute(shown, acted, WINDOW))
    hours = (known - ZERO) / timedelta(hours=1)
    np.testing.assert_allclose(hours, [0.95, 1, 5])
    assert known_until(_shown([]), acted, np.full(4, -1)).empty


def test_nothing_shown_or_nothing_done() -> None:
    assert attribute(_shown([]), _acted([(1, 1, 1, 0)]), WINDOW).tolist() == [-1]
    assert attribute(_shown([(1, 1, 1, 0)]), _acted([]), WINDOW).tolist() == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_equals_the_rule_applied_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    keys = pd.DataFrame(
        {"request_id": rng.integers(1, 8, n), "pin_id": rng.integers(1, 4, n)}
    ).drop_duplicates()
    user_of = rng.integers(1, 4, 9)
    hour_of = rng.choice(96, 9, replace=False) / 2
    shown = _shown(
        sorted(
            ((r, int(user_of[r]), p, float(hour_of[r])) for r, p in keys.itertuples(index=False)),
            key=lambda row: row[3],
        )
    )
    m = int(rng.integers(1, 30))
    acted = _acted(
        [
            (
                None if rng.random() < 0.5 else int(rng.integers(1, 9)),
                int(rng.integers(1, 4)),
                int(rng.integers(1, 4)),
                float(rng.integers(0, 200)) / 4 + 0.1,
            )
            for _ in range(m)
        ]
    )
    expected = []
    for action in acted.itertuples():
        best = -1
        for row, seen in enumerate(shown.itertuples()):
            if (seen.user_id, seen.pin_id) != (action.user_id, action.pin_id):
                continue
            late = action.timestamp - seen.timestamp
            if pd.notna(action.request_id):
                if seen.request_id == action.request_id and -CLOCK_SKEW <= late <= WINDOW:
                    best = row
            elif timedelta(0) <= late <= WINDOW:
                best = row  # rows are in time order: the last one wins
        expected.append(best)
    assert attribute(shown, acted, WINDOW).tolist() == expected


def test_multi_hot_counts_an_action_once_a_row() -> None:
    labels = multi_hot(np.array([0, 0, 1, -1]), np.array([2, 2, 1, 1], dtype=np.int8), rows=3, actions=3)
    assert labels.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
