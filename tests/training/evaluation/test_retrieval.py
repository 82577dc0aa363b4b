"""The next-days protocol on a lake small enough to count by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from tests.training.data.lakes import write_lake
from training.evaluation import retrieval
from training.evaluation.retrieval import (
    NothingHeldOut,
    evaluate,
    hold_out,
    hold_out_last,
    lift,
    popularity,
    user_metrics,
)
from validation.lake import Lake

START = datetime(2026, 1, 1, tzinfo=UTC)
CUT, END = START + timedelta(days=10), START + timedelta(days=12)
SAVE, HIDE = 4, 6

# topic 1 is visited most, then 2, then 3; topic 4 never: 3 and 4 are the tail
TOPICS = {1: [1], 2: [1], 3: [1], 4: [2], 5: [2], 6: [3], 7: [4], 8: [], 9: [1]}
BEFORE = [  # user, pin, action
    *[(1, p, SAVE) for p in (1, 1, 2, 2, 4, 6)],
    *[(2, p, SAVE) for p in (1, 4)],
    (3, 5, HIDE),
]
AFTER = [
    (1, 3, SAVE),
    (1, 3, SAVE),  # once is enough
    (1, 1, SAVE),  # known before: no discovery
    (1, 6, SAVE),  # known before, of a tail topic
    (1, 7, SAVE),
    (1, 9, SAVE),  # younger than the cut
    (2, 2, SAVE),
    (2, 8, SAVE),
    (3, 4, SAVE),
    (4, 5, HIDE),
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    pins = pd.DataFrame(
        {
            "pin_id": list(TOPICS),
            "created_at": [CUT + timedelta(hours=1) if p == 9 else START - timedelta(days=1) for p in TOPICS],
            "topics": list(TOPICS.values()),
        }
    )
    rows = [
        (user, pin, action, when + timedelta(hours=i))
        for events, when in ((BEFORE, START), (AFTER, CUT))
        for i, (user, pin, action) in enumerate(events)
    ]
    actions = pd.DataFrame(rows, columns=["user_id", "pin_id", "action", "timestamp"])
    actions["event_id"] = np.arange(1, len(actions) + 1)
    return write_lake(tmp_path_factory.mktemp("lake"), {"pins": pins, "actions": actions})


def test_held_out_are_new_positives_on_older_pins(lake: Lake) -> None:
    held = hold_out(lake, CUT, END)
    assert held.users.tolist() == [1, 2, 3]
    pins = np.split(held.pins, held.offsets[1:-1])
    assert [p.tolist() for p in pins] == [[3, 7], [2, 8], [4]]
    assert held.tail.tolist() == [False, True, False, True, False]
    assert held.history.tolist() == [6, 2, 0]
    again = hold_out(lake, CUT, END, novel=False)
    assert np.split(again.pins, again.offsets[1:-1])[0].tolist() == [1, 3, 6, 7]


def test_metrics_by_hand(lake: Lake) -> None:
    held = hold_out(lake, CUT, END)
    recommended = np.array([[7, 5, 3], [1, 2, 0], [1, 2, 3]])
    got = evaluate(recommended, held, ks=(1, 3))
    assert got["users"] == 3
    assert got["recall@1"] == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert got["recall@3"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert got["hit_rate@3"] == pytest.approx(2 / 3)
    assert got["users/new_users"] == 2
    assert got["recall@3/new_users"] == pytest.approx(1 / 4)
    assert got["users/tail_topics"] == 2
    assert got["recall@3/tail_topics"] == pytest.approx(1 / 2)
    first = (1 + 1 / np.log2(4)) / (1 + 1 / np.log2(3))
    second = (1 / np.log2(3)) / (1 + 1 / np.log2(3))
    assert got["ndcg@3"] == pytest.approx((first + second) / 3)
    assert (got["pins"], got["finds@1"], got["finds@3"]) == (5, 1, 3)
    assert (got["finds@3/new_users"], got["finds@3/tail_topics"]) == (1, 1)


def test_days_grow_until_enough_users_are_in_them(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hold_out_last(lake, END, days=2).users.tolist() == [1, 2, 3]
    with pytest.raises(NothingHeldOut):
        hold_out_last(lake, END, days=1)
    assert hold_out_last(lake, END).cut == END - timedelta(days=7)  # never enough: a week at most
    monkeypatch.setattr(retrieval, "HOLDOUT_USERS", 3)
    assert hold_out_last(lake, END).cut == CUT
    with pytest.raises(NothingHeldOut):
        hold_out_last(lake, START)


def test_what_weights_have_seen_is_not_held_out(lake: Lake) -> None:
    assert hold_out_last(lake, END, since=CUT).cut == CUT, "not the week that so few users ask for"
    assert hold_out_last(lake, END, since=START).cut == END - timedelta(days=7)
    with pytest.raises(NothingHeldOut):
        hold_out_last(lake, END, since=END)


def test_what_is_averaged_is_each_users_own(lake: Lake) -> None:
    held = hold_out(lake, CUT, END)
    own = user_metrics(np.array([[7, 5, 3], [1, 2, 0], [1, 2, 3]]), held, ks=(3,))
    assert own["recall@3"].tolist() == [1.0, 0.5, 0.0]
    assert own["recall@3/new_users"].tolist() == [0.5, 0.0]
    assert own["pins"].tolist() == [2.0, 2.0, 1.0]
    assert own["pins/tail_topics"].tolist() == [1.0, 1.0]


def test_one_list_for_everybody(lake: Lake) -> None:
    held = hold_out(lake, CUT, END)
    same = np.array([3, 2, 4])
    assert evaluate(same, held, ks=(3,)) == evaluate(np.tile(same, (3, 1)), held, ks=(3,))


def test_finding_everything_is_perfect(lake: Lake) -> None:
    held = hold_out(lake, CUT, END)
    perfect = np.array([[3, 7], [2, 8], [4, 0]])
    got = evaluate(perfect, held, ks=(2,))
    # in a slice a pin found below one that does not count is still found, only lower
    means = {name for name in got if name.startswith(("recall@", "hit_rate@", "ndcg@"))} - {
        "ndcg@2/tail_topics"
    }
    assert all(got[name] == pytest.approx(1.0) for name in means)
    assert got["recall_error@2"] == 0.0
    assert got["finds@2"] == got["pins"] and got["finds@2/tail_topics"] == got["pins/tail_topics"]


def test_the_error_of_recall_is_that_of_the_mean_over_users(lake: Lake) -> None:
    held = hold_out(lake, CUT, END)
    some = np.array([[3, 0], [0, 0], [4, 0]])
    recall = user_metrics(some, held, ks=(2,))["recall@2"]
    assert len(set(recall.tolist())) > 1
    assert evaluate(some, held, ks=(2,))["recall_error@2"] == pytest.approx(scipy.stats.sem(recall))


def test_popularity_counts_positives_before_the_cut(lake: Lake) -> None:
    assert popularity(lake, CUT, 5).tolist() == [1, 2, 4, 6, 0]
    recent = popularity(lake, START + timedelta(hours=2, minutes=1), 2, days=0.06)
    assert recent.tolist() == [1, 2]


def test_repeats_and_wrong_shapes_are_refused(lake: Lake) -> None:
    held = hold_out(lake, CUT, END)
    with pytest.raises(ValueError, match="user 2 was recommended one pin twice"):
        evaluate(np.array([[1, 2], [3, 3], [0, 0]]), held, ks=(2,))
    with pytest.raises(ValueError, match="2 rows for 3 users"):
        evaluate(np.zeros((2, 5), dtype=int), held, ks=(5,))
    with pytest.raises(NothingHeldOut, match="hold out more days"):
        hold_out(lake, END, END + timedelta(days=1))
    with pytest.raises(NothingHeldOut, match="the data begins later: hold out fewer days"):
        hold_out(lake, START - timedelta(days=10_000), END)


def test_a_sample_is_a_part_of_the_whole(lake: Lake) -> None:
    held = hold_out(lake, CUT, END)
    some = held.sample(2, seed=1)
    assert len(some) == 2
    for row, user in enumerate(some.users):
        whole = held.pins[held.owner == held.users.tolist().index(user)]
        assert some.pins[some.owner == row].tolist() == whole.tolist()
    assert held.sample(10, seed=1) is held


def test_lift() -> None:
    assert lift({"recall@10": 0.3, "users": 5, "ndcg@10": 0.1}, {"recall@10": 0.2, "users": 5}) == {
        "recall@10": pytest.approx(0.5)
    }
