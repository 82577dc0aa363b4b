"""Rewards by hand, what clusters without a record get, and sampling that follows engagement."""

from __future__ import annotations

import numpy as np
import pytest

from training.models.pinnersage import Interests, sample_medoids
from training.models.query_rewards import (
    Record,
    RewardConfig,
    nearest_anchor,
    rewarded,
    rewards,
    tally,
)

CONFIG = RewardConfig(base_rate=0.1, prior_impressions=10)


def some(ids: list[int], weights: list[float]) -> Interests:
    vectors = np.eye(8, dtype=np.float32)[np.array(ids) % 8]
    return Interests(np.array(ids), np.array(weights, np.float32), np.ones(len(ids), np.int64), vectors)


def record(ids: list[int], shown: list[float], engaged: list[float]) -> Record:
    return Record(np.array(ids, np.int64), np.array(shown, np.float64), np.array(engaged, np.float64))


NOTHING = record([], [], [])


def test_tally_counts_impressions_and_engagements_by_anchor():
    found = tally(np.array([7, 3, 7, 0, 7, 3]), np.array([True, False, False, True, True, False]))
    assert found.medoid_pin_ids.tolist() == [3, 7]
    assert found.impressions.tolist() == [2, 3]
    assert found.engagements.tolist() == [0, 2]
    assert len(tally(np.zeros(3, np.int64), np.ones(3, bool)).medoid_pin_ids) == 0


def test_rewards_by_hand():
    got = rewards(np.array([3, 7]), record([3, 7], [10, 40], [4, 0]), CONFIG)
    np.testing.assert_allclose(got, [(4 + 1) / 20 / 0.1, (0 + 1) / 50 / 0.1])


def test_a_cluster_without_a_record_gets_the_average_weight():
    got = rewards(np.array([9, 3, 7, 1]), record([3, 7, 9], [10, 40, 0], [4, 0, 0]), CONFIG)
    np.testing.assert_allclose(got[1:3], [2.5, 0.2])
    np.testing.assert_allclose(got[[0, 3]], 1.35)


def test_without_any_record_nothing_changes():
    interests = some([4, 2, 3], [5.0, 2.0, 1.0])
    same = rewarded(interests, NOTHING, CONFIG)
    np.testing.assert_array_equal(same.medoid_pin_ids, interests.medoid_pin_ids)
    np.testing.assert_array_equal(same.importances, interests.importances)
    assert len(rewarded(Interests.none(8), record([3], [1], [1]), CONFIG)) == 0


def test_few_impressions_move_a_weight_little_and_rewards_stay_within_bounds():
    once = rewards(np.array([1]), record([1], [1], [1]), CONFIG)
    often = rewards(np.array([1]), record([1], [1000], [1000]), CONFIG)
    never = rewards(np.array([1]), record([1], [1e9], [0]), CONFIG)
    assert 1 < once[0] < 2 < often[0] < CONFIG.most
    assert never[0] == CONFIG.least
    generous = RewardConfig(base_rate=0.01, prior_impressions=1)
    assert rewards(np.array([1]), record([1], [1000], [1000]), generous)[0] == generous.most


def test_importances_are_multiplied_and_sorted_again():
    got = rewarded(some([4, 2, 3], [5.0, 2.0, 1.0]), record([2, 4], [10, 40], [4, 0]), CONFIG)
    assert got.medoid_pin_ids.tolist() == [2, 3, 4]
    np.testing.assert_allclose(got.importances, [5.0, 1.35, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(got.vectors, np.eye(8)[[2, 3, 4]])


def test_sampling_comes_to_follow_engagement():
    """Two clusters of equal importance, one engaged with three times as often: over a month of records made by
    the sampling itself, its share of the draws rises towards the share of its engagement rate."""
    interests, rate = some([1, 2], [1.0, 1.0]), {1: 0.15, 2: 0.05}
    config = RewardConfig(base_rate=0.1, prior_impressions=50)
    rng = np.random.default_rng(0)
    anchors, engaged, drawn = [], [], []
    for request in range(600):
        known = tally(np.array(anchors, np.int64), np.array(engaged, bool)) if anchors else NOTHING
        weighed = rewarded(interests, known, config)
        medoid = int(weighed.medoid_pin_ids[sample_medoids(weighed, 1, seed=request)[0]])
        drawn.append(medoid)
        anchors += [medoid] * 10
        engaged += (rng.random(10) < rate[medoid]).tolist()
    early, late = np.mean(np.array(drawn[:30]) == 1), np.mean(np.array(drawn[-300:]) == 1)
    assert late == pytest.approx(0.75, abs=0.08)
    assert late > early


def test_nearest_anchor_guesses_the_medoid_and_leaves_out_what_is_far():
    interests = some([1, 2], [1.0, 1.0])
    shown = np.array([[0, 1, 0.1], [0, 0.1, 1], [1, 0, 0]], np.float32)
    shown = np.pad(shown / np.linalg.norm(shown, axis=1, keepdims=True), ((0, 0), (0, 5)))
    assert nearest_anchor(shown, interests).tolist() == [1, 2, 0]
    assert nearest_anchor(shown, Interests.none(8)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("ids", "shown", "engaged", "said"),
    [
        ([2, 1], [1, 1], [0, 0], "ascend"),
        ([1, 1], [1, 1], [0, 0], "distinct"),
        ([1, 2], [1, 1], [0, 2], "medoid 2: 2 engagements on 1 impressions"),
        ([1, 2], [1, np.nan], [0, 0], "medoid 2"),
        ([1, 2], [1], [0], "counts"),
    ],
)
def test_a_record_that_cannot_be_is_refused(ids: list, shown: list, engaged: list, said: str):
    with pytest.raises(ValueError, match=said):
        record(ids, shown, engaged)
