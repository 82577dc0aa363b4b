"""Whole answers on the planted catalogue: relevance, reasons, fallbacks, reports and refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from bentos.errors import BadId, BoardNotFound, LimitOutOfRange, OneSubject, PinNotFound
from bentos.log_segments import read
from bentos.messages import FeedAnswer, FeedRequest, PinsRequest, RelatedRequest, SuggestionsRequest
from feature_repo.sequence import merge
from tests.bentos.conftest import run
from tests.bentos.fakes import (
    COOK,
    FOLLOWER,
    GARDENER,
    NOW_MS,
    PINS,
    SAVE,
    SPACE,
    STRANGER,
    Stack,
    board_of,
    history,
    pin_of,
    topic_of,
)
from validation.events import ImpressionRecord, from_line, to_line, to_lines
from validation.tables import EntityKind


def feed(stack: Stack, user_id: int | str = COOK, limit: int = 20, **changes: object) -> FeedAnswer:
    return run(stack.service.homefeed(FeedRequest(user_id=user_id, limit=limit, **changes)))


def topics(answer: FeedAnswer) -> Counter[int]:
    return Counter(topic_of(int(p.pin_id)) for p in answer.pins)


def test_the_feed_is_about_the_users_interests(stack: Stack) -> None:
    assert topics(feed(stack, COOK))[1] > 20 / 6 * 1.5
    assert topics(feed(stack, GARDENER)).most_common(1)[0][0] == 2
    stranger = topics(feed(stack, STRANGER))
    assert len(stranger) == 6 and max(stranger.values()) <= 5


def test_an_answer_echoes_release_spaces_sources_and_stages(stack: Stack) -> None:
    answer = feed(stack)
    assert answer.release == 1 and answer.spaces == [SPACE]
    assert [p.position for p in answer.pins] == list(range(20))
    assert {p.source for p in answer.pins} <= {s.name for s in answer.sources}
    names = [s.name for s in answer.stages]
    assert names[0] == "user" and names[-2:] == ["cards", "log"]
    counts = [s.count for s in answer.stages[2:]]
    assert counts == sorted(counts, reverse=True) and counts[-1] == 20, "a funnel only narrows"
    assert all(s.ms >= 0 for s in answer.stages) and answer.missing == [] and answer.fallback is None
    assert sum(s.count for s in answer.sources) >= counts[0]


def test_an_answer_shows_the_users_interests_and_which_were_asked(stack: Stack) -> None:
    answer = feed(stack)
    assert [(i.pin_id, i.importance, i.size) for i in answer.interests] == [(21, 0.5, 1), (22, 0.5, 1)]
    asked = {i.pin_id for i in answer.interests if i.asked}
    assert asked and {p.why.pin_id for p in answer.pins if p.why.kind == "interest"} <= asked
    assert feed(stack, STRANGER).interests == []


def test_no_pin_twice_and_never_more_than_asked(stack: Stack) -> None:
    for limit in (1, 7, 50, 200):
        pins = [p.pin_id for p in feed(stack, FOLLOWER, limit).pins]
        assert len(pins) == len(set(pins)) <= limit


def test_topics_do_not_crowd_the_feed(stack: Stack) -> None:
    places = [topic_of(int(p.pin_id)) for p in feed(stack, FOLLOWER, 40).pins]
    for start in range(len(places) - 8):
        assert max(Counter(places[start : start + 8]).values()) <= 3


def test_the_next_page_goes_on_where_the_last_one_ended(stack: Stack) -> None:
    first = [p.pin_id for p in feed(stack, limit=30).pins]
    second = [p.pin_id for p in feed(stack, limit=30, exclude=first).pins]
    assert not set(first) & set(second)


def test_a_small_catalogue_never_ends_the_feed(stack: Stack) -> None:
    for user, limit in ((FOLLOWER, 50), (GARDENER, 10), (COOK, 10)):
        for _ in range(60):
            assert len(feed(stack, user, limit).pins) == limit


def test_an_action_shows_in_the_next_feed(stack: Stack) -> None:
    before = topics(feed(stack, FOLLOWER))[3]
    stack.features.push_sequences(
        {FOLLOWER: history([pin_of(3, p) for p in (40, 41, 42)], SAVE, first_event=9_000)}
    )
    after = feed(stack, FOLLOWER)
    assert topics(after)[3] > before
    liked = [p for p in after.pins if p.why.kind == "recent"]
    assert topic_of(int(liked[0].pin_id)) == 3
    assert liked[0].why.text.startswith("Because you just liked Pin ")


def test_a_hidden_pin_and_its_like_do_not_come_back(stack: Stack) -> None:
    shown = feed(stack, GARDENER).pins[0]
    sequence = stack.features.user(GARDENER, None).sequence
    hidden = history([int(shown.pin_id)], 6, first_event=8_000)
    stack.features.push_sequences({GARDENER: merge(sequence, hidden.events())})
    for _ in range(5):
        assert shown.pin_id not in [p.pin_id for p in feed(stack, GARDENER, 200).pins]


def test_every_pin_says_why(stack: Stack) -> None:
    texts = {p.why.kind: p.why for p in feed(stack, FOLLOWER, 60).pins}
    assert texts["board"].text == "From a board you follow"
    assert texts["topic"].text in ("Because you follow Topic 5", "Because you follow Topic 6")
    assert texts["topic"].topic_id in (5, 6)
    interest = next(p.why for p in feed(stack, GARDENER, 60).pins if p.why.kind == "interest")
    assert interest.text == f"Inspired by Pin {pin_of(2, 10)}" and interest.pin_id == pin_of(2, 10)


def test_an_unknown_user_gets_what_is_popular_and_is_told(stack: Stack) -> None:
    answer = feed(stack, STRANGER)
    assert answer.fallback == "unknown user: popular by topic"
    assert {p.source for p in answer.pins} == {"popular_by_topic"}


def test_related_pins_are_near_and_never_the_pin_itself(stack: Stack) -> None:
    asked = pin_of(4, 3)
    answer = run(stack.service.related(RelatedRequest(pin_id=asked, limit=25)))
    assert {topic_of(int(p.pin_id)) for p in answer.pins} == {4}
    assert asked not in [p.pin_id for p in answer.pins]
    assert {p.why.text for p in answer.pins} == {f"Similar to Pin {asked}", f"Often saved with Pin {asked}"}
    for source in ("similar_pins", "saved_together"):
        assert sum(p.source == source for p in answer.pins) > 5


def test_related_to_a_board(stack: Stack) -> None:
    stack.features.board_pins[board_of(2)] = np.array([pin_of(2, 0), pin_of(2, 3)])
    answer = run(stack.service.related(RelatedRequest(board_id=board_of(2), limit=12)))
    assert {topic_of(int(p.pin_id)) for p in answer.pins} == {2}
    assert {p.source for p in answer.pins} == {"similar_pins", "saved_together"}
    assert not {pin_of(2, 0), pin_of(2, 3)} & {p.pin_id for p in answer.pins}
    assert answer.fallback is None


def test_a_board_that_only_the_graph_knows(stack: Stack) -> None:
    answer = run(stack.service.related(RelatedRequest(board_id=board_of(5, 2), limit=10)))
    assert {topic_of(int(p.pin_id)) for p in answer.pins} == {5} and answer.fallback is None
    assert {p.source for p in answer.pins} == {"similar_pins", "saved_together"}


def test_related_to_one_thing_at_a_time(stack: Stack) -> None:
    with pytest.raises(BoardNotFound, match="board 424242 holds no pin that release 1 knows"):
        run(stack.service.related(RelatedRequest(board_id=424242)))
    for request in (RelatedRequest(), RelatedRequest(pin_id=1, board_id=board_of(1))):
        with pytest.raises(OneSubject, match="name pin_id or board_id"):
            run(stack.service.related(request))


def test_a_pin_never_seen_is_not_found(stack: Stack) -> None:
    with pytest.raises(PinNotFound, match=f"pin {PINS + 1} is not in the catalogue of release 1"):
        run(stack.service.related(RelatedRequest(pin_id=PINS + 1)))


@pytest.mark.parametrize("limit", [0, -1, 201, 10_000])
def test_limits_are_named(stack: Stack, limit: int) -> None:
    with pytest.raises(LimitOutOfRange, match=str(limit)):
        feed(stack, limit=limit)
    with pytest.raises(LimitOutOfRange, match=str(limit)):
        run(stack.service.related(RelatedRequest(pin_id=1, limit=limit)))
    with pytest.raises(LimitOutOfRange, match=f"limit is {limit}; ask for 1 to 200 suggestions"):
        run(stack.service.suggestions(SuggestionsRequest(limit=limit)))


def test_ten_thousand_ids_are_refused_by_name(stack: Stack) -> None:
    with pytest.raises(LimitOutOfRange, match="exclude names 10000 pins"):
        feed(stack, exclude=list(range(1, 10_001)))
    with pytest.raises(LimitOutOfRange, match="pin_ids names 10000 pins"):
        run(stack.service.pins(PinsRequest(pin_ids=list(range(1, 10_001)))))
    with pytest.raises(LimitOutOfRange, match="pin_ids names 0 pins"):
        run(stack.service.pins(PinsRequest(pin_ids=[])))


@pytest.mark.parametrize("user", [0, -4, "abc", "", 2**63])
def test_ids_of_the_wrong_kind_are_named(stack: Stack, user: int | str) -> None:
    with pytest.raises(BadId, match="user id"):
        feed(stack, user)


def test_digits_stand_for_their_number(stack: Stack) -> None:
    assert topics(feed(stack, str(GARDENER))).most_common(1)[0][0] == 2


def test_cards_in_order_and_unknown_ones_apart(stack: Stack) -> None:
    answer = run(stack.service.pins(PinsRequest(pin_ids=[3, 9_999, 1])))
    assert [p.pin_id for p in answer.pins] == [3, 1] and answer.unknown == [9_999]
    assert answer.pins[0].title == "Pin 3" and answer.pins[0].topics[0].name == "Topic 1"


@pytest.mark.parametrize("down", ["boards", "popular", "pins", "cards", "user"])
def test_any_store_read_may_be_down(stack_of: Callable[..., Stack], down: str) -> None:
    stack = stack_of()
    stack.features.broken.add(down)
    answer = feed(stack, FOLLOWER)
    assert answer.missing, "the answer says what it is without"
    assert len(answer.pins) > 0 or down == "popular"
    assert all("ConnectionError" in part or part.startswith("rank") for part in answer.missing)


def test_with_every_store_down_pins_are_bare_and_those_of_the_load(stack_of: Callable[..., Stack]) -> None:
    stack = stack_of()
    stack.features.broken.update({"user", "boards", "popular", "pins", "cards", "vectors"})
    answer = feed(stack, STRANGER)
    kept = stack.release.popular.pin_ids.tolist()
    assert len(answer.pins) == 20 and {pin.pin_id for pin in answer.pins} <= set(kept)
    assert {pin.title for pin in answer.pins} == {""} and "popular_by_topic: ConnectionError" in answer.missing


def test_a_release_without_a_ranker_serves_in_merge_order_and_says_so(stack_of: Callable[..., Stack]) -> None:
    stack = stack_of(ranker=None)
    answer = feed(stack)
    assert answer.missing == ["rank: NoRanker"] and len(answer.pins) == 20


def test_a_stale_view_is_named(stack: Stack) -> None:
    from dataclasses import replace

    stack.features.users[COOK] = replace(stack.features.users[COOK], stale=("user_profile",))
    assert feed(stack).missing == ["stale: user_profile"]


def test_what_was_shown_is_logged_as_it_was_shown(stack: Stack) -> None:
    answer = feed(stack, FOLLOWER)
    stack.service.impressions.close()
    logged = [r for r in read(stack.events, "impressions") if r.user_id == FOLLOWER]
    assert all(isinstance(r, ImpressionRecord) for r in logged)
    assert [(r.pin_id, r.position, r.source) for r in logged] == [
        (p.pin_id, p.position, p.source) for p in answer.pins
    ]
    assert {r.request_id for r in logged} == {answer.request_id} and {r.release for r in logged} == {1}
    assert {r.propensity for r in logged} == {1.0} and {r.stage for r in logged} == {"ranked"}
    assert {r.timestamp_ms for r in logged} == {NOW_MS} and {r.surface for r in logged} == {"homefeed"}
    for impression, pin in zip(logged, answer.pins, strict=True):
        assert impression.source_topic == (pin.why.topic_id or None)
        assert impression.anchor is None, "a follower's pins come from topics and boards"


def test_impressions_are_written_as_records_are(stack: Stack) -> None:
    for user in (FOLLOWER, GARDENER):
        feed(stack, user)
    run(stack.service.related(RelatedRequest(pin_id=pin_of(1, 1), user_id=COOK)))
    stack.service.impressions.close()
    lines = [line for file in stack.events.glob("impressions-*") for line in file.open("rb")]
    assert len(lines) > 60 and [to_line(from_line(line)) for line in lines] == lines


def test_lines_written_at_once_are_those_of_records() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 2**32, 3_000, np.uint32).view(np.float32)
    numbers = [*drawn[np.isfinite(drawn)].tolist(), *rng.random(3_000).round(6).tolist(), 0.0, -0.0, 1e16]
    given = {"event_id": 1, "user_id": 2, "timestamp_ms": 3, "pin_id": 4, "kind": "impression"}
    given |= {"request_id": 5, "position": 0}
    records = [{**given, "score": score, "query": 'a\n},{"event_id":é'} for score in numbers]
    assert to_lines(records) == tuple(to_line(ImpressionRecord(**record)) for record in records)


def test_impressions_name_the_topic_that_conditional_retrieval_searched(
    stack_of: Callable[..., Stack],
) -> None:
    stack = stack_of(learned=True)
    answer = feed(stack, FOLLOWER, 200)
    stack.service.impressions.close()
    logged = [r for r in read(stack.events, "impressions") if r.source == "conditional"]
    assert len(logged) > 10 and all(isinstance(r, ImpressionRecord) for r in logged)
    assert {(r.source_topic, topic_of(r.pin_id)) for r in logged} == {(5, 5)}, (
        "the last topic is not known to it"
    )
    texts = {p.why.text for p in answer.pins if p.source == "conditional"}
    assert texts == {"Because you follow Topic 5"}


def test_impressions_name_the_medoid_that_brought_a_pin(stack: Stack) -> None:
    answer = feed(stack, GARDENER)
    stack.service.impressions.close()
    logged = [r for r in read(stack.events, "impressions") if r.user_id == GARDENER]
    anchors = {r.anchor for r in logged if isinstance(r, ImpressionRecord) and r.source == "pinnersage"}
    assert anchors == {pin_of(2, 10)}
    for impression, pin in zip(logged, answer.pins, strict=True):
        assert isinstance(impression, ImpressionRecord) and impression.anchor == pin.why.pin_id


def test_a_closed_log_never_costs_an_answer(stack: Stack) -> None:
    stack.service.impressions.close()
    assert len(feed(stack).pins) == 20


def test_string_ids_outside_numbers_inside(stack_of: Callable[..., Stack]) -> None:
    kinds = frozenset({EntityKind.USER, EntityKind.PIN})
    stack = stack_of(string_ids=kinds)
    id_map = stack.release.ids._map
    id_map.encode(EntityKind.PIN, [f"pin-{i}" for i in range(1, PINS + 1)])
    id_map.encode(EntityKind.USER, ["ann", "bob", "cyd"])
    answer = feed(stack, "bob")
    inside = [int(str(p.pin_id).removeprefix("pin-")) for p in answer.pins]
    assert Counter(map(topic_of, inside)).most_common(1)[0][0] == 2
    assert answer.user_id == "bob" and str(answer.pins[0].why.pin_id or "pin-").startswith("pin-")
    assert feed(stack, "nobody").fallback == "unknown user: popular by topic"
    related = run(stack.service.related(RelatedRequest(pin_id="pin-1")))
    assert all(str(p.pin_id).startswith("pin-") for p in related.pins)
    with pytest.raises(PinNotFound):
        run(stack.service.related(RelatedRequest(pin_id="pin-none")))


def test_a_feed_costs_a_handful_of_reads_whatever_its_size(stack: Stack) -> None:
    stack.features.calls.clear()
    feed(stack, FOLLOWER, 200)
    reads = Counter(stack.features.calls)
    assert reads["user"] == 1 and reads["cards"] == 1 and reads["boards"] == 1
    assert reads["pins"] <= 2 and reads["popular"] <= 2 and sum(reads.values()) <= 8


def test_request_ids_are_distinct_and_safe_in_json(stack: Stack) -> None:
    ids = [feed(stack, limit=1).request_id for _ in range(50)]
    assert len(set(ids)) == 50 and max(ids) < 2**53 and min(ids) > 0
    assert np.all(np.array(ids) > 0)
