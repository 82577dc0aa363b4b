"""Search: by words and by meaning, what people type, what is missing, and what is logged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bentos import ranking, retrieval
from bentos.engines import Engines, RemoteRanking, RemoteRetrieval
from bentos.errors import EmptyQuery, NoSearch, QueryTooLong, RequestError
from bentos.feed import Feed, Surface
from bentos.impressions import STREAM
from bentos.loader import check_release
from bentos.log_segments import read
from bentos.messages import FeedAnswer, FeedRequest, SearchRequest, SuggestionsRequest
from bentos.query_vectors import QueryVectors
from bentos.ranking import RankingParts
from bentos.release import ServingRelease
from bentos.retrieval import RetrievalParts
from bentos.search_parts import query_vectors, with_fusion, with_words
from bentos.search_stages import topics_of
from bentos.serving import ReleaseRejected
from bentos.shared_parts import SharedParts
from bentos.sources import searchsage
from tests.bentos.conftest import run
from tests.bentos.fakes import (
    COOK,
    DIM,
    GARDENER,
    NOW_MS,
    SPACE,
    Stack,
    manifest,
    pin_of,
    planted_release,
    topic_of,
)
from tests.bentos.planted_search import POPULAR, PlantedEncoder, search_manifest
from tests.bentos.preview import FixedHolder
from training.models.lexical import LexicalIndex, PopularQueries, Reading
from training.models.pinnability import FeatureSpec, LogisticRanker
from training.models.query_features import QUERY_FEATURES, QUERY_MATCH
from training.models.search_fusion import SearchFusion
from validation.manifest import Part
from validation.queries import LOGGED_QUERY, MAX_QUERY


@pytest.fixture
def searching(stack_of: Callable[..., Stack]) -> Stack:
    return stack_of(search=True)


def search(stack: Stack, query: str, limit: int = 10, **more: object) -> FeedAnswer:
    return run(stack.service.search(SearchRequest(query=query, limit=limit, **more)))


def topics(answer: FeedAnswer) -> set[int]:
    return {topic_of(int(pin.pin_id)) for pin in answer.pins}


def counts(answer: FeedAnswer) -> dict[str, int]:
    return {source.name: source.count for source in answer.sources}


def test_results_are_found_by_words_and_by_meaning(searching: Stack) -> None:
    answer = search(searching, "Chocolate  cake", user_id=COOK)
    assert len(answer.pins) == 10 and topics(answer) == {1}
    assert answer.missing == [] and answer.fallback is None
    assert answer.query is not None and answer.query.text == "chocolate cake"
    assert (answer.query.corrected, answer.query.unknown, answer.query.without) == ([], [], [])
    assert counts(answer)["lexical"] == 60 and counts(answer)["searchsage"] == 300
    assert {pin.why.kind for pin in answer.pins} <= {"words", "meaning"}
    assert [stage.name for stage in answer.stages][:3] == ["user", "retrieve", "popular"]


def test_what_no_pin_says_is_found_by_meaning(searching: Stack) -> None:
    answer = search(searching, "dessert")
    assert counts(answer)["lexical"] == 0 and answer.query.unknown == ["dessert"]
    assert topics(answer) == {1} and {pin.why.kind for pin in answer.pins} == {"meaning"}


def test_a_slip_is_mended_and_said(searching: Stack) -> None:
    answer = search(searching, "winter caots")
    assert topics(answer) == {3}
    assert [(one.typed, one.read, one.sure) for one in answer.query.corrected] == [("caot", "coat", True)]


def test_words_that_take_too_long_to_read_cost_no_other_request(searching: Stack) -> None:
    class Unread(LexicalIndex):
        def read(self, query: str) -> Reading:
            raise OSError("the vocabulary is gone")

    searching.release.lexical.__class__ = Unread
    for _ in range(8):
        answer = search(searching, "garden bench")
        assert answer.missing[0].startswith("words: ") and answer.query.unknown == []
        assert topics(answer) == {2}, "found by meaning"
    assert answer.missing[0] == "words: breaker open"
    assert run(searching.service.homefeed(FeedRequest(user_id=COOK, limit=5))).pins


@pytest.mark.parametrize(
    ("query", "topic"),
    [
        ("cake " * 399, 1),
        ("\u202ecake\u0000\u0007", 1),
        ("\u200fgarden benches\u200f 🌿", 2),
        ("'; drop table pins; -- yoga", 6),
        ("pin_id in [1] or chocolate", 1),
        ("{{ cake }}", 1),
        ("<script>alert('cake')</script>", 1),
        ("ＣＡＫＥ", 1),
    ],
)
def test_whatever_is_typed_is_words(searching: Stack, query: str, topic: int) -> None:
    answer = search(searching, query)
    assert answer.missing == [] and len(answer.pins) == 10
    assert topic_of(int(answer.pins[0].pin_id)) == topic


@pytest.mark.parametrize("query", ["🍰🍰", "!!!", "--", "\u200f؟", "xqzvk", "שלום"])
def test_what_says_nothing_is_answered_with_what_is_popular(searching: Stack, query: str) -> None:
    answer = search(searching, query)
    assert answer.fallback == "nothing is found for this query: popular pins"
    assert len(answer.pins) == 10 and {pin.why.kind for pin in answer.pins} == {"popular"}


def test_a_query_that_the_encoder_does_not_read_is_answered_by_words_alone(searching: Stack) -> None:
    answer = search(searching, "bench xqzvk")
    assert topics(answer) == {2} and {pin.why.kind for pin in answer.pins} == {"words"}
    assert counts(answer)["searchsage"] == 0 and answer.query.unknown == ["xqzvk"]


@pytest.mark.parametrize(
    ("query", "error", "words"),
    [
        ("", EmptyQuery, "query is blank"),
        (" \t\n\u3000\u0000", EmptyQuery, "query is blank"),
        ("\ud800", EmptyQuery, "query is blank"),
        ("\u200b\u200f \u200b", EmptyQuery, "query is blank"),
        ("x" * (MAX_QUERY + 1), QueryTooLong, "query has 2001 characters"),
        ("\ufdfa" * 200, QueryTooLong, "normal spelling has 3600 characters"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(
    searching: Stack, query: str, error: type[RequestError], words: str
) -> None:
    with pytest.raises(error, match=words):
        search(searching, query)


def test_pins_of_other_topics_are_left_out_and_those_beside_stay(searching: Stack) -> None:
    release = searching.release
    whole = search(searching, "oak table", limit=200)
    assert topics(whole) == {4}
    merged, kept = (next(s.count for s in whole.stages if s.name == n) for n in ("pins", "on_topic"))
    assert kept < merged
    beside = {t: replace(name, parent_id=9) if t in (4, 5) else name for t, name in release.topics.items()}
    related = replace(release, topics=beside)
    widened = run(
        replace(searching.service, release=lambda: related).search(SearchRequest(query="oak table", limit=200))
    )
    assert topics(widened) == {4, 5}


def test_the_topics_of_a_query_are_the_fewest_that_explain_its_best_results() -> None:
    assert topics_of(np.array([[1, 2]] * 10)).tolist() == [1]
    assert topics_of(np.array([[1, 0]] * 9 + [[2, 0]] * 9)).tolist() == [1, 2]
    assert topics_of(np.array([[1, 0]] * 19 + [[2, 0]])).tolist() == [1], "one stray among twenty"
    assert topics_of(np.zeros((5, 2), np.int64)).tolist() == []
    assert topics_of(np.empty((0, 2), np.int64)).tolist() == []


def by_words(release: ServingRelease, weight: float) -> ServingRelease:
    """A ranker that reads the query's match, by `weight`."""
    spec = FeatureSpec(query=QUERY_FEATURES)
    weights = np.zeros(len(spec.names), np.float32)
    weights[spec.names.index(QUERY_MATCH)] = weight
    ranker = LogisticRanker(spec, 0 * weights, np.ones_like(weights), weights, bias=-1.0)
    return replace(release, ranker=ranker)


def test_a_ranker_that_reads_the_query_orders_results(searching: Stack) -> None:
    best = [pin_of(4, 7), pin_of(4, 3)]
    asked = SearchRequest(query=f"oak tables {best[0]} {best[1]}", limit=60)
    for weight in (5.0, -5.0):
        release = by_words(searching.release, weight)
        answer = run(replace(searching.service, release=lambda made=release: made).search(asked))
        pins = [pin.pin_id for pin in answer.pins]
        assert set(pins[:2] if weight > 0 else pins[-2:]) == set(best)
        assert answer.utility is not None and answer.utility.theta == 0.95


def test_a_ranker_that_does_not_read_the_query_leaves_the_order(searching: Stack) -> None:
    answer = search(searching, "oak table", user_id=COOK)
    assert answer.utility is None and answer.pins[0].heads
    unranked = replace(searching.release, ranker=None)
    plain = run(
        replace(searching.service, release=lambda: unranked).search(
            SearchRequest(query="oak table", user_id=COOK, limit=10)
        )
    )
    assert [pin.pin_id for pin in plain.pins] == [pin.pin_id for pin in answer.pins]


def test_hidden_pins_do_not_come_back(searching: Stack) -> None:
    shown = {pin.pin_id for pin in search(searching, "winter coats", 200, user_id=GARDENER).pins}
    assert shown and not shown & {pin_of(3, 0), pin_of(3, 1)}


@pytest.mark.parametrize(
    ("changes", "brings", "without"),
    [
        ({"words": False}, "searchsage", "lexical: not of this release"),
        ({"meaning": False}, "lexical", "searchsage: not of this release"),
    ],
)
def test_one_part_of_search_serves_alone_and_says_so(
    stack_of: Callable[..., Stack], changes: dict[str, bool], brings: str, without: str
) -> None:
    stack = stack_of(search=True)
    alone = replace(stack.release, manifest=search_manifest(manifest(), **changes))
    alone = replace(alone, **({"lexical": None} if "words" in changes else {"queries": None}))
    answer = run(replace(stack.service, release=lambda: alone).search(SearchRequest(query="cake", limit=10)))
    assert topics(answer) == {1} and {name for name, count in counts(answer).items() if count} == {brings}
    assert answer.query.without == [without] and answer.missing == []


def test_meaning_and_words_count_what_the_release_says(searching: Stack) -> None:
    """No pin says stars, which is all that the encoder reads here; words know the bench alone."""

    def first(fusion: SearchFusion) -> set[int]:
        release = replace(searching.release, fusion=fusion)
        service = replace(searching.service, release=lambda: release)
        return topics(run(service.search(SearchRequest(query="stars stars stars bench", limit=5))))

    assert first(SearchFusion(meaning=0.95, damping=0)) == {5}
    assert first(SearchFusion(meaning=0.05, damping=0)) == {2}


def test_a_release_without_search_says_what_it_lacks(stack: Stack) -> None:
    with pytest.raises(NoSearch, match=r"release 1 has neither searchsage nor lexical .*run `corkboard train`"):
        search(stack, "cake")
    assert run(stack.service.suggestions(SuggestionsRequest(prefix="c"))).queries == []


def test_a_part_that_fails_costs_its_results_only(searching: Stack) -> None:
    searching.release.queries.encoder.broken = True
    answer = search(searching, "benches yoga")
    assert answer.missing == ["searchsage: RuntimeError"] and answer.pins


def test_a_search_is_the_same_with_retrieval_and_ranking_elsewhere(searching: Stack) -> None:
    holder = FixedHolder(searching.release)
    there = RetrievalParts(searching.pool, holder)  # type: ignore[arg-type]
    ranking_there = RankingParts(searching.pool, FixedHolder(by_words(searching.release, 5.0)))  # type: ignore[arg-type]

    async def nothing(request: object) -> object:
        raise AssertionError("a search asks for no light scores and no ads")

    engines = Engines(
        searching.pool,
        RemoteRetrieval(lambda asked: retrieval.retrieve(there, asked)),
        RemoteRanking(nothing, lambda asked: ranking.rank(ranking_there, asked), nothing),  # type: ignore[arg-type]
    )
    here = replace(searching.service, release=lambda: by_words(searching.release, 5.0))
    asked = SearchRequest(query=f"oak tabels {pin_of(4, 9)}", user_id=COOK, limit=30)
    remote, local = (run(service.search(asked)) for service in (replace(here, engines=engines), here))
    assert remote.missing == [] and counts(remote) == counts(local)
    assert [pin.pin_id for pin in remote.pins] == [pin.pin_id for pin in local.pins]
    assert remote.pins[0].pin_id == pin_of(4, 9) and remote.utility == local.utility


def test_results_are_logged_with_what_was_searched_for(searching: Stack) -> None:
    answer = search(searching, "Chocolate Cake", user_id=COOK)
    searching.service.impressions.close()
    logged = [r for r in read(searching.events, STREAM) if r.request_id == answer.request_id]
    assert [r.pin_id for r in logged] == [pin.pin_id for pin in answer.pins]
    assert {(r.surface, r.query) for r in logged} == {("search", "chocolate cake")}


def test_each_impression_repeats_the_beginning_of_a_long_query(searching: Stack) -> None:
    answer = search(searching, "Cake " * 200, user_id=COOK)
    searching.service.impressions.close()
    logged = {r.query for r in read(searching.events, STREAM) if r.request_id == answer.request_id}
    assert logged == {("cake " * 200)[:LOGGED_QUERY].rstrip()}


def test_suggestions_begin_as_typed(searching: Stack) -> None:
    def suggested(prefix: str, limit: int = 8) -> list[str]:
        asked = SuggestionsRequest(prefix=prefix, limit=limit)
        return run(searching.service.suggestions(asked)).queries

    assert suggested("CHO") == ["chocolate cake"]
    assert suggested("ca") == ["carrot cake", "chocolate cake"]
    assert suggested("", limit=2) == ["chocolate cake", "garden bench"]
    assert suggested("zz") == []
    with pytest.raises(QueryTooLong, match="prefix has 3000 characters"):
        suggested("x" * 3000)


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        (PlantedEncoder(stands_on="pinsage@9"), "maps queries among the pins of pinsage@9"),
        (PlantedEncoder(dimension=DIM + 1), rf"{DIM + 1}-d; the release searches .*, {DIM}-d"),
    ],
)
def test_an_encoder_of_another_space_is_rejected(tmp_path, encoder: PlantedEncoder, words: str) -> None:
    release = replace(planted_release(tmp_path, search=True), queries=QueryVectors(encoder))
    with pytest.raises(ReleaseRejected, match=words):
        check_release(release)


def test_an_encoder_with_a_space_of_its_own_searches_that(tmp_path) -> None:
    release = planted_release(tmp_path, search=True)
    check, own = release.manifest.collections[0], "searchsage@1"
    said = release.manifest.model_copy(
        update={
            "parts": release.manifest.parts | {"searchsage": Part(model="searchsage", version=1, space=own)},
            "collections": (*release.manifest.collections, check.model_copy(update={"space": own})),
        }
    )
    release = replace(release, manifest=said, indexes={own: release.indexes[SPACE]} | dict(release.indexes))
    check_release(release)
    alone = replace(release, indexes={own: release.indexes[SPACE]})
    feed = Feed(Surface.SEARCH, alone, NOW_MS, limit=5, query="cake")
    assert len(searchsage.candidates(feed)) > 0


def test_words_are_loaded_with_the_release_and_damaged_ones_reject_it(tmp_path: Path, searching: Stack) -> None:
    searching.release.lexical.save(tmp_path)
    POPULAR.save(tmp_path)
    bare = replace(searching.release, lexical=None, popular_queries=PopularQueries({}))
    loaded = with_words(bare, SharedParts(lambda model, version: tmp_path))
    found, expected = (r.lexical.search("cake", 5)[0].tolist() for r in (loaded, searching.release))
    assert found == expected and loaded.popular_queries == POPULAR
    (tmp_path / "vocab.index.json").unlink()
    with pytest.raises(ReleaseRejected, match=r"lexical@1 cannot be read: .*train --model lexical --force"):
        with_words(bare, SharedParts(lambda model, version: tmp_path))
    SearchFusion(meaning=0.8).save(tmp_path)
    assert with_fusion(bare, SharedParts(lambda model, version: tmp_path)).fusion == SearchFusion(meaning=0.8)
    (tmp_path / "fusion.json").write_text("{")
    with pytest.raises(ReleaseRejected, match=r"(?s)searchsage@1 cannot be read: .*--model searchsage"):
        with_fusion(bare, SharedParts(lambda model, version: tmp_path))
    with pytest.raises(ReleaseRejected, match=r"searchsage@1 cannot be read: .*--model searchsage"):
        query_vectors(bare.manifest, SharedParts(lambda model, version: tmp_path / "nothing"))
