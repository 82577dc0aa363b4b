"""PinnerSage against scipy's Ward, the definition of a medoid, and worlds whose interests are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from training.models.pinnersage import (
    MS_PER_DAY,
    History,
    Interests,
    PinnerSageConfig,
    choose_alpha,
    importances,
    medoids,
    merge_interests,
    recent_interests,
    sample_medoids,
    squared_distances,
    user_interests,
    ward_labels,
)

NOW = 20_000 * MS_PER_DAY


def first_members(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """A partition named by each cluster's first member: equal partitions become equal arrays."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first[inverse]


def scipy_ward(vectors: NDArray[np.float32], alpha: float) -> NDArray[np.int64]:
    return fcluster(linkage(vectors.astype(np.float64), "ward"), np.sqrt(alpha), "distance")


def planted(rng: np.random.Generator, m: int, dim: int = 32, topics: int = 6, noise: float = 0.5):
    centres = rng.standard_normal((topics, dim))
    topic = rng.integers(0, topics, m)
    vectors = centres[topic] + noise * rng.standard_normal((m, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), topic


@given(
    m=st.integers(2, 120),
    dim=st.integers(1, 24),
    noise=st.floats(0.05, 2.0),
    quantile=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_ward_gives_scipys_partition_at_any_cut(m: int, dim: int, noise: float, quantile: float, seed: int):
    vectors, _ = planted(np.random.default_rng(seed), m, dim, noise=noise)
    heights = np.sort(linkage(vectors.astype(np.float64), "ward")[:, 2] ** 2)
    # Between two merges' heights, so that the last digits do not decide; below the first, above the last.
    edges = np.concatenate([[heights[0] / 2], heights, [heights[-1] * 2 + 1e-9]])
    low = int(quantile * (len(edges) - 2))
    if edges[low + 1] - edges[low] < 1e-9:
        return
    alpha = (edges[low] + edges[low + 1]) / 2
    np.testing.assert_array_equal(
        first_members(ward_labels(vectors, alpha)), first_members(scipy_ward(vectors, alpha))
    )


@pytest.mark.parametrize("m", [500, 1500])
def test_ward_gives_scipys_partition_on_long_histories(m: int):
    vectors, _ = planted(np.random.default_rng(m), m, dim=64, topics=40)
    for alpha in (0.3, 1.0, 3.0, 20.0):
        np.testing.assert_array_equal(
            first_members(ward_labels(vectors, alpha)), first_members(scipy_ward(vectors, alpha))
        )


def test_ward_keeps_repeated_points_together():
    vectors, _ = planted(np.random.default_rng(3), 30)
    repeated = np.repeat(vectors, 4, axis=0)
    labels = ward_labels(repeated, 1e-6)
    np.testing.assert_array_equal(labels.reshape(30, 4), np.tile(labels[::4, None], (1, 4)))
    np.testing.assert_array_equal(first_members(labels), first_members(scipy_ward(repeated, 1e-6)))


def test_ward_terminates_when_every_distance_is_equal():
    labels = ward_labels(np.eye(40, dtype=np.float32), 1.99)
    assert len(np.unique(labels)) == 40
    assert len(np.unique(ward_labels(np.eye(40, dtype=np.float32), 1e9))) == 1


@pytest.mark.parametrize("m", [0, 1])
def test_ward_of_less_than_two_points(m: int):
    np.testing.assert_array_equal(ward_labels(np.ones((m, 4), np.float32), 1.0), np.zeros(m))


def test_labels_are_numbered_in_order_of_appearance():
    vectors, _ = planted(np.random.default_rng(0), 60)
    labels = ward_labels(vectors, 1.0)
    _, first = np.unique(labels, return_index=True)
    assert (np.diff(first) > 0).all()


def test_medoid_is_the_member_with_the_least_summed_squared_distance():
    vectors, _ = planted(np.random.default_rng(1), 80)
    labels = ward_labels(vectors, 2.0)
    distances = ((vectors[:, None].astype(np.float64) - vectors[None]) ** 2).sum(-1)
    for cluster, medoid in enumerate(medoids(vectors, labels)):
        members = np.flatnonzero(labels == cluster)
        assert medoid == members[distances[np.ix_(members, members)].sum(1).argmin()]


def test_squared_distances_against_the_definition():
    vectors, _ = planted(np.random.default_rng(2), 20)
    expected = ((vectors[:, None].astype(np.float64) - vectors[None]) ** 2).sum(-1)
    np.fill_diagonal(expected, np.inf)
    np.testing.assert_allclose(squared_distances(vectors), expected, atol=1e-12)


def test_importance_sums_decayed_actions_by_hand():
    labels = np.array([0, 0, 1])
    times = np.array([NOW, NOW - 100 * MS_PER_DAY, NOW - 10 * MS_PER_DAY])
    np.testing.assert_allclose(
        importances(labels, times, NOW, 0.01), [1 + np.exp(-1.0), np.exp(-0.1)], rtol=1e-12
    )
    np.testing.assert_allclose(importances(labels, times, NOW, 0.0), [2.0, 1.0])


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


def test_alpha_is_chosen_between_single_pins_and_one_blur():
    histories = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        vectors, _ = planted(rng, 80, dim=32, topics=3, noise=0.15)
        times = NOW - rng.integers(1, 20, 80) * MS_PER_DAY
        histories.append(History(np.arange(80), vectors, times))
    choice = choose_alpha(histories, PinnerSageConfig(), alphas=(1e-6, 2.0, 1e6))
    assert choice.alpha == 2.0
    assert choice.interests[1e-6] > choice.interests[2.0] > choice.interests[1e6] == 1.0
    assert choice.users == 20


def test_alpha_needs_two_days():
    actions, _ = history()
    one_day = History(actions.pin_ids, actions.vectors, np.full(60, NOW))
    with pytest.raises(ValueError, match="two different days"):
        choose_alpha([one_day], PinnerSageConfig())


def test_configuration_round_trip_and_unknown_keys(tmp_path: Path):
    config = PinnerSageConfig(alpha=2.5, space="content@3")
    config.save(tmp_path)
    assert PinnerSageConfig.load(tmp_path) == config
    with pytest.raises(ValueError, match="extra"):
        PinnerSageConfig(lambda_=0.01)  # type: ignore[call-arg]
