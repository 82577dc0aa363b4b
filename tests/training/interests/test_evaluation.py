"""Ranks by hand, lists that fill their shares, nothing of the future, counts of interests."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.interests.planted import Planted, planted_world
from training.interests.engagements import UserDays
from training.interests.evaluation import (
    NEVER,
    Lists,
    Ranks,
    engaged_interests,
    one_list,
    overlap,
    popular_scores,
    ranks,
)


@pytest.fixture(scope="module")
def world() -> Planted:
    return planted_world(users=8)


def test_the_best_possible_scores_rank_new_pins_first(world: Planted) -> None:
    days = world.days(5, 6)

    def oracle(part: UserDays) -> Lists:
        table = np.zeros((len(part), len(world.pins.ids)), np.float32)
        for row in range(len(part)):
            table[row, part.pins[part.offsets[row] : part.offsets[row + 1]]] = 1
        return one_list(table)

    found = ranks(world.data, days, oracle)
    sizes = np.diff(days.offsets)
    np.testing.assert_array_equal(found.ranks, np.repeat(sizes, sizes))  # ties count as before it
    constant = ranks(
        world.data, days, lambda part: one_list(np.zeros((len(part), len(world.pins.ids)), np.float32))
    )
    assert constant.hit_rate(100) == 0.0


def test_pins_a_user_knew_are_no_candidates(world: Planted) -> None:
    days = world.days(5, 6)
    start, end = world.data.actions.log.slice(days.users, days.times_ms, limit=10**6)

    def known_first(part: UserDays) -> Lists:
        table = np.tile(-np.arange(len(world.pins.ids), dtype=np.float32), (len(part), 1))
        for row, user in enumerate(part.users):
            at = int(np.flatnonzero(days.users == user)[0])
            table[row, world.data.actions.pin_rows[start[at] : end[at]]] = 9
        return one_list(table)

    plain = ranks(
        world.data,
        days,
        lambda part: one_list(np.tile(-np.arange(len(world.pins.ids), dtype=np.float32), (len(part), 1))),
    )
    np.testing.assert_array_equal(ranks(world.data, days, known_first).ranks, plain.ranks)


def test_a_list_fills_its_share_of_the_results(world: Planted) -> None:
    """A pin third in a list that has a quarter of the results comes with twelve results."""
    days = world.days(5, 6).take(np.array([0]))
    pins = len(world.pins.ids)
    new = days.pins[:1]
    days = days.where(np.isin(days.pins, new))
    seen = world.data.actions.pin_rows[
        slice(*(int(x[0]) for x in world.data.actions.log.slice(days.users, days.times_ms)))
    ]
    others = np.setdiff1d(np.arange(pins), np.r_[seen, new])

    def lists(part: UserDays) -> Lists:
        table = np.zeros((1, 3, pins), np.float32)
        table[0, 0, others[:50]] = 5
        table[0, 1, others[:2]] = 7
        table[0, :2, new] = 6
        table[0, 2, new] = 99
        table[0, 0, new] = 4
        return Lists(table, np.array([[0.75, 0.25, 0.0]], np.float32))

    assert ranks(world.data, days, lists).ranks.tolist() == [12]


def test_pins_made_later_are_neither_asked_for_nor_in_the_way(world: Planted) -> None:
    from dataclasses import replace

    days = world.days(5, 6)
    created = world.data.catalogue.created_at_ms.copy()
    created[::2] = days.times_ms[0]
    later = replace(world.data, catalogue=replace(world.data.catalogue, created_at_ms=created))
    order = one_list(np.tile(-np.arange(len(created), dtype=np.float32), (1, 1)))
    found = ranks(
        later, days, lambda part: Lists(np.repeat(order.scores, len(part), 0), np.ones((len(part), 1)))
    )
    assert len(found.ranks) == int((days.pins % 2 == 1).sum())
    assert found.ranks.max() <= len(created) // 2


def test_pins_no_list_can_retrieve_are_never_hit(world: Planted) -> None:
    days = world.days(5, 6)
    none = ranks(
        world.data, days, lambda part: one_list(np.full((len(part), len(world.pins.ids)), -np.inf, np.float32))
    )
    assert (none.ranks == NEVER).all() and none.hit_rate(10**9) == 0.0
    assert np.isnan(
        ranks(world.data, world.days(90, 91), lambda part: one_list(np.zeros((0, 0), np.float32))).hit_rate(5)
    )


def test_rates_by_interests_and_their_errors() -> None:
    found = Ranks(np.array([1, 200, 50, 3]), np.array([2, 3, 5, 5]), np.array([1, 2, 3, 3]))
    assert found.hit_rate(100) == 0.75 and found.hit_rate(100, 3) == pytest.approx(2 / 3)
    assert found.hit_rate(100, 0, 2) == 1.0 and found.count(3) == 3
    assert np.isnan(found.hit_rate(100, 9)) and np.isnan(found.error(100, 9))
    # two users: residuals (-2/3) and (1/3 + 1/3): sqrt(2 * (4/9 + 4/9)) / 3
    assert found.error(100, 3) == pytest.approx(np.sqrt(2 * 8 / 9) / 3)
    assert set(found.named()) == {"hr_at_100", "hr_at_1000", "hr_at_100_3_interests", "hr_at_1000_3_interests"}


def test_engaged_interests_are_the_planted_ones(world: Planted) -> None:
    days = world.days(5, 6)
    np.testing.assert_array_equal(
        engaged_interests(world.data, days), [len(world.topics[u]) for u in days.users]
    )
    assert engaged_interests(world.data, days, at_least=1000).tolist() == [0] * len(days)


def test_popularity_counts_only_what_came_before(world: Planted) -> None:
    days = world.days(3, 4)
    line = popular_scores(world.data)(days).scores[0, 0]
    acts = world.data.actions
    before = acts.pin_rows[acts.log.timestamps_ms < days.times_ms[0]]
    np.testing.assert_allclose(line, np.bincount(before, minlength=len(line)), atol=1e-3)


def test_overlap_of_candidates(world: Planted) -> None:
    days, pins = world.days(5, 6), len(world.pins.ids)

    def first(part: UserDays) -> Lists:
        return one_list(np.tile(np.arange(pins, dtype=np.float32), (len(part), 1)))

    def shifted(part: UserDays) -> Lists:
        return one_list(np.tile(np.roll(np.arange(pins, dtype=np.float32), 5), (len(part), 1)))

    assert overlap(first, first, world.data, days, 10) == 1.0
    assert overlap(first, shifted, world.data, days, 10) == 0.5
