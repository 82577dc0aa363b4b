"""Budgets that sum, round robin by hand, one search an embedding at the price of a single one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.models.interests import (
    UserEmbeddings,
    equal_budgets,
    retrieve,
    round_robin,
    sample_followed,
    weighted_budgets,
)


@given(weights=st.lists(st.floats(0.001, 10), min_size=1, max_size=9), total=st.integers(0, 500))
def test_budgets_sum_to_the_total_and_follow_the_weights(weights: list[float], total: int) -> None:
    budgets = weighted_budgets(np.array(weights), total)
    assert budgets.sum() == total and (budgets >= 0).all()
    if total >= len(weights):
        assert (budgets >= 1).all()
    exact = np.array(weights) / sum(weights) * total
    assert (budgets - exact < 1 + len(weights)).all()


def test_budgets_by_hand() -> None:
    assert weighted_budgets(np.array([0.5, 0.3, 0.2]), 10).tolist() == [5, 3, 2]
    assert weighted_budgets(np.array([1.0, 1.0, 1.0]), 10).tolist() == [4, 3, 3]
    assert weighted_budgets(np.array([0.98, 0.01, 0.01]), 10).tolist() == [8, 1, 1]
    assert weighted_budgets(np.array([1.0, 0.0]), 3).tolist() == [3, 0]
    assert equal_budgets(5, 12).tolist() == [3, 3, 2, 2, 2]
    assert equal_budgets(0, 12).tolist() == [] and weighted_budgets(np.empty(0), 5).tolist() == []


@pytest.mark.parametrize("weights", [[0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0]])
def test_weights_that_share_nothing_out_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="share nothing out"):
        weighted_budgets(np.array(weights), 10)


def test_round_robin_takes_turns_and_keeps_the_first_of_equal_pins() -> None:
    pins, owner = round_robin([np.array([1, 2, 3]), np.array([4, 1]), np.array([2, 5, 0])])
    assert pins.tolist() == [1, 4, 2, 5, 3]
    assert owner.tolist() == [0, 1, 2, 2, 0]
    assert round_robin([])[0].tolist() == []


def test_followed_topics_are_sampled_by_seed() -> None:
    many = np.array([9, 3, 3, 0, 7, 1, 5, 8, 2])
    first = sample_followed(many, (1, 2))
    assert len(first) == 5 == len(set(first.tolist())) and 0 not in first
    np.testing.assert_array_equal(first, sample_followed(many, (1, 2)))
    assert any(set(sample_followed(many, (1, s)).tolist()) != set(first.tolist()) for s in range(9))
    assert sample_followed(np.array([4, 4, 0]), (1,)).tolist() == [4]
    assert sample_followed(np.empty(0, np.int64), (1,)).tolist() == []


def test_retrieval_asks_for_the_total_once_shared_out() -> None:
    vectors = np.eye(3, dtype=np.float32)
    user = UserEmbeddings(vectors, np.array([0.5, 0.3, 0.2], np.float32), np.zeros(3, np.int64))
    asked: list[tuple[int, int]] = []

    def search(query: np.ndarray, k: int) -> np.ndarray:
        which = int(query.argmax())
        asked.append((which, k))
        return np.arange(1, k + 1) + 100 * which

    pins, owner = retrieve(user, search, 10)
    assert asked == [(0, 5), (1, 3), (2, 2)]
    assert len(pins) == 10 and pins[:4].tolist() == [1, 101, 201, 2]
    assert np.bincount(owner).tolist() == [5, 3, 2]
    single = UserEmbeddings(vectors[:1], np.ones(1, np.float32), np.zeros(1, np.int64))
    assert len(retrieve(single, search, 10)[0]) == 10
    nobody = UserEmbeddings(vectors[:0], np.empty(0, np.float32), np.zeros(0, np.int64))
    assert len(retrieve(nobody, search, 10)[0]) == 0
