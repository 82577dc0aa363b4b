"""PinnerSage on worlds whose interests are known, on bad input, and one user against many."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.models.test_interest_clusters import planted
from training.models.pinnersage import (
    MS_PER_DAY,
    Histories,
    History,
    Interests,
    PinnerSageConfig,
    merge_interests,
    recent_interests,
    sample_medoids,
    user_interests,
    users_interests,
)

NOW = 20_000 * MS_PER_DAY


def history(seed: int = 0, m: int = 60, topics: int = 3) -> tuple[History, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    vectors, topic = planted(rng, m, topics=topics, noise=0.2)
    times = NOW - rng.integers(1, 60 * MS_PER_DAY, m)
    return History(np.arange(1, m + 1), vectors, times), topic


def test_planted_interests_are_found_one_cluster_a_topic():
    actions, topic = history()
    interests = user_interests(actions, NOW, PinnerSageConfig(alpha=3.0))
    assert len(interests) == 3
    assert sorted(interests.sizes) == sorted(np.bincount(topic))
    assert set(topic[interests.medoid_pin_ids - 1]) == {0, 1, 2}
    assert (np.diff(interests.importances) <= 0).all()
    assert interests.importances.sum() == pytest.approx(
        np.exp(-0.01 * (NOW - actions.times_ms) / MS_PER_DAY).sum(), rel=1e-5
    )


def test_repeated_actions_weigh_but_do_not_move_the_clusters():
    actions, _ = history()
    again = History(
        np.concatenate([actions.pin_ids, actions.pin_ids[:20]]),
        np.concatenate([actions.vectors, actions.vectors[:20]]),
        np.concatenate([actions.times_ms, actions.times_ms[:20]]),
    )
    config = PinnerSageConfig(alpha=3.0)
    once, twice = user_interests(actions, NOW, config), user_interests(again, NOW, config)
    assert sorted(once.medoid_pin_ids) == sorted(twice.medoid_pin_ids)
    assert sorted(once.sizes) == sorted(twice.sizes)
    assert twice.importances.sum() > once.importances.sum()


def test_actions_outside_the_window_or_after_now_do_not_count():
    actions, _ = history()
    late = History(actions.pin_ids, actions.vectors, actions.times_ms + 61 * MS_PER_DAY)
    assert len(user_interests(late, NOW, PinnerSageConfig())) == 0
    old = History(actions.pin_ids, actions.vectors, actions.times_ms - 91 * MS_PER_DAY)
    assert len(user_interests(old, NOW, PinnerSageConfig())) == 0


def test_only_the_newest_distinct_pins_are_clustered():
    actions, _ = history()
    interests = user_interests(actions, NOW, PinnerSageConfig(alpha=1e-9, max_pins=7, max_interests=50))
    newest = actions.pin_ids[np.argsort(-actions.times_ms)[:7]]
    assert sorted(interests.medoid_pin_ids) == sorted(newest)


def test_the_online_run_reads_the_last_twenty_actions_of_the_day():
    now = NOW + MS_PER_DAY // 2
    vectors, _ = planted(np.random.default_rng(0), 40)
    times = np.concatenate([np.full(10, NOW - 1), now - np.arange(30) * 1000])
    actions = History(np.arange(1, 41), vectors, times)
    interests = recent_interests(actions, now, PinnerSageConfig(alpha=1e-9))
    assert sorted(interests.medoid_pin_ids) == list(range(11, 31))


def some(ids: list[int], weights: list[float]) -> Interests:
    vectors = np.eye(8, dtype=np.float32)[np.array(ids) % 8]
    return Interests(np.array(ids), np.array(weights, np.float32), np.ones(len(ids), np.int64), vectors)


def test_merging_ages_the_batch_and_adds_what_is_in_both():
    merged = merge_interests(some([1, 2], [10.0, 4.0]), some([2, 3], [5.0, 1.0]), 2.0, 0.01)
    assert merged.medoid_pin_ids.tolist() == [1, 2, 3]
    np.testing.assert_allclose(merged.importances, [10 * np.exp(-0.02), 5 + 4 * np.exp(-0.02), 1.0], rtol=1e-6)
    assert merged.sizes.tolist() == [1, 2, 1]
    np.testing.assert_array_equal(merged.vectors, np.eye(8)[[1, 2, 3]])


def test_merging_with_nothing():
    nothing = Interests.none(8)
    assert len(merge_interests(nothing, nothing, 1.0, 0.01)) == 0
    assert merge_interests(nothing, some([3], [1.0]), 1.0, 0.01).medoid_pin_ids.tolist() == [3]
    assert merge_interests(some([3], [1.0]), nothing, 0.0, 0.01).importances.tolist() == [1.0]


def test_medoids_are_sampled_by_importance_without_repeats():
    interests = some([1, 2, 3, 4], [6.0, 3.0, 1.0, 1e-9])
    drawn = np.array([sample_medoids(interests, 3, seed=s) for s in range(2000)])
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    first = np.bincount(drawn[:, 0], minlength=4) / len(drawn)
    np.testing.assert_allclose(first[:3], [0.6, 0.3, 0.1], atol=0.04)
    np.testing.assert_array_equal(sample_medoids(interests, 3, seed=5), sample_medoids(interests, 3, seed=5))
    assert len(sample_medoids(interests, 9, seed=0)) == 4
    assert len(sample_medoids(Interests.none(8), 3, seed=0)) == 0


def test_configuration_round_trip_and_unknown_keys(tmp_path: Path):
    config = PinnerSageConfig(alpha=2.5, space="content@3")
    config.save(tmp_path)
    assert PinnerSageConfig.load(tmp_path) == config
    with pytest.raises(ValueError, match="extra"):
        PinnerSageConfig(lambda_=0.01)  # type: ignore[call-arg]


def joined(users: list[History]) -> Histories:
    """The users' actions over one table of vectors, each user's in ascending time."""
    orders = [np.argsort(user.times_ms, kind="stable") for user in users]
    first = np.concatenate([[0], np.cumsum([len(user.pin_ids) for user in users])])
    return Histories(
        offsets=first,
        pin_ids=np.concatenate([user.pin_ids[o] for user, o in zip(users, orders, strict=True)]),
        rows=np.concatenate([o + f for o, f in zip(orders, first[:-1], strict=True)]),
        times_ms=np.concatenate([user.times_ms[o] for user, o in zip(users, orders, strict=True)]),
        vectors=np.concatenate([user.vectors for user in users]),
    )


def same(left: Interests, right: Interests) -> None:
    for name in ("medoid_pin_ids", "importances", "sizes", "vectors"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


@pytest.mark.parametrize("threads", [1, 2])
def test_many_users_get_what_each_gets_alone(threads: int):
    users = [history(seed, m=int(m))[0] for seed, m in enumerate([0, 1, 2, 7, 300, 60, 60, 1, 0, 150])]
    config = PinnerSageConfig(alpha=1.0, max_pins=200)
    together = users_interests(joined(users), NOW, config, threads=threads)
    assert len(together) == len(users)
    for user, interests in zip(users, together, strict=True):
        same(interests, user_interests(user, NOW, config))


def test_no_users():
    nobody = Histories(np.zeros(1, np.int64), *np.empty((3, 0), np.int64), np.empty((0, 8), np.float32))
    assert users_interests(nobody, NOW, PinnerSageConfig()) == []


@pytest.mark.parametrize("actions", [0, 1, 2])
def test_short_histories(actions: int):
    whole, _ = history(m=2)
    short = History(whole.pin_ids[:actions], whole.vectors[:actions], whole.times_ms[:actions])
    interests = user_interests(short, NOW, PinnerSageConfig(alpha=1e-9))
    assert len(interests) == actions
    assert sorted(interests.medoid_pin_ids) == list(range(1, actions + 1))
    assert interests.vectors.shape == (actions, 32)
    assert len(user_interests(short, NOW, PinnerSageConfig(alpha=1e9))) == min(actions, 1)


def test_ten_thousand_actions_cost_no_more_than_the_cap():
    actions, _ = history(m=10_000)
    config = PinnerSageConfig(alpha=1.0, max_pins=500, max_interests=500)
    tracemalloc.start()
    interests = user_interests(actions, NOW, config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    newest = set(actions.pin_ids[np.argsort(-actions.times_ms, kind="stable")[:500]].tolist())
    assert set(interests.medoid_pin_ids.tolist()) <= newest
    assert interests.sizes.sum() == 500
    matrix, arrays = 4 * 500**2, actions.vectors.nbytes + 200 * len(actions.pin_ids)
    assert peak < 1.3 * matrix + 12 * 500 * 32 + arrays  # 10,000 pins in one matrix would be 400 MB


def test_all_actions_on_one_pin():
    one = History(np.full(50, 9), np.tile(history()[0].vectors[:1], (50, 1)), NOW - np.arange(1, 51))
    interests = user_interests(one, NOW, PinnerSageConfig())
    assert interests.medoid_pin_ids.tolist() == [9]
    assert interests.sizes.tolist() == [1]
    assert interests.importances[0] == pytest.approx(50, rel=1e-5)


def test_all_pins_alike_are_one_interest_whose_medoid_is_the_newest():
    alike = History(np.arange(1, 301), np.tile(history()[0].vectors[:1], (300, 1)), NOW - 300 + np.arange(300))
    interests = user_interests(alike, NOW, PinnerSageConfig(alpha=1e-12))
    assert interests.medoid_pin_ids.tolist() == [300]
    assert interests.sizes.tolist() == [300]


def test_identical_timestamps_do_not_depend_on_anything_but_the_order_given():
    actions, topic = history()
    at_once = History(actions.pin_ids, actions.vectors, np.full(60, NOW - MS_PER_DAY))
    interests = user_interests(at_once, NOW, PinnerSageConfig(alpha=3.0))
    assert sorted(interests.sizes) == sorted(np.bincount(topic))
    np.testing.assert_allclose(interests.importances, interests.sizes * np.exp(-0.01), rtol=1e-6)
    few = user_interests(at_once, NOW, PinnerSageConfig(alpha=1e-9, max_pins=5))
    assert sorted(few.medoid_pin_ids) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("broken", [0.0, np.nan, np.inf, 1e30])
def test_unknown_pins_and_broken_vectors_are_passed_over(broken: float):
    actions, _ = history()
    vectors = actions.vectors.copy()
    vectors[::4] = broken
    vectors[1, 1:] = broken
    vectors[1, 0] = broken
    kept = np.flatnonzero(np.arange(60) % 4 != 0)
    kept = kept[kept != 1]
    only = History(actions.pin_ids[kept], actions.vectors[kept], actions.times_ms[kept])
    config = PinnerSageConfig(alpha=3.0)
    same(
        user_interests(History(actions.pin_ids, vectors, actions.times_ms), NOW, config),
        user_interests(only, NOW, config),
    )
    nothing = History(actions.pin_ids, np.full_like(vectors, broken), actions.times_ms)
    assert len(user_interests(nothing, NOW, config)) == 0


def test_one_nan_component_is_enough_to_pass_a_pin_over():
    actions, _ = history()
    vectors = actions.vectors.copy()
    vectors[5, 3] = np.nan
    interests = user_interests(
        History(actions.pin_ids, vectors, actions.times_ms), NOW, PinnerSageConfig(alpha=1e-9, max_interests=60)
    )
    assert sorted(interests.medoid_pin_ids) == [i for i in range(1, 61) if i != 6]
