"""From the funnel's log to requests with outcomes, and to rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_repo.sequence import SequenceLog
from tests.training.data.lakes import write_lake
from tests.training.light.planted import Counted, catalogue
from training.light.logged import logged_requests
from training.light.rows import Outcome, Request, World, candidates, labelled
from training.models.interactions import polarity_signs
from training.models.light_ranking import LightSpec
from training.models.source_lists import SourceList
from validation.lake import Lake
from validation.tables import DEFAULT_VOCABULARY

DAY = datetime(2026, 3, 2, tzinfo=UTC)
AT = DAY + timedelta(hours=9)
SAVE, HIDE = DEFAULT_VOCABULARY.code("save"), DEFAULT_VOCABULARY.code("hide")
SPEC = LightSpec(sources=("pixie", "dcm"), pin=("positives_30d",), user=())


def logged(pin: int, source: str, rank: int, stage: str, chance: float = 1.0, **change: object) -> dict:
    row = {"request_id": 5, "user_id": 7, "pin_id": pin, "timestamp": AT, "source": source, "rank": rank}
    return (
        row
        | {"score": 10.0 - rank, "stage": stage, "logged": chance, "surface": "homefeed", "release": 3}
        | change
    )


ROWS = [
    logged(1, "pixie", 0, "shown"),
    logged(1, "dcm", 7, "shown"),
    logged(2, "pixie", 2, "shown"),
    logged(3, "pixie", 9, "ranked", 0.5),
    logged(4, "dcm", 1, "light", 0.5),
    logged(5, "pixie", 4, "merged", 0.5),
    logged(6, "dcm", 30, "fetched", 0.5),
    logged(1, "pixie", 0, "shown", request_id=6, user_id=8, release=4),
]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    def act(event: int, user: int, pin: int, action: int, at: datetime, request: int = 0) -> dict:
        return {"event_id": event, "user_id": user, "pin_id": pin, "action": action} | {
            "timestamp": at,
            "request_id": request,
        }

    actions = [
        act(1, 7, 9, SAVE, DAY - timedelta(hours=3)),
        act(2, 7, 1, SAVE, AT + timedelta(minutes=1), 5),
        act(3, 7, 2, HIDE, AT + timedelta(minutes=2), 5),
        act(4, 7, 3, SAVE, AT + timedelta(hours=3)),  # found by other ways: it was not shown
        act(5, 8, 1, SAVE, AT + timedelta(days=2), 6),  # too late to be an answer
    ]
    pins = pd.DataFrame(
        {"pin_id": range(1, 10), "created_at": pd.Timestamp(DAY - timedelta(days=3)), "topics": [[1]] * 9}
    )
    nobody = {"request_id": [1], "user_id": [9], "pin_id": [9], "position": [0], "timestamp": [AT]}
    frames = {"pins": pins, "actions": pd.DataFrame(actions), "candidates": pd.DataFrame(ROWS)}
    return write_lake(tmp_path / "lake", frames | {"impressions": pd.DataFrame(nobody)})


def world(lake: Lake) -> World:
    log = SequenceLog.from_actions(lake.read("actions"))
    return World(Counted(lake), catalogue(lake), log, polarity_signs(DEFAULT_VOCABULARY))


def test_a_request_comes_back_with_what_became_of_its_pins(lake: Lake) -> None:
    requests, outcomes = logged_requests(lake, DAY, DAY + timedelta(days=1))
    assert [(r.user_id, r.time_ms) for r in requests] == [(u, int(AT.timestamp() * 1000)) for u in (7, 8)]
    one = {part.source: part for part in requests[0].lists}
    assert one["pixie"].pin_ids.tolist() == [1, 2, 5, 3] and one["pixie"].ranks.tolist() == [0, 2, 4, 9]
    first, second = outcomes
    assert first.engaged.tolist() == [1] and sorted(first.impressed.tolist()) == [1, 2]
    assert sorted(first.eligible.tolist()) == [1, 2, 3, 4], "not what filters and the merge took"
    assert first.logged[4] == 0.5 and second.engaged.tolist() == []


def test_only_releases_whose_scores_mean_the_same_are_read(lake: Lake) -> None:
    requests, _ = logged_requests(lake, DAY, DAY + timedelta(days=1), {4})
    assert [r.user_id for r in requests] == [8]
    assert logged_requests(lake, DAY, DAY + timedelta(days=1), set()) == ([], [])


def test_rows_of_the_log(lake: Lake) -> None:
    requests, outcomes = logged_requests(lake, DAY, DAY + timedelta(days=1))
    rows, owner = labelled(world(lake), SPEC, requests, outcomes, cut=100, seed=0)
    assert owner.tolist() == [0, 0, 0, 0, 1]
    assert (rows.engaged.sum(), rows.impressed.sum()) == (1, 3)
    assert sorted(rows.logged.tolist()) == [0.5, 0.5, 1, 1, 1]
    ranks = rows.features[rows.engaged][0, [SPEC.names.index(f"rank_{s}") for s in SPEC.sources]]
    assert ranks.tolist() == [0, 7]


def test_what_is_cut_is_drawn_and_says_with_which_chance(lake: Lake) -> None:
    lists = [SourceList("pixie", np.arange(1, 9), np.linspace(1, 0, 8, dtype=np.float32))]
    request = Request(8, int(AT.timestamp() * 1000), lists)
    outcome = Outcome(np.array([1]), np.array([2]))
    rows, _ = labelled(world(lake), SPEC, [request], [outcome], cut=3, seed=0)
    assert len(rows) == 5 and rows.logged.tolist().count(0.5) == 3, "three of six"
    everything, _ = labelled(world(lake), SPEC, [request], [outcome], cut=100, seed=0)
    assert len(everything) == 8 and (everything.logged == 1).all()


def test_pins_that_the_user_acted_on_do_not_stand_in_line(lake: Lake) -> None:
    """What happens after the request is not known to it."""
    lists = [SourceList("pixie", np.array([9, 1, 2]), np.ones(3, np.float32))]
    for at, ids in ((AT, [1, 2]), (DAY - timedelta(hours=5), [9, 1, 2]), (AT + timedelta(hours=1), [])):
        (made,) = candidates(world(lake), SPEC, [Request(7, int(at.timestamp() * 1000), lists)])
        assert made.fetched.pin_ids.tolist() == ids
        assert made.features.shape == (len(ids), len(SPEC.names))


def test_counters_are_those_of_the_midnight_before(lake: Lake) -> None:
    lists = [SourceList("pixie", np.array([1]), np.ones(1, np.float32))]
    column = SPEC.names.index("pin_positives_30d")
    days = [Request(9, int((AT + timedelta(days=d)).timestamp() * 1000), lists) for d in (0, 1)]
    found = [made.features[0, column] for made in candidates(world(lake), SPEC, days)]
    assert found == [0, 1], "the save of the morning counts from the next day on"
