"""Searches of the demo world: worded in several ways, of one need a page, and judged by what was planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.training.data.worlds import World, tiny_world
from training.data.world import simulate
from training.data.world_config import QueryLaw, WorldConfig
from training.data.world_queries import KINDS, ON_TOPIC, RIGHT, mistyped, reordered
from training.data.world_topics import STYLE_WORDS, STYLES, TopicTree
from training.data.world_wordings import STYLE_WORDINGS, WORDINGS
from training.models.lexical import words
from training.models.lexical.spelling import edits


@pytest.fixture(scope="module")
def world() -> World:
    return tiny_world()


@pytest.fixture(scope="module")
def pages(world: World) -> pd.DataFrame:
    """One row a search: its query, what that asks for, and its day."""
    shown = world.frames["impressions"]
    asked = shown[shown["surface"] == "search"].groupby("request_id")[["query", "timestamp"]].first()
    return asked.join(world.truth.queries, on="query", rsuffix="_true")


def test_every_row_of_a_search_has_its_query_and_no_other_row_any(world: World) -> None:
    shown, done = world.frames["impressions"], world.frames["actions"]
    searched = shown["surface"] == "search"
    assert searched.any() and (shown["query"].notna() == searched).all()
    query = shown[searched].groupby("request_id")["query"].agg(["first", "nunique"])
    assert (query["nunique"] == 1).all()
    acted = done[done["surface"] == "search"]
    assert (acted["query"] == query["first"].loc[acted["request_id"]].to_numpy()).all()


def test_how_people_talk_changes_nothing_but_what_they_type(tmp_path: Path) -> None:
    size = {"users": 60, "pins": 400, "days": 3}
    plain = simulate(tmp_path / "a", WorldConfig.tiny(**size))
    other = simulate(tmp_path / "b", WorldConfig.tiny(**size, queries=QueryLaw(synonym=0.7, pull=1, judged=3)))
    changed = set()
    for file in sorted(plain.root.rglob("*.parquet")):
        one, two = pq.read_table(file), pq.read_table(other.root / file.relative_to(plain.root))
        if file.stem not in ("queries", "query_judgements"):
            changed |= {(file.parent.name, c) for c in one.schema.names if not one[c].equals(two[c])}
    assert changed == {("actions", "query"), ("impressions", "query")}


def test_shares_of_wordings_are_those_stated(world: World, pages: pd.DataFrame) -> None:
    law, share = world.config.queries, pages["kind"].value_counts(normalize=True)
    assert set(share.index) == set(KINDS)
    for kind in ("reordered", "mistyped"):
        assert share[kind] == pytest.approx(getattr(law, kind), abs=0.04), kind
    assert share["synonym"] + share["hypernym"] == pytest.approx(law.synonym + law.hypernym, abs=0.06)


def test_held_back_wordings_come_with_the_last_days(world: World, pages: pd.DataFrame) -> None:
    start = pd.Timestamp(world.config.start_time)
    late = pages["timestamp"] >= start + pd.Timedelta(days=world.config.queries.held_back_until * 14).ceil("D")
    assert not pages.loc[~late, "held_back"].any()
    reworded = pages.loc[late & pages["kind"].isin(["synonym", "hypernym"]), "held_back"]
    assert 0.1 < reworded.mean() < 0.5


def test_people_open_what_they_searched_for(world: World, pages: pd.DataFrame) -> None:
    done, shown = world.frames["actions"], world.frames["impressions"]
    opened = done.loc[done["action"] == world.contract.vocabulary.code("closeup"), ["request_id", "pin_id"]]
    pins = world.truth.pins
    named = pages[pages["thing"] >= 0]

    def share(rows: pd.DataFrame) -> float:
        rows = rows.join(named, on="request_id", how="inner")
        pin = pins.loc[rows["pin_id"]]
        near = pin["topic_id"].to_numpy() == rows["topic_id"].to_numpy()
        return float((pin["thing"].to_numpy() == rows["thing"].to_numpy())[near].mean())

    assert share(shown[["request_id", "pin_id"]]) < 0.2
    assert share(opened) > 1.5 * share(shown[["request_id", "pin_id"]])


def test_judgements_are_what_was_planted(world: World) -> None:
    judged, truth, pins = world.frames["query_judgements"], world.truth.queries, world.truth.pins
    texts = judged["query"].unique()
    assert {"literal", "synonym", "hypernym"} <= set(truth.loc[texts, "kind"])
    title = world.frames["pins"].set_index("pin_id")["title"].str.lower()
    tree = world.truth.tree
    for text in texts[:25]:
        need, rows = truth.loc[text], judged[judged["query"] == text].set_index("pin_id")["relevance"]
        about = (pins["topic_id"] == need["topic_id"]) | (pins["second_topic_id"] == need["topic_id"])
        assert set(rows.index) == set(pins.index[about])
        assert set(rows) <= {RIGHT, ON_TOPIC}
        for pin in rows.index[rows == RIGHT]:
            planted = pins.loc[pin]
            assert planted["topic_id"] == need["topic_id"]
            assert need["style"] in (-1, planted["style"])
            if need["thing"] >= 0:
                leaf = int(tree.leaf_of(np.array(need["topic_id"])))
                assert tree.words[leaf][need["thing"]].lower() in title[pin]


def test_other_words_share_none_with_the_things_they_stand_for() -> None:
    tree = TopicTree.of(6)
    seen: set[str] = set()
    for leaf, things in zip(tree.leaves, tree.words, strict=True):
        synonyms, hypernyms = ([w.strip() for w in half.split(",")] for half in WORDINGS[leaf])
        assert (len(synonyms), len(hypernyms)) == (len(things), 4), leaf
        for thing, synonym in zip(things, synonyms, strict=True):
            assert not set(words(thing)) & set(words(synonym)), (thing, synonym)
        for hypernym in hypernyms:
            assert not set(words(leaf)) & set(words(hypernym)), (leaf, hypernym)
        assert not seen & {*synonyms, *hypernyms}, leaf
        seen |= {*synonyms, *hypernyms}
    assert list(STYLE_WORDINGS) == list(STYLES)
    known = {w for style in STYLE_WORDS for w in style}
    assert not known & {w.strip() for style in STYLE_WORDINGS.values() for w in style.split(",")}


def test_slips_are_one_edit_and_orders_keep_the_words() -> None:
    rng = np.random.default_rng(0)
    for text in ("rustic sourdough loaf", "kiln", "riso", "cacio e pepe"):
        for _ in range(20):
            slipped = mistyped(text, rng)
            assert slipped != text
            assert sum(edits(a, b) for a, b in zip(slipped.split(), text.split(), strict=True)) == 1
    assert reordered("rustic sourdough loaf") == "loaf sourdough rustic"
    assert reordered("kiln") == "something with kiln"


def test_shares_beyond_one_are_refused() -> None:
    with pytest.raises(ValueError, match="must not exceed 1"):
        QueryLaw(synonym=0.9, hypernym=0.2)
