"""Pairs are of strong actions after searches, point in time; titles stand in where nobody searched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.data.lakes import write_lake
from training.evaluation.retrieval import NothingHeldOut
from training.searchsage import pairs as pairs_module
from training.searchsage.pairs import TooFewQueries, searched_pairs, split_pairs, title_pairs
from validation.lake import Lake
from validation.tables import Contract, Polarity, Vocabulary

END = datetime(2026, 3, 10, tzinfo=UTC)
PINS = 30
SAVE, CLICK, LONG_CLICK = (Contract().vocabulary.code(n) for n in ("save", "click", "long_click"))

Act = tuple[int, str | None, int, int, float]
"""user, query, pin, action, days before END"""


def lake(root: Path, acts: list[Act], contract: Contract | None = None) -> Lake:
    """Pin p is made p / 10 days before END."""
    frames = {
        "pins": pd.DataFrame(
            {
                "pin_id": np.arange(1, PINS + 1),
                "created_at": [END - timedelta(days=p / 10) for p in range(1, PINS + 1)],
                "title": [None if p == 3 else f"Title  {p}" for p in range(1, PINS + 1)],
            }
        ),
        "actions": pd.DataFrame(
            {
                "event_id": np.arange(len(acts)),
                "user_id": [a[0] for a in acts],
                "query": [a[1] for a in acts],
                "pin_id": [a[2] for a in acts],
                "action": [a[3] for a in acts],
                "timestamp": pd.Series([END - timedelta(days=a[4]) for a in acts]),
            }
        ),
    }
    return write_lake(root, frames, contract)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_module, "LEAST_PAIRS", 3)
    monkeypatch.setattr(pairs_module, "HOLDOUT_PAIRS", 2)


def said(pairs: pairs_module.QueryPairs) -> list[tuple[str, int]]:
    return [(pairs.queries[q], int(p)) for q, p in zip(pairs.query, pairs.pins, strict=True)]


def test_saves_and_long_clicks_after_a_search_are_pairs(tmp_path: Path) -> None:
    acts: list[Act] = [
        (1, "Oak  Bench", 21, SAVE, 5.0),
        (1, "oak bench", 21, LONG_CLICK, 4.0),  # the same person, query and pin
        (2, "oak bench", 21, SAVE, 3.0),
        (1, "oak bench", 22, CLICK, 5.0),  # too weak
        (1, None, 23, SAVE, 5.0),  # no search
        (1, " \t ", 24, SAVE, 5.0),  # nothing asked
        (3, "lamp", 25, LONG_CLICK, 6.0),
    ]
    found = searched_pairs(lake(tmp_path, acts), None, END)
    assert said(found) == [("lamp", 25), ("oak bench", 21), ("oak bench", 21)]
    assert (np.diff(found.times_ms) >= 0).all()


def test_a_vocabulary_of_its_own_counts_what_it_calls_positive(tmp_path: Path) -> None:
    shop = Contract(vocabulary=Vocabulary(actions={"view": Polarity.NEUTRAL, "buy": Polarity.POSITIVE}))
    found = searched_pairs(lake(tmp_path, [(1, "oak", 21, 1, 5.0), (1, "oak", 22, 2, 5.0)], shop), None, END)
    assert said(found) == [("oak", 22)]


BEFORE: list[Act] = [(u, "oak", 20 + u, SAVE, 5.0) for u in (1, 2, 3, 4)]


def test_nothing_learned_from_lies_after_the_cut(tmp_path: Path) -> None:
    acts = [*BEFORE, (7, "lamp", 26, SAVE, 0.5), (8, "lamp", 27, SAVE, 0.4), (9, "new", 2, SAVE, 0.1)]
    split = split_pairs(lake(tmp_path, acts), END)
    assert split.cut == END - timedelta(days=1) and not split.of_titles
    at = split.cut.timestamp() * 1000
    assert split.train.times_ms.max() < at <= split.held.times_ms.min()
    # pin 2 was made on the held-out day: nobody could have found it at the cut
    assert said(split.held) == [("lamp", 26), ("lamp", 27)]
    assert split.train.queries == ("oak",)


def test_more_days_are_held_out_until_there_are_enough_pairs(tmp_path: Path) -> None:
    acts = [*BEFORE, (7, "lamp", 26, SAVE, 1.5), (8, "lamp", 27, SAVE, 0.4)]
    assert split_pairs(lake(tmp_path, acts), END).cut == END - timedelta(days=2)
    since = END - timedelta(days=1)
    split = split_pairs(Lake(tmp_path), END, since=since)
    assert split.cut == since and said(split.held) == [("lamp", 27)]
    with pytest.raises(NothingHeldOut, match="after a search"):
        split_pairs(Lake(tmp_path), END, since=END - timedelta(hours=1))


def test_titles_stand_in_where_nobody_searched(tmp_path: Path) -> None:
    split = split_pairs(lake(tmp_path, [(1, None, 21, SAVE, 5.0)]), END)
    assert split.of_titles and split.cut == END
    assert said(split.held) == [("title 2", 2), ("title 1", 1)]  # the newest tenth
    assert len(split.train) == PINS - 1 - 2  # pin 3 has no title
    assert len(title_pairs(Lake(tmp_path), END - timedelta(days=1))) == 20
    since = END - timedelta(days=0.15)
    assert said(split_pairs(Lake(tmp_path), END, since=since).held) == [("title 1", 1)]
    with pytest.raises(NothingHeldOut, match="no pin with a title"):
        split_pairs(Lake(tmp_path), END, since=END)


def test_too_little_of_both_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_module, "LEAST_PAIRS", 100)
    with pytest.raises(TooFewQueries, match="29 pins have a title"):
        split_pairs(lake(tmp_path, BEFORE), END)
