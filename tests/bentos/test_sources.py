"""Each source on planted users: what it brings, from where, and when it brings nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bentos.feed import Feed, Surface
from bentos.sources import (
    followed_boards,
    followed_topics,
    pinnersage,
    pixie,
    popular_by_topic,
    saved_together,
    similar_pins,
)
from tests.bentos.fakes import (
    COOK,
    DIM,
    FOLLOWER,
    GARDENER,
    NOW_MS,
    PER_TOPIC,
    SPACE,
    STRANGER,
    TOPICS,
    Stack,
    board_of,
    history,
    pin_of,
    topic_of,
)


def feed_for(stack: Stack, user_id: int, *, seed: int = 1, pin_id: int = 0, board_id: int = 0) -> Feed:
    surface = Surface.RELATED if pin_id or board_id else Surface.HOMEFEED
    feed = Feed(
        surface, stack.release, NOW_MS, 20, user_id=user_id, pin_id=pin_id, board_id=board_id, seed=seed
    )
    feed.user = stack.features.user(user_id, stack.release.pin_space)
    return feed


def topics_of(pins: np.ndarray) -> Counter[int]:
    return Counter(topic_of(p) for p in pins.tolist())


def test_pinnersage_brings_neighbours_of_the_users_interests(stack: Stack) -> None:
    found = pinnersage.candidates(feed_for(stack, GARDENER))
    assert topics_of(found.pin_ids[:30])[2] == 30
    assert set(found.anchors.tolist()) == {pin_of(2, 10)} and set(found.kinds) == {"interest"}
    assert (np.diff(found.scores) <= 1e-6).all()


def test_pinnersage_takes_medoids_in_turns(stack: Stack) -> None:
    found = pinnersage.candidates(feed_for(stack, COOK))
    assert len(set(found.anchors[:2].tolist())) == 2
    assert found.anchors[0] == found.anchors[2] and found.anchors[1] == found.anchors[3]


def test_what_was_done_today_is_searched_today(stack: Stack) -> None:
    """A gardener who just saved pins of topic 6 gets neighbours of them, whatever the draw."""
    saved = history([pin_of(6, p) for p in range(3)], first_event=500)
    user = stack.features.users[GARDENER]
    stack.features.users[GARDENER] = replace(user, sequence=saved)
    for seed in range(12):
        found = pinnersage.candidates(feed_for(stack, GARDENER, seed=seed))
        recent = found.take(np.array(found.kinds) == "recent")
        assert topics_of(recent.pin_ids[:20])[6] == 20
        assert all(topic_of(a) == 6 for a in recent.anchors.tolist())


def test_what_lies_far_from_an_interest_is_not_its_neighbour(stack: Stack) -> None:
    """160 neighbours are asked for and a topic has 60 pins; the rest of the answer is not about it."""
    found = pinnersage.candidates(feed_for(stack, GARDENER))
    assert topics_of(found.pin_ids)[2] == len(found) <= 59
    assert pin_of(2, 10) not in found.pin_ids, "the medoid itself was acted on"
    assert found.scores.min() >= pinnersage.NEAR * found.scores.max()


def test_draws_are_seeded(stack: Stack) -> None:
    one, same = (pinnersage.candidates(feed_for(stack, COOK, seed=4)) for _ in range(2))
    assert one.pin_ids.tolist() == same.pin_ids.tolist()


@pytest.mark.parametrize("user", [STRANGER, FOLLOWER])
def test_no_interests_no_pinnersage(stack: Stack, user: int) -> None:
    assert len(pinnersage.candidates(feed_for(stack, user))) == 0


def test_a_release_without_pinnersage_or_vectors_brings_nothing(stack: Stack) -> None:
    feed = feed_for(stack, COOK)
    for without in ({"pinnersage": None}, {"indexes": {}}, {"pin_space": None}):
        feed.release = replace(stack.release, **without)
        assert len(pinnersage.candidates(feed)) == 0


def test_followed_boards_newest_first(stack: Stack) -> None:
    found = followed_boards.candidates(feed_for(stack, FOLLOWER))
    assert found.pin_ids.tolist() == stack.features.board_pins[700].tolist()
    assert set(found.anchors.tolist()) == {700} and set(found.kinds) == {"board"}
    assert len(followed_boards.candidates(feed_for(stack, COOK))) == 0


def test_many_boards_cost_one_read(stack: Stack) -> None:
    boards = np.arange(700, 900)
    stack.features.board_pins.update({int(b): np.array([int(b) - 690, int(b) - 650]) for b in boards})
    stack.features.users[FOLLOWER] = replace(stack.features.users[FOLLOWER], followed_boards=boards)
    stack.features.calls.clear()
    found = followed_boards.candidates(feed_for(stack, FOLLOWER))
    assert stack.features.calls.count("boards") == 1
    assert len(set(found.anchors.tolist())) == followed_boards.BOARDS
    assert len(set(found.anchors[: followed_boards.BOARDS].tolist())) == followed_boards.BOARDS, "in turns"


def test_a_board_that_is_gone_is_no_error(stack: Stack) -> None:
    user = stack.features.users[FOLLOWER]
    stack.features.users[FOLLOWER] = replace(user, followed_boards=np.array([12345]))
    assert len(followed_boards.candidates(feed_for(stack, FOLLOWER))) == 0


def test_followed_topics_share_equally(stack: Stack) -> None:
    found = followed_topics.candidates(feed_for(stack, FOLLOWER))
    assert topics_of(found.pin_ids)[5] == topics_of(found.pin_ids)[6] == len(found) // 2
    assert topics_of(found.pin_ids[:10]) == {5: 5, 6: 5}
    assert all(topic_of(p) == a for p, a in zip(found.pin_ids.tolist(), found.anchors.tolist(), strict=True))


def test_popular_is_of_the_users_own_topics(stack: Stack) -> None:
    found = popular_by_topic.candidates(feed_for(stack, COOK))
    assert set(found.anchors.tolist()) == {0, 1}


def test_a_stranger_gets_every_topic(stack: Stack) -> None:
    found = popular_by_topic.candidates(feed_for(stack, STRANGER))
    assert set(found.anchors.tolist()) == {0, *range(1, TOPICS + 1)}
    assert len(set(found.pin_ids[:7].tolist())) >= TOPICS


def test_a_catalogue_without_topics_still_answers_a_stranger(stack: Stack) -> None:
    feed = feed_for(stack, STRANGER)
    feed.release = replace(stack.release, topics={})
    found = popular_by_topic.candidates(feed)
    assert len(found) == 40 and set(found.anchors.tolist()) == {0}


def test_neighbours_of_a_pin_share_its_topic(stack: Stack) -> None:
    asked = pin_of(3, 7)
    found = similar_pins.candidates(feed_for(stack, 0, pin_id=asked))
    assert topics_of(found.pin_ids[:30])[3] == 30
    assert set(found.kinds) == {"similar"} and set(found.anchors.tolist()) == {asked}
    exact = stack.features.matrix @ stack.features.matrix[asked - 1]
    assert found.pin_ids[:20].tolist() == (np.argsort(-exact)[1:21] + 1).tolist(), (
        "nearest first, itself left out"
    )


def test_a_pin_without_a_vector_falls_back_on_its_topic_and_says_so(stack: Stack) -> None:
    asked = pin_of(3, 7)
    feed = feed_for(stack, 0, pin_id=asked)
    features = replace(stack.features, matrix=np.zeros_like(stack.features.matrix))
    feed.release = replace(stack.release, indexes={}, features=features)
    found = similar_pins.candidates(feed)
    assert topics_of(found.pin_ids)[3] == len(found) > 0
    assert feed.fallback is not None and "no vector" in feed.fallback
    assert stack.release.dim(SPACE) == DIM and stack.release.dim(None) == 0


def test_similar_pins_of_a_board_take_turns_around_its_newest(stack: Stack) -> None:
    newest = np.array([pin_of(2, 5), pin_of(4, 5), pin_of(6, 5), pin_of(1, 5)])
    stack.features.board_pins[700] = newest
    found = similar_pins.candidates(feed_for(stack, 0, board_id=700))
    assert [topic_of(p) for p in found.pin_ids[:6].tolist()] == [2, 4, 6] * 2
    assert set(found.anchors.tolist()) == set(newest[: similar_pins.BOARD_PINS].tolist())
    assert not np.isin(newest, found.pin_ids).any(), "what is on the board is no news"


def test_pixie_walks_from_what_the_user_liked_and_never_from_what_they_hid(stack: Stack) -> None:
    found = pixie.candidates(feed_for(stack, GARDENER))
    assert topics_of(found.pin_ids)[2] == len(found) > 40
    assert set(found.kinds) == {"together"} and (np.diff(found.scores) <= 0).all()
    liked = stack.features.users[GARDENER].sequence.pin_ids
    assert not np.isin(found.pin_ids, liked).any()
    again = pixie.candidates(feed_for(stack, GARDENER))
    assert again.pin_ids.tolist() == found.pin_ids.tolist(), "walks are seeded by the request"


@pytest.mark.parametrize("user", [STRANGER, FOLLOWER])
def test_nobodys_history_is_not_walked(stack: Stack, user: int) -> None:
    assert len(pixie.candidates(feed_for(stack, user))) == 0


def test_saved_together_with_a_pin_or_a_board(stack: Stack) -> None:
    asked = pin_of(3, 7)
    found = saved_together.candidates(feed_for(stack, 0, pin_id=asked))
    assert topics_of(found.pin_ids)[3] == len(found) == PER_TOPIC - 2
    assert set(found.anchors.tolist()) == {asked}
    board = board_of(5, 1)
    found = saved_together.candidates(feed_for(stack, 0, board_id=board))
    on_it = stack.release.walker.now().graph  # type: ignore[union-attr]
    held = on_it.ids_of(on_it.pins_of(int(on_it.board_index_of([board])[0])))
    assert topics_of(found.pin_ids)[5] == len(found) > 0 and not np.isin(found.pin_ids, held).any()


def test_a_pin_on_no_board_and_a_release_without_a_graph(stack: Stack) -> None:
    feed = feed_for(stack, 0, pin_id=pin_of(3, PER_TOPIC - 1))
    assert len(saved_together.candidates(feed)) == 0
    feed.release = replace(stack.release, walker=None)
    assert len(saved_together.candidates(feed)) == len(pixie.candidates(feed)) == 0
