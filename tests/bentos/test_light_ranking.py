"""The trees in the funnel: what they read, what they order, and what happens without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import xgboost

from bentos import light_scores, ranking
from bentos.candidates import Candidates
from bentos.engines import Engines, LocalRanking, LocalRetrieval, RemoteRanking
from bentos.errors import BadId, LimitOutOfRange
from bentos.feed import Feed, Surface
from bentos.feed_service import run_blocking
from bentos.funnel import HOMEFEED, sources_of
from bentos.hop_messages import MAX_BROUGHT, Brought, LightRequest
from bentos.networks import Networks
from bentos.rehearsal import rehearse
from bentos.serving import ReleaseRejected
from bentos.sources import (
    conditional,
    dcm,
    followed_boards,
    followed_topics,
    pinnerformer,
    pinnersage,
    pixie,
    popular_by_topic,
    two_tower,
)
from bentos.stages import LightRank, Merge, ReadPins
from tests.bentos.conftest import run
from tests.bentos.fakes import COOK, GARDENER, NOW_MS, PER_TOPIC, Stack, manifest, pin_of
from tests.bentos.preview import FixedHolder
from training.light import replay, rule_sources
from training.models.light_ranking import LightRanker, LightSpec
from validation.manifest import Part

SPEC = LightSpec(sources=("a", "b"), pin=("positives_7d",), user=("active_days_30d",))


@cache
def trees(spec: LightSpec = SPEC) -> LightRanker:
    """A ranker that prefers pins with few positive actions, and of those the ones that `b` has high."""
    rng = np.random.default_rng(0)
    rows = rng.random((4_000, len(spec.names)), np.float32) * 60
    few = rows[:, spec.names.index("pin_positives_7d")]
    wanted = 1 / (1 + few) + 0.01 * (rows[:, spec.names.index("rank_b")] < 2)
    matrix = xgboost.DMatrix(rows, wanted)
    return LightRanker(spec, xgboost.train({"max_depth": 6, "nthread": 1}, matrix, 40))


def released(stack: Stack) -> Stack:
    """The stack with trees in its release."""
    parts = {**manifest().parts, "light": Part(model="light_gbdt", version=1)}
    said = manifest(parts=parts, light_by="light")
    return replace(stack, release=replace(stack.release, manifest=said, light=trees()))


def part(source: str, *ids: int) -> Candidates:
    return Candidates.of(source, ids, np.linspace(1, 0.5, len(ids)), 0, "popular")


def feed_of(stack: Stack, user: int = COOK) -> Feed:
    """Two sources' pins of one topic, read and merged."""
    feed = Feed(Surface.HOMEFEED, stack.release, NOW_MS, 10, user_id=user)
    feed.user = stack.features.user(user, None)
    feed.parts = [part("a", *(pin_of(4, p) for p in range(40))), part("b", pin_of(4, 7), pin_of(5, 3))]
    run(Merge(100).run(feed, engines(stack)))
    run(ReadPins(1_000).run(feed, engines(stack)))
    return feed


def engines(stack: Stack) -> Engines:
    return Engines(stack.pool, LocalRetrieval(stack.pool), LocalRanking(stack.pool))


@pytest.fixture(autouse=True)
def compiled(stack: Stack) -> None:
    """What numba compiles for the trees, so that no deadline of a test is spent on it."""
    light_scores.score(feed_of(released(stack)))


def test_the_trees_order_candidates(stack: Stack) -> None:
    stack = released(stack)
    feed = feed_of(stack)
    run(LightRank(5_000).run(feed, engines(stack)))
    assert feed.ordered_by == "light" and feed.missing == []
    first = feed.candidates.pin_ids[:5].tolist()
    assert set(first) <= {pin_of(4, p) for p in range(33, 40)}, "those with the fewest positive actions"


def test_a_row_has_what_every_source_said(stack: Stack) -> None:
    """A pin that two sources brought has both, whichever it counts for; topics and counters are `ReadPins`'."""
    feed = feed_of(released(stack), GARDENER)
    made = light_scores.rows(feed, SPEC)
    of = {name: made[:, place] for place, name in enumerate(SPEC.names)}
    both = feed.candidates.pin_ids.tolist().index(pin_of(4, 7))
    assert (of["rank_a"][both], of["rank_b"][both], of["brought"][both]) == (7, 0, 2)
    assert of["score_b"][both] == 1.0 and of["score_a"][both] == pytest.approx(1 - 7 * 0.5 / 39)
    only = feed.candidates.pin_ids.tolist().index(pin_of(5, 3))
    assert np.isnan(of["rank_a"][only]) and of["rank_b"][only] == 1
    assert of["pin_positives_7d"][both] == PER_TOPIC - 7
    assert (of["topic_followed"][both], of["topic_followed"][only]) == (1, 0), "the gardener follows topic 4"
    assert (of["user_active_days_30d"] == 1).all() and (of["pin_age_days"] == 30).all()


def test_topics_of_what_the_user_did_are_read(stack: Stack) -> None:
    stack = released(stack)
    feed = Feed(Surface.HOMEFEED, stack.release, NOW_MS, 10, user_id=COOK)
    feed.user = stack.features.user(COOK, None)
    feed.parts = [part("a", pin_of(1, 0), pin_of(2, 0))]
    run(Merge(9).run(feed, engines(stack)))
    run(ReadPins(1_000).run(feed, engines(stack)))
    assert light_scores.rows(feed, SPEC)[:, SPEC.names.index("topic_recent")].tolist() == [1, 0]


def test_a_process_without_the_trees_keeps_the_order_of_the_merge(stack: Stack) -> None:
    stack = released(stack)
    feed = feed_of(replace(stack, release=replace(stack.release, light=None)))
    before = feed.candidates.pin_ids.tolist()
    run(LightRank(5_000).run(feed, engines(stack)))
    assert feed.candidates.pin_ids.tolist() == before and feed.ordered_by == "merged"
    assert feed.missing == ["light: NoLightRanker"]


def test_the_two_tower_is_left_alone_where_the_trees_are_chosen(stack_of: Callable[..., Stack]) -> None:
    """And the other way round; `merge` means neither."""
    stack = stack_of(learned=True)
    said = stack.release.manifest
    both = replace(stack.release, light=trees(), networks=Networks())
    parts = {**said.parts, "light": Part(model="light_gbdt", version=1)}
    for by, missing in (("light", []), ("two_tower", ["light: NoTwoTower"]), ("merge", [])):
        release = replace(both, manifest=said.model_copy(update={"parts": parts, "light_by": by}))
        feed = feed_of(replace(stack, release=release))
        run(LightRank(5_000).run(feed, engines(stack)))
        assert feed.missing == missing, by
        assert feed.ordered_by == ("light" if by == "light" else "merged")


def test_a_ranking_service_gives_the_same_scores(stack: Stack) -> None:
    stack = released(stack)
    feed = feed_of(stack)
    alone = ranking.RankingParts(stack.pool, FixedHolder(replace(stack.release, indexes={})))  # type: ignore
    remote = RemoteRanking(
        lambda r: ranking.light(alone, r), lambda r: ranking.rank(alone, r), lambda r: ranking.ads(alone, r)
    )
    near, far = (run(each.light(feed, 5_000)) for each in (engines(stack).ranking, remote))
    np.testing.assert_allclose(far, near, rtol=1e-6)


def test_light_requests_that_cannot_be_ranked(stack: Stack) -> None:
    parts = ranking.RankingParts(stack.pool, FixedHolder(released(stack).release))  # type: ignore[arg-type]
    for brought, error, words in (
        ([], BadId, "pin 1 is a candidate that no source brought"),
        ([Brought(source="a", pin_ids=[1, 2], scores=[1.0])], BadId, "2 pins and 1 scores"),
        ([Brought(source="a", pin_ids=[1] * 10_001, scores=[0.0] * 10_001)], LimitOutOfRange, str(MAX_BROUGHT)),
    ):
        with pytest.raises(error, match=words):
            run(ranking.light(parts, LightRequest(user_id=COOK, pin_ids=[1], brought=brought)))


def test_lists_that_do_not_fit_are_refused_whatever_scores_them(stack_of: Callable[..., Stack]) -> None:
    stack = stack_of(learned=True)
    release = replace(stack.release, networks=Networks(), light=trees())
    assert release.light_by != "light"
    parts = ranking.RankingParts(stack.pool, FixedHolder(release))  # type: ignore[arg-type]
    odd = LightRequest(user_id=COOK, pin_ids=[1], brought=[Brought(source="a", pin_ids=[1, 2], scores=[1.0])])
    with pytest.raises(BadId, match="2 pins and 1 scores"):
        run(ranking.light(parts, odd))


def test_a_whole_feed_is_shortlisted_by_the_trees(stack: Stack) -> None:
    stack = released(stack)
    feed = Feed(Surface.HOMEFEED, stack.release, NOW_MS, 20, request_id=9, seed=9, user_id=COOK)
    run_blocking(feed, engines(stack), HOMEFEED)
    assert feed.missing == [] and len(feed.candidates) == 20
    assert "light" in [stage.name for stage in feed.stages]


def test_trees_that_do_not_fit_their_file_are_rejected(stack: Stack) -> None:
    release = released(stack).release
    rehearse(release)
    other = LightRanker(LightSpec(sources=("a", "b", "c")), trees().booster)
    with pytest.raises(ReleaseRejected, match="train it again"):
        rehearse(replace(release, light=other))


def test_the_replay_that_trains_the_trees_fetches_as_the_funnel_does() -> None:
    """Training may not import the services, so their numbers stand in both."""
    learned = dict.fromkeys(replay.ROLES, replay.BUDGET) | {replay.PINNERSAGE: replay.PINNERSAGE_BUDGET}
    assert {s.name: s.budget for s in sources_of(Surface.HOMEFEED)} == learned | rule_sources.BUDGETS
    assert [s.name for s in sources_of(Surface.HOMEFEED)] == [*learned, *rule_sources.BUDGETS]
    for source in (pinnerformer, dcm, conditional, two_tower, pixie):
        assert source.CANDIDATES == replay.BUDGET, source.NAME
    assert (pinnersage.PER_MEDOID, pinnersage.NEAR) == (replay.PER_MEDOID, replay.NEAR)
    assert (followed_boards.BOARDS, followed_boards.PER_BOARD) == (rule_sources.BOARDS, rule_sources.PER_BOARD)
    assert followed_topics.TOPICS == rule_sources.TOPICS
    for name in ("OWN_TOPICS", "PER_TOPIC", "RECENT", "WHOLE_CATALOGUE"):
        assert getattr(popular_by_topic, name) == getattr(rule_sources, name), name
