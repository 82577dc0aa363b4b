"""Filters on planted candidates: what goes, what stays, and what comes back when too little is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bentos import filters
from bentos.candidates import Candidates
from bentos.features import PinTable
from bentos.feed import Feed, Surface
from tests.bentos.fakes import COOK, GARDENER, NOW_MS, Stack, pin_of


def feed_with(stack: Stack, user_id: int, ids: list[int], *, limit: int = 3, **changes: object) -> Feed:
    feed = Feed(Surface.HOMEFEED, stack.release, NOW_MS, limit, user_id=user_id, **changes)  # type: ignore[arg-type]
    feed.user = stack.features.user(user_id, stack.release.pin_space)
    feed.candidates = Candidates.of("test", ids, np.ones(len(ids)), 0, "popular")
    wanted = np.unique(np.concatenate([feed.candidates.pin_ids, feed.user.sequence.pin_ids]))
    vectors, _ = stack.release.vectors(wanted, stack.release.space)
    feed.pins = PinTable(wanted, stack.features.pins(wanted), vectors)
    return feed


def test_acted_on_and_on_screen_are_left_out(stack: Stack) -> None:
    acted, shown, new = pin_of(1, 20), pin_of(1, 2), pin_of(1, 3)
    feed = feed_with(stack, COOK, [acted, shown, new], exclude=np.array([shown]))
    assert filters.unseen(feed).tolist() == [False, False, True]


def test_served_pins_are_left_out_while_there_are_enough(stack: Stack) -> None:
    ids = [pin_of(5, p) for p in range(6)]
    feed = feed_with(stack, COOK, ids, limit=2, served=np.array(ids[:3]))
    assert filters.unseen(feed).tolist() == [False] * 3 + [True] * 3


def test_those_served_longest_ago_come_back_first(stack: Stack) -> None:
    ids = [pin_of(5, p) for p in range(6)]
    served = np.array([ids[2], ids[0], ids[1], ids[3], ids[4], ids[0]])  # the first pin was served again last
    feed = feed_with(stack, COOK, ids, limit=2, served=served)
    kept = [i for i, keep in zip(ids, filters.unseen(feed).tolist(), strict=True) if keep]
    assert kept == [ids[1], ids[2], ids[5]]


def test_what_is_on_screen_or_was_acted_on_never_comes_back(stack: Stack) -> None:
    acted, shown = pin_of(1, 20), pin_of(1, 2)
    feed = feed_with(
        stack, COOK, [acted, shown], limit=5, served=np.array([acted, shown]), exclude=np.array([shown])
    )
    assert not filters.unseen(feed).any()


def test_hidden_pins_stay_hidden_and_liked_ones_do_not_count(stack: Stack) -> None:
    hidden, liked = pin_of(3, 0), pin_of(2, 10)
    feed = feed_with(stack, GARDENER, [hidden, liked, pin_of(5, 5)])
    assert filters.not_hidden(feed).tolist() == [False, True, True]


def test_the_pin_asked_about_is_not_related_to_itself(stack: Stack) -> None:
    feed = feed_with(stack, COOK, [pin_of(4, 0), pin_of(4, 1)], pin_id=pin_of(4, 0))
    assert filters.not_hidden(feed).tolist() == [False, True]


def planted_twins(stack: Stack) -> None:
    """Pins 1 and 2 of topic 4 become copies of its pin 0, and pin 3 of topic 5 a copy of pin 0 of topic 3."""
    matrix = stack.features.matrix
    for copy, of in ((pin_of(4, 1), pin_of(4, 0)), (pin_of(4, 2), pin_of(4, 0)), (pin_of(5, 3), pin_of(3, 0))):
        matrix[copy - 1] = matrix[of - 1]


def without_index(feed: Feed) -> Feed:
    feed.release = replace(feed.release, indexes={})
    vectors, _ = feed.release.vectors(feed.pins.ids, feed.release.space)
    feed.pins = PinTable(feed.pins.ids, feed.pins.stats, vectors)
    return feed


def test_of_near_duplicates_the_first_stays(stack: Stack) -> None:
    planted_twins(stack)
    ids = [pin_of(4, 1), pin_of(6, 0), pin_of(4, 0), pin_of(4, 2), pin_of(4, 9)]
    feed = without_index(feed_with(stack, COOK, ids))
    assert filters.distinct(feed).tolist() == [True, True, False, False, True]


def test_copies_of_a_hidden_pin_are_hidden(stack: Stack) -> None:
    planted_twins(stack)
    feed = without_index(feed_with(stack, GARDENER, [pin_of(5, 3), pin_of(5, 4)]))
    assert filters.distinct(feed).tolist() == [False, True]


def test_pins_without_vectors_are_distinct(stack: Stack) -> None:
    stack.features.matrix[:] = 0
    feed = without_index(feed_with(stack, GARDENER, [1, 2, 3]))
    assert filters.distinct(feed).all()


def test_greedy_is_not_transitive(stack: Stack) -> None:
    """A is near B, B near C, A not near C: B goes because of A, and C stays."""
    a, b, c = pin_of(6, 0), pin_of(6, 1), pin_of(6, 2)
    step = np.arccos(filters.SAME_PIN) * 0.8
    for place, pin in enumerate((a, b, c)):
        vector = np.zeros(stack.release.dim(stack.release.space), np.float32)
        vector[0], vector[1] = np.cos(place * step), np.sin(place * step)
        stack.features.matrix[pin - 1] = vector
    feed = without_index(feed_with(stack, COOK, [a, b, c]))
    assert filters.distinct(feed).tolist() == [True, False, True]


@pytest.mark.parametrize("keep", [filters.unseen, filters.not_hidden, filters.distinct])
def test_filters_read_nothing(stack: Stack, keep) -> None:  # type: ignore[no-untyped-def]
    feed = feed_with(stack, GARDENER, list(range(1, 200)))
    feed.user = stack.features.user(GARDENER, None)
    stack.features.calls.clear()
    keep(feed)
    assert stack.features.calls == []
