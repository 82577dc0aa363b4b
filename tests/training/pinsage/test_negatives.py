import numpy as np
import pytest

from training.pinsage.negatives import hard_negatives


def ranked(rows: np.ndarray) -> np.ndarray:
    """Pin r reaches r + 1, r + 2, ... in this order; pins above 90 reach only five."""
    out = rows[:, None] + np.arange(1, 41)
    out[rows > 90, 5:] = -1
    return out.astype(np.int32)


def test_candidates_come_from_the_window_of_ranks() -> None:
    hard = hard_negatives(ranked, np.array([3, 10, 3, 95]), 100, low=10, high=30, kept=6)
    for pin in (3, 10):
        assert set(hard.candidates[pin]) <= set(range(pin + 11, pin + 31))
        assert len(set(hard.candidates[pin])) == 6
    assert hard.counts[[3, 10, 95, 50]].tolist() == [6, 6, 0, 0]


def test_draws_are_candidates_or_nothing() -> None:
    hard = hard_negatives(ranked, np.array([3, 95]), 100, low=10, high=30, kept=6)
    drawn = hard.draw(np.array([3, 95, 3], np.int32), 50, np.random.default_rng(1))
    assert (drawn[1] == -1).all()
    assert set(drawn[0]) == set(hard.candidates[3])


def test_equal_seeds_give_equal_candidates() -> None:
    first, again, other = (
        hard_negatives(ranked, np.arange(50), 100, low=5, high=35, kept=8, seed=s).candidates for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_window_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="0 < low < high"):
        hard_negatives(ranked, np.array([1]), 100, low=5, high=5)
