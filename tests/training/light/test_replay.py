"""What rules would have fetched at a midnight, and lists dealt in turns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.data.lakes import write_lake
from tests.training.light.planted import catalogue
from training.evaluation.histories import Histories
from training.evaluation.retrieval import hold_out
from training.light.replay import Sources, replay
from training.light.rule_sources import Popular, in_turns, own_topics
from validation.lake import Lake
from validation.tables import DEFAULT_VOCABULARY

DAY = timedelta(days=1)
CUT = datetime(2026, 3, 2, tzinfo=UTC)
SAVE, HIDE = DEFAULT_VOCABULARY.code("save"), DEFAULT_VOCABULARY.code("hide")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Pins 1 to 6 of topic 1, 7 to 9 of topic 2; pin 10 of topic 1 is made on the tested day."""
    before, after = CUT - timedelta(hours=5), CUT + timedelta(hours=5)
    acts = [
        # user, pin, action, time, board
        (1, 3, SAVE, before, 50),
        (2, 3, SAVE, before, 0),
        (2, 2, SAVE, before, 50),
        (1, 9, HIDE, before, 0),
        (1, 5, SAVE, after, 50),  # not known at the cut
        (2, 10, SAVE, after, 0),  # not made then
        (2, 1, SAVE, after, 0),
        (3, 5, SAVE, after, 0),
    ]
    columns = ["user_id", "pin_id", "action", "timestamp", "board_id"]
    pins = pd.DataFrame({"pin_id": range(1, 11), "topics": [[1]] * 6 + [[2]] * 3 + [[1]]})
    pins["created_at"] = pd.Series([CUT - 3 * DAY + timedelta(minutes=i) for i in range(9)] + [after])
    follows = [(2, 2, 0, before), (1, 2, 0, after), (3, 0, 50, before)]
    frames = {
        "pins": pins,
        "topics": pd.DataFrame({"topic_id": [1, 2], "name": ["a", "b"]}),
        "boards": pd.DataFrame({"board_id": [50], "user_id": [9]}),
        "follows": pd.DataFrame(follows, columns=["user_id", "topic_id", "board_id", "timestamp"]),
        "actions": pd.DataFrame(acts, columns=columns).assign(event_id=range(1, len(acts) + 1)),
    }
    frames["follows"] = frames["follows"].replace({"topic_id": {0: None}, "board_id": {0: None}})
    return write_lake(tmp_path_factory.mktemp("replay") / "lake", frames)


def test_rules_know_what_was_known_at_the_cut(lake: Lake) -> None:
    held = hold_out(lake, CUT, CUT + DAY)
    assert held.users.tolist() == [1, 2, 3]
    found = replay(lake, catalogue(lake), Sources({}, None, None), held, seed=0)
    lists = [{one.source: one for one in of_user} for of_user in found.lists]
    assert list(lists[0]) == ["followed_boards", "followed_topics", "popular_by_topic"]
    popular = lists[0]["popular_by_topic"].pin_ids.tolist()
    assert popular[:2] == [3, 2], "two users, then one"
    assert set(popular) == set(range(1, 10)), "the pin of the next day is not there"
    assert lists[0]["followed_topics"].pin_ids.tolist() == [], "followed on the next day"
    assert set(lists[1]["followed_topics"].pin_ids.tolist()) == {7, 8, 9}
    assert lists[2]["followed_boards"].pin_ids.tolist() == [2, 3], "the newest of the board, as of the cut"
    assert found.two_tower is None and found.time_ms == CUT.timestamp() * 1000


def test_the_topics_of_what_a_user_did(lake: Lake) -> None:
    past = Histories.before(lake, hold_out(lake, CUT, CUT + DAY))
    topics = [own_topics(past.sequence(user), past.vocabulary, catalogue(lake)) for user in (1, 3)]
    assert topics == [[1], []], "hides do not count"


def test_lists_in_turns() -> None:
    lists = [(np.array([1, 2, 3]), np.array([9.0, 8, 7])), (np.array([2, 5]), np.array([1.0, 0.5]))]
    ids, scores = in_turns(lists, 4)
    assert ids.tolist() == [1, 2, 5, 3] and scores.tolist() == [9, 1, 0.5, 7]
    assert in_turns(lists, 2)[0].tolist() == [1, 2] and len(in_turns([], 5)[0]) == 0


def test_no_follows_no_followed_sources(lake: Lake, tmp_path: Path) -> None:
    bare = write_lake(tmp_path / "lake", {name: lake.read(name) for name in ("pins", "topics", "actions")})
    popular = Popular.at(bare, CUT)
    past = Histories.before(bare, hold_out(bare, CUT, CUT + DAY))
    assert list(popular.sources(past, catalogue(bare), 0)) == ["popular_by_topic"]
