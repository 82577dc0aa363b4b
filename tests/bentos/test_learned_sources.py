"""PinnerFormer, DCM, conditional retrieval and the two-tower on planted users: what each brings, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bentos import light_scores
from bentos.candidates import Candidates
from bentos.features import UserVector
from bentos.feed import Feed, Surface
from bentos.networks import Learned, Networks
from bentos.sources import conditional, dcm, pinnerformer, two_tower
from bentos.turns import in_turns
from feature_repo.sequence import Event, Sequence
from feature_repo.vectors.index import Hits
from feature_repo.vectors.replica import Replica
from feature_repo.vectors.rows import PinRows
from tests.bentos.fakes import (
    COOK,
    FOLLOWER,
    GARDENER,
    HIDE,
    NOW_MS,
    PER_TOPIC,
    PINS,
    SAVE,
    STRANGER,
    TOPICS,
    Stack,
    history,
    pin_of,
    topic_of,
)
from tests.bentos.planted_networks import WIDTHS, item_vectors, space_of

SOURCES = {
    Learned.PINNERFORMER: pinnerformer.candidates,
    Learned.DCM: dcm.candidates,
    Learned.CONDITIONAL: conditional.candidates,
    Learned.TWO_TOWER: two_tower.candidates,
}


@pytest.fixture
def learned(stack_of: Callable[..., Stack]) -> Stack:
    """A planted stack whose release has all four networks."""
    return stack_of(learned=True)


def feed_for(stack: Stack, user_id: int, seed: int = 1, **changes: object) -> Feed:
    release = stack.release
    feed = Feed(Surface.HOMEFEED, release, NOW_MS, 20, user_id=user_id, seed=seed)
    user = release.features.user(user_id, release.pin_space, release.user_spaces)
    feed.user = replace(user, **changes)
    return feed


def vectors_of(stack: Stack, role: Learned) -> np.ndarray:
    return item_vectors(stack.release.networks, stack.features.matrix)[role]


def nearest(query: np.ndarray, vectors: np.ndarray, count: int) -> list[int]:
    return (np.argsort(-(vectors @ query), kind="stable")[:count] + 1).tolist()


def test_pinnerformer_brings_what_is_nearest_to_last_nights_vector(learned: Stack) -> None:
    rows = vectors_of(learned, Learned.PINNERFORMER)
    stored = UserVector(rows[pin_of(5, 3) - 1], NOW_MS)
    feed = feed_for(learned, COOK, vectors={space_of(Learned.PINNERFORMER): stored})
    found = pinnerformer.candidates(feed)
    assert found.pin_ids.tolist() == nearest(stored.vector, rows, len(found)) and len(found) == PINS
    assert set(found.kinds) == {"next"} and not found.anchors.any()


def test_what_was_done_since_last_night_makes_a_new_vector(learned: Stack) -> None:
    """And a user without a row, new since then, gets one; a row that knows everything is taken as it is."""
    space = space_of(Learned.PINNERFORMER)
    stored = np.ones(WIDTHS[Learned.PINNERFORMER], np.float32)
    newest = learned.features.users[COOK].sequence.newest_ms
    fresh = feed_for(learned, COOK, vectors={space: UserVector(stored, newest + 1)})
    assert pinnerformer.user_vector(fresh) is stored
    behind = feed_for(learned, COOK, vectors={space: UserVector(stored, newest)})
    new = pinnerformer.user_vector(feed_for(learned, COOK, vectors={}))
    made = pinnerformer.user_vector(behind)
    assert made is not None and new is not None
    np.testing.assert_array_equal(made, new)
    np.testing.assert_allclose(np.linalg.norm(made), 1.0, rtol=1e-5)


def test_a_process_without_the_network_serves_last_nights_vector_however_old(learned: Stack) -> None:
    stored = UserVector(np.ones(WIDTHS[Learned.PINNERFORMER], np.float32), 1)
    feed = feed_for(learned, COOK, vectors={space_of(Learned.PINNERFORMER): stored})
    feed.release = replace(learned.release, networks=Networks())
    assert pinnerformer.user_vector(feed) is stored.vector
    feed.user = replace(feed.user, vectors={})
    assert pinnerformer.user_vector(feed) is None and len(pinnerformer.candidates(feed)) == 0


def test_interests_share_one_budget_by_weight(learned: Stack) -> None:
    likes = [pin_of(t, p) for t, count in ((1, 9), (3, 3), (5, 3)) for p in range(count)]
    feed = feed_for(learned, COOK, sequence=history(likes))
    interests = dcm.user_interests(feed)
    assert interests is not None and len(interests) > 1
    found = dcm.candidates(feed)
    assert 0 < len(found) <= dcm.CANDIDATES and len(set(found.pin_ids.tolist())) == len(found)
    rows = vectors_of(learned, Learned.DCM)
    first = [nearest(vector, rows, 1)[0] for vector in interests.vectors]
    assert found.pin_ids[: len(set(first))].tolist() == list(dict.fromkeys(first)), (
        "every interest's best first"
    )


def test_an_interest_names_the_liked_pin_it_stands_by(learned: Stack) -> None:
    likes = [pin_of(t, p) for t in (1, 4) for p in range(6)]
    feed = feed_for(learned, COOK, sequence=history(likes))
    found = dcm.candidates(feed)
    named = found.take(found.anchors > 0)
    assert len(named) and set(named.anchors.tolist()) <= set(likes)
    assert set(named.kinds) == {"interest"}
    assert set(found.take(found.anchors == 0).kinds) <= {"taste"}
    interests, rows = dcm.user_interests(feed), vectors_of(learned, Learned.DCM)
    assert interests is not None
    liked = rows[np.array(likes) - 1]
    assert set(named.anchors.tolist()) <= {likes[i] for i in (interests.vectors @ liked.T).argmax(axis=1)}


def test_hidden_pins_are_no_anchor(learned: Stack) -> None:
    feed = feed_for(learned, GARDENER)
    hidden = {int(p) for p in feed.user.sequence.pin_ids[feed.negative_rows()]}
    assert hidden and not hidden & set(dcm.candidates(feed).anchors.tolist())


def test_topics_share_one_budget_equally_and_bring_only_their_own(learned: Stack) -> None:
    feed = feed_for(learned, FOLLOWER, followed_topics=np.array([1, 3, TOPICS]))
    found = conditional.candidates(feed)
    assert Counter(map(topic_of, found.pin_ids.tolist())) == {1: PER_TOPIC, 3: PER_TOPIC}, (
        "a topic has fewer pins than its share, and the last one the model never met"
    )
    assert found.anchors.tolist() == [topic_of(p) for p in found.pin_ids.tolist()]
    assert set(found.kinds) == {"topic"} and found.anchors[:4].tolist() == [1, 3, 1, 3]
    user, rows = conditional.under_topics(feed), vectors_of(learned, Learned.CONDITIONAL)
    assert user is not None
    of_topic = np.arange(pin_of(3), pin_of(3) + PER_TOPIC)
    wanted = of_topic[np.argsort(-(rows[of_topic - 1] @ user.vectors[1]), kind="stable")]
    assert found.pin_ids[found.anchors == 3].tolist() == wanted.tolist()


def test_shares_of_topics_are_equal(learned: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional, "CANDIDATES", 33)
    found = conditional.candidates(feed_for(learned, FOLLOWER, followed_topics=np.array([1, 2, 3])))
    assert Counter(found.anchors.tolist()) == {1: 11, 2: 11, 3: 11}


def test_at_most_five_topics_are_drawn_and_the_request_draws_them(learned: Stack) -> None:
    network = learned.release.networks.conditional
    assert network is not None
    network.topics = tuple(range(1, TOPICS + 1))  # one condition more than it was trained with is never read
    draws = set()
    for seed in range(12):
        feed = feed_for(learned, FOLLOWER, seed=seed, followed_topics=np.arange(1, TOPICS + 1))
        drawn = conditional.sampled_topics(feed)
        assert len(drawn) == 5 == len(set(drawn.tolist()))
        assert drawn.tolist() == conditional.sampled_topics(feed).tolist()
        draws.add(tuple(sorted(drawn.tolist())))
    assert len(draws) > 1


def test_the_two_tower_brings_its_largest_products(learned: Stack) -> None:
    feed = feed_for(learned, COOK)
    found = two_tower.candidates(feed)
    user, rows = light_scores.user_vector(feed), vectors_of(learned, Learned.TWO_TOWER)
    assert found.pin_ids.tolist() == nearest(user, rows, PINS)
    assert set(found.kinds) == {"taste"} and not found.anchors.any()
    np.testing.assert_allclose(found.scores[:5], (rows @ user)[found.pin_ids[:5] - 1], rtol=1e-5)


SEQUENCES = {
    "none": Sequence.empty(),
    "one": history([pin_of(2)]),
    "two": history([pin_of(2), pin_of(4)]),
    "all equal": Sequence.of([Event(i, pin_of(3), SAVE, 1, NOW_MS - 1000) for i in range(1, 101)]),
    "all unknown": history([9_001, 9_002, 9_003]),
    "all hidden": history([pin_of(1), pin_of(2)], HIDE),
    "some unknown": history([9_001, pin_of(1), 9_002, pin_of(2)]),
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("role", Learned)
def test_odd_histories_have_defined_answers(learned: Stack, role: Learned, name: str) -> None:
    topics = np.array([1, 2])
    feed = feed_for(learned, COOK, sequence=SEQUENCES[name], followed_topics=topics)
    found = SOURCES[role](feed)
    assert np.isfinite(found.scores).all() and len(set(found.pin_ids.tolist())) == len(found)
    silent = role is Learned.PINNERFORMER and name == "none"
    assert (len(found) == 0) is silent


@pytest.mark.parametrize("role", Learned)
def test_a_stranger_and_a_release_without_the_part_get_nothing(learned: Stack, role: Learned) -> None:
    assert len(SOURCES[role](feed_for(learned, STRANGER))) == 0
    feed = feed_for(learned, COOK, followed_topics=np.array([1]))
    assert len(SOURCES[role](feed)) > 0
    for without in ({"networks": Networks()}, {"indexes": {}}):
        feed.release = replace(learned.release, **without)
        assert len(SOURCES[role](feed)) == 0


def test_a_user_who_follows_nothing_the_model_knows(learned: Stack) -> None:
    for followed in (np.empty(0, np.int64), np.array([TOPICS, 77])):
        assert len(conditional.candidates(feed_for(learned, COOK, followed_topics=followed))) == 0


def test_fewer_pins_than_interests_and_topics_without_pins(learned: Stack) -> None:
    """A catalogue of three pins without any topic: every list is short, none is wrong."""
    few, indexes = np.array([1, 2, 3]), dict(learned.release.indexes)
    for role in Learned:
        rows = PinRows.of(few, vectors_of(learned, role)[:3], [[]] * 3, np.full(3, NOW_MS), np.ones(3))
        indexes[space_of(role)] = Replica.of("few", rows)
    small = replace(learned, release=replace(learned.release, indexes=indexes))
    likes = history([pin_of(t, p) for t in range(1, 6) for p in range(3)])
    feed = feed_for(small, COOK, sequence=likes, followed_topics=np.array([1, 2]))
    for role, source in SOURCES.items():
        expected = set() if role is Learned.CONDITIONAL else {1, 2, 3}
        assert set(source(feed).pin_ids.tolist()) == expected, role


def test_turns_keep_each_querys_share_and_each_pin_once() -> None:
    ids = np.array([[1, 2, 3, 4], [2, 5, 6, 0], [0, 0, 0, 0]])
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.5, 0.4, 0.3, -np.inf], [-np.inf] * 4], np.float32)
    found = in_turns(Hits(ids, scores), np.array([3, 4, 1]))
    assert found.pin_ids.tolist() == [1, 2, 5, 3, 6] and found.owners.tolist() == [0, 1, 1, 0, 1]
    np.testing.assert_allclose(found.scores, [0.9, 0.5, 0.4, 0.7, 0.3])


def test_light_scores_are_the_towers_products_and_a_new_pin_is_average(learned: Stack) -> None:
    feed = feed_for(learned, COOK)
    feed.candidates = Candidates.of("any", [5, PINS + 1, 9, 200], np.zeros(4), 0, "popular")
    rows, user = vectors_of(learned, Learned.TWO_TOWER), light_scores.user_vector(feed)
    known = rows[[4, 8, 199]] @ user
    np.testing.assert_allclose(light_scores.score(feed)[[0, 2, 3]], known, rtol=1e-5)
    assert light_scores.score(feed)[1] == pytest.approx(known.mean(), rel=1e-5)
    feed.candidates = Candidates.of("any", [PINS + 1], np.zeros(1), 0, "popular")
    with pytest.raises(light_scores.NoTwoTower, match="knows none of the 1 candidates"):
        light_scores.score(feed)
    feed.release = replace(learned.release, networks=Networks())
    with pytest.raises(light_scores.NoTwoTower, match="has no two-tower in this process"):
        light_scores.score(feed)
