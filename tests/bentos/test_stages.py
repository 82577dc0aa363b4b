"""Merge, diversity and failing open: the mechanics of the funnel, against answers said by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos import light_scores, ranking
from bentos.candidates import Candidates, brought, concatenate
from bentos.engines import Engines, LocalRanking, LocalRetrieval, RemoteRanking, answer_of, parts_of
from bentos.errors import NoRelease
from bentos.failing import READ
from bentos.features import User
from bentos.feed import Feed, Surface
from bentos.funnel import FUNNELS, HOMEFEED, RELATED, sources_of
from bentos.hop_messages import LightAnswer, LightRequest, RetrieveAnswer
from bentos.messages import FeedRequest
from bentos.networks import Networks
from bentos.pool import Busy, Pool
from bentos.stages import LightRank, Merge, ReadPins, ReadVectors, Retrieve, Shortlist, Source, merge
from tests.bentos.conftest import run
from tests.bentos.fakes import COOK, NOW_MS, Stack, manifest
from tests.bentos.preview import FixedHolder


def part(source: str, *ids: int) -> Candidates:
    return Candidates.of(source, ids, np.linspace(1, 0.5, len(ids)), 0, "popular")


def test_the_funnel_reads_in_the_order_of_the_design() -> None:
    order = [stage.name for stage in HOMEFEED]
    assert order == [
        "user",
        "retrieve",
        "popular",
        "merge",
        "not_hidden",
        "unseen",
        "pins",
        "light",
        "shortlist",
        "vectors",
        "distinct",
        "rank",
        "calibration",
        "utility",
        "diversity",
        "take",
    ]
    assert [s.name for s in sources_of(Surface.HOMEFEED)] == [
        "pinnersage",
        "pinnerformer",
        "dcm",
        "conditional",
        "two_tower",
        "pixie",
        "followed_boards",
        "followed_topics",
        "popular_by_topic",
    ]
    assert [s.name for s in sources_of(Surface.RELATED)] == ["similar_pins", "saved_together"]
    assert set(FUNNELS) == set(Surface)
    assert [s.name for s in RELATED][:4] == ["user", "retrieve", "popular", "merge"]


def test_merge_puts_first_what_many_sources_have_high_and_a_pin_counts_once() -> None:
    merged = merge(*brought([part("a", 1, 2, 3, 4), part("b", 2, 9), part("c")]), budget=10)
    assert merged.pin_ids.tolist() == [2, 1, 9, 3, 4]  # 1/62 + 1/61, 1/61, 1/62, 1/63, 1/64
    assert merged.sources == ["b", "a", "b", "a", "a"], "the source that has it highest"


def test_merge_keeps_its_budget_and_takes_nothing_for_an_answer() -> None:
    assert merge(*brought([part("a", 1, 2, 3), part("b", 4, 5, 6)]), budget=4).pin_ids.tolist() == [1, 4, 2, 5]
    assert len(merge(*brought([]), 5)) == len(merge(*brought([part("a")]), 5)) == 0


@given(st.lists(st.lists(st.integers(1, 30), max_size=15, unique=True), max_size=4), st.integers(1, 40))
def test_merge_against_the_naive_rule(lists: list[list[int]], budget: int) -> None:
    """Deal one card from each hand in turn, skip what lies on the table; then sort it by the sum of 1 / (60 +
    place) over the hands."""
    table: list[int] = []
    for turn in range(15):
        for hand in lists:
            if turn < len(hand) and hand[turn] not in table:
                table.append(hand[turn])
    table.sort(key=lambda pin: -np.float32(sum(1 / (61 + h.index(pin)) for h in lists if pin in h)))
    merged = merge(*brought([part(f"s{i}", *hand) for i, hand in enumerate(lists)]), budget)
    assert merged.pin_ids.tolist() == table[:budget]


def test_padding_never_becomes_a_candidate() -> None:
    made = Candidates.of("a", [5, 0, 7], [0.9, -np.inf, 0.8], [1, 2, 3], "interest")
    assert made.pin_ids.tolist() == [5, 7] and made.anchors.tolist() == [1, 3]


def test_parts_are_laid_one_after_the_other() -> None:
    both = concatenate([part("long name", 1, 2), part("b", 3)])
    assert both.pin_ids.tolist() == [1, 2, 3] and both.sources == ["long name", "long name", "b"]
    assert concatenate([]).pin_ids.tolist() == []


def test_lists_are_dealt_in_turns_without_their_padding() -> None:
    lists = [(np.array(ids), np.float32(ids) / 10) for ids in ([1, 0, 2, 3], [], [0, 4, 5])]
    made = Candidates.dealt("boards", lists, [70, 80, 90], "board")
    assert made.pin_ids.tolist() == [1, 4, 2, 5, 3] and made.anchors.tolist() == [70, 90, 70, 90, 70]
    np.testing.assert_allclose(made.scores, made.pin_ids / 10)


def feed_of(stack: Stack, **changes: object) -> Feed:
    return Feed(Surface.HOMEFEED, stack.release, NOW_MS, 10, user_id=COOK, **changes)  # type: ignore[arg-type]


def engines_of(pool: Pool) -> Engines:
    return Engines(pool, LocalRetrieval(pool), LocalRanking(pool))


@pytest.mark.parametrize(
    ("stage", "quality", "limit", "kept"),
    [
        (Shortlist(), 1.0, 10, 300),
        (Shortlist(budget=200), 1.0, 10, 200),
        (Shortlist(), 0.0, 10, 100),
        (Shortlist(), 0.5, 10, 200),
        (Shortlist(budget=200), 1.0, 150, 300),
    ],
    ids=["settings", "stage", "load", "half", "page"],
)
def test_the_shortlist_is_the_settings_the_stages_or_two_pages(
    stack: Stack, stage: Shortlist, quality: float, limit: int, kept: int
) -> None:
    feed = feed_of(stack, quality=quality)
    feed.limit = limit
    feed.candidates = Candidates.of("a", np.arange(1, 1_001), np.zeros(1_000), 0, "topic")
    run(stage.run(feed, replace(engines_of(stack.pool), shortlist=300)))
    assert feed.candidates.pin_ids.tolist() == list(range(1, kept + 1))


def test_a_source_past_its_deadline_costs_only_its_candidates(stack_of: Callable[..., Stack]) -> None:
    stack = stack_of()
    stack.features.slow_s["boards"] = 0.4

    def slow(feed: Feed) -> Candidates:
        feed.release.features.boards([1])
        return part("slow", 1)

    sources = (
        Source("slow", slow, 10, deadline_ms=40, always=True),
        Source("quick", lambda _: part("quick", 2, 3, 4), 2, deadline_ms=1_000, always=True),
    )
    feed = feed_of(stack)
    run(Retrieve(sources).run(feed, engines_of(stack.pool)))
    run(Merge(10).run(feed, engines_of(stack.pool)))
    assert feed.candidates.pin_ids.tolist() == [2, 3], "the quick source, cut to its budget"
    assert feed.missing == ["slow: deadline"]
    assert [(r.name, r.count, r.missing) for r in feed.sources] == [("slow", 0, "deadline"), ("quick", 2, None)]


def test_a_source_that_raises_is_named(stack: Stack) -> None:
    def broken(_: Feed) -> Candidates:
        raise ConnectionError("down")

    feed = feed_of(stack)
    sources = (Source("broken", broken, 10, 1_000, always=True),)
    run(Retrieve(sources).run(feed, engines_of(stack.pool)))
    assert feed.missing == ["broken: ConnectionError"] and not feed.parts[0].pin_ids.size


def test_a_source_the_release_does_not_serve_is_skipped_without_alarm(stack: Stack) -> None:
    feed = feed_of(stack)
    sources = (Source("two_tower", lambda _: part("two_tower", 1), 10, 1_000),)
    run(Retrieve(sources).run(feed, engines_of(stack.pool)))
    assert feed.missing == [] and feed.sources[0].missing == "skipped"


def test_hanging_calls_of_one_name_leave_threads_for_others() -> None:
    import threading

    pool, let_go = Pool(4), threading.Event()

    async def main() -> None:
        import asyncio

        hanging = [asyncio.ensure_future(pool.call("hung", 50, lambda: let_go.wait(10))) for _ in range(2)]
        results = await asyncio.gather(*hanging, return_exceptions=True)
        assert all(isinstance(r, TimeoutError) for r in results)
        try:
            await pool.call("hung", 1_000, lambda: True)
        except Busy:
            pass
        else:
            raise AssertionError("a third call was let in although two still hang")
        assert await pool.call("other", 5_000, lambda: 42) == 42
        let_go.set()
        for _ in range(200):
            try:
                assert await pool.call("hung", 1_000, lambda: 7) == 7
                return
            except Busy:
                await asyncio.sleep(0.02)
        raise AssertionError("the name never got its threads back")

    run(main())
    pool.close()


def test_vectors_are_read_of_the_shortlist_alone(stack: Stack) -> None:
    feed, engines = feed_of(stack, candidates=part("a", 5, 3, 9)), engines_of(stack.pool)
    run(ReadPins(1_000, vectors=False).run(feed, engines))
    assert feed.pins.ids.tolist() == [3, 5, 9] and feed.pins.vectors.shape == (3, 0)
    known = feed.pins.stats
    feed.candidates = feed.candidates.take(slice(2))
    run(ReadVectors(1_000).run(feed, engines))
    assert feed.pins.ids.tolist() == [3, 5] and feed.missing == []
    np.testing.assert_array_equal(feed.pins.stats.scalars, known.scalars[:2])
    np.testing.assert_array_equal(feed.pins.vectors, feed.release.vectors(feed.pins.ids, feed.release.space)[0])


def test_vectors_that_cannot_be_read_fail_open(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, engines = feed_of(stack, candidates=part("a", 5, 3)), engines_of(stack.pool)
    run(ReadPins(1_000, vectors=False).run(feed, engines))
    monkeypatch.setattr(type(feed.release), "vectors", lambda *_: (np.full((2, 8), np.nan, np.float32), None))
    run(ReadVectors(1_000).run(feed, engines))
    assert feed.missing == ["vectors: 2 unfit rows"] and not feed.pins.stats.present.any()
    run(ReadPins(1_000, vectors=False).run(feed, engines))
    monkeypatch.setattr(type(feed.release), "vectors", lambda *_: 1 / 0)
    feed.missing.clear()
    run(ReadVectors(1_000).run(feed, engines))
    assert feed.missing == ["vectors: ZeroDivisionError"]
    assert feed.pins.vectors.shape == (2, feed.release.dim(feed.release.space)) and not feed.pins.vectors.any()


def test_pins_that_cannot_be_read_fail_open(stack: Stack) -> None:
    feed = feed_of(stack, candidates=part("a", 5, 3, 9))
    stack.features.broken.add("pins")
    run(ReadPins(1_000).run(feed, engines_of(stack.pool)))
    assert feed.missing == ["pins: ConnectionError"]
    assert not feed.pins.stats.present.any() and feed.pins.vectors.shape == (
        3,
        stack.release.dim(stack.release.space),
    )


def test_candidates_cross_the_wire_unchanged(stack: Stack) -> None:
    engines = engines_of(stack.pool)
    feed = feed_of(stack)
    run(HOMEFEED[0].run(feed, engines))
    run(HOMEFEED[1].run(feed, engines))
    sent = RetrieveAnswer.model_validate_json(answer_of(feed).model_dump_json())
    names = [s.name for s in sources_of(Surface.HOMEFEED)]
    for here, there in zip(feed.parts, parts_of(sent, names), strict=True):
        assert here.pin_ids.tolist() == there.pin_ids.tolist()
        assert here.anchors.tolist() == there.anchors.tolist() and here.kinds == there.kinds
        np.testing.assert_allclose(here.scores, there.scores, rtol=1e-6)


def light_feed(stack_of: Callable[..., Stack], **changes: object) -> tuple[Stack, Feed]:
    stack = stack_of(learned=True, **changes)
    feed = feed_of(stack, candidates=part("a", *range(1, 40)), user=stack.features.user(COOK, None))
    return stack, feed


def test_the_two_tower_orders_candidates_before_the_shortlist(stack_of: Callable[..., Stack]) -> None:
    stack, feed = light_feed(stack_of)
    run(LightRank(5_000).run(feed, engines_of(stack.pool)))
    wanted = stack.features.spaces["two_tower@2"][:39] @ light_scores.user_vector(feed)
    assert feed.candidates.pin_ids.tolist() == (np.argsort(-wanted, kind="stable") + 1).tolist()
    assert feed.ordered_by == "light" and feed.missing == []
    place = [stage.name for stage in HOMEFEED].index("light")
    assert [stage.name for stage in HOMEFEED][place + 1] == "shortlist"


def test_light_scoring_fails_open_to_the_order_of_the_merge(stack_of: Callable[..., Stack]) -> None:
    stack, feed = light_feed(stack_of)
    feed.release = replace(feed.release, networks=Networks())
    run(LightRank(5_000).run(feed, engines_of(stack.pool)))
    assert feed.candidates.pin_ids.tolist() == list(range(1, 40)) and feed.ordered_by == "merged"
    assert feed.missing == ["light: NoTwoTower"]


def test_light_scoring_is_no_alarm_where_there_is_nothing_to_score(stack_of: Callable[..., Stack]) -> None:
    """A release without a two-tower, a stranger, and a feed without candidates."""
    stack, feed = light_feed(stack_of)
    bare, stranger, empty = (replace(feed, missing=[]) for _ in range(3))
    bare.release = replace(feed.release, manifest=manifest())
    stranger.user = User.unknown()
    empty.candidates = Candidates.none()
    for asked in (bare, stranger, empty):
        run(LightRank(5_000).run(asked, engines_of(stack.pool)))
        assert asked.ordered_by == "merged" and asked.missing == []


def test_what_the_light_ranker_could_not_read_elsewhere_is_not_the_rankers(
    stack_of: Callable[..., Stack],
) -> None:
    _, feed = light_feed(stack_of)

    async def light(request: LightRequest) -> LightAnswer:
        told = ["user: ConnectionError", "stale: pins"]
        return LightAnswer(release=request.release or 0, scores=[0.0] * len(request.pin_ids), missing=told)

    run(RemoteRanking(light, light, light).light(feed, 5_000))  # type: ignore[arg-type]
    assert feed.missing == ["light's user: ConnectionError", "stale: pins"]
    assert not any(said.startswith(READ) for said in feed.missing), "the ranking is logged"


def test_remote_light_and_heavy_scores_are_the_local_ones(stack_of: Callable[..., Stack]) -> None:
    """A ranking process has no index: its vectors come from the feature store."""
    stack, feed = light_feed(stack_of)
    local = engines_of(stack.pool)
    run(ReadPins(1_000).run(feed, local))
    alone = replace(stack.release, indexes={}, networks=Networks(two_tower=stack.release.networks.two_tower))
    parts = ranking.RankingParts(stack.pool, FixedHolder(alone))  # type: ignore[arg-type]
    remote = RemoteRanking(
        lambda r: ranking.light(parts, r), lambda r: ranking.rank(parts, r), lambda r: ranking.ads(parts, r)
    )
    near, far = (run(engine.light(feed, 5_000)) for engine in (local.ranking, remote))
    np.testing.assert_allclose(far, near, rtol=1e-5)
    near, far = (run(engine.rank(feed, 5_000)) for engine in (local.ranking, remote))
    np.testing.assert_allclose(far.p, near.p, rtol=1e-5)
    assert (far.ranker, far.names, far.p.shape) == ("pinnability_lr@1", ("engage",), (39, 1))
    without = ranking.RankingParts(stack.pool, FixedHolder(replace(alone, networks=Networks())))  # type: ignore
    with pytest.raises(NoRelease, match="no light ranker and no two-tower"):
        run(ranking.light(without, LightRequest(user_id=COOK, pin_ids=[1])))


def test_a_whole_feed_of_learned_sources(stack_of: Callable[..., Stack]) -> None:
    stack = stack_of(learned=True)
    stack.features.calls.clear()
    answer = run(stack.service.homefeed(FeedRequest(user_id=COOK, limit=200)))
    assert answer.missing == [] and len(answer.pins) > 50
    counts = {source.name: source.count for source in answer.sources}
    assert all(counts[name] for name in ("pinnerformer", "dcm", "two_tower")) and not counts["conditional"]
    assert {"next", "taste", "interest"} <= {pin.why.kind for pin in answer.pins}
    assert stack.features.calls.count("user") == 1, "one read brings sequence, interests and vectors"
