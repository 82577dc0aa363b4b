"""The two spreads of a mean, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.spread import Spread, difference


def test_users_and_seeds_by_hand() -> None:
    """Two seeds of three users. By user: 2, 3, 7; by seed: 3, 5."""
    values = np.array([[1.0, 2.0, 6.0], [3.0, 4.0, 8.0]])
    spread = Spread.of(values)
    assert spread.mean == pytest.approx(4.0)
    # squares about 4: 4 + 1 + 9 = 14, over n - 1 = 2: variance 7
    assert spread.error == pytest.approx(1.96 * (7.0 / 3) ** 0.5)
    # squares about 4: 1 + 1, over n - 1 = 1: variance 2
    assert spread.seeds == pytest.approx(2**0.5)


def test_more_seeds_do_not_count_as_more_users() -> None:
    one = np.array([[0.0, 1.0, 1.0, 0.0, 1.0]])
    assert Spread.of(np.repeat(one, 9, axis=0)).error == pytest.approx(Spread.of(one).error)
    assert Spread.of(np.repeat(one, 9, axis=0)).seeds == 0.0


def test_what_cannot_be_known_is_none() -> None:
    assert Spread.of(np.array([[0.5, 1.0]])).seeds is None
    assert Spread.of(np.array([[0.5], [1.0]])).error is None
    for shape in ((0, 3), (2, 0)):
        with pytest.raises(ValueError, match="needs values"):
            Spread.of(np.empty(shape))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(2_000):
        spread = Spread.of((rng.random((1, 400)) < 0.3).astype(float))
        inside += abs(spread.mean - 0.3) <= spread.error
    assert inside / 2_000 == pytest.approx(0.95, abs=0.015)


def test_differences_are_paired_by_user() -> None:
    """Users differ far more than models do: only pairing can tell the models apart."""
    rng = np.random.default_rng(1)
    easy = rng.normal(0.0, 10.0, 500)
    better, worse = easy + 0.1 + rng.normal(0, 0.1, 500), easy + rng.normal(0, 0.1, 500)
    found = difference(better[None], worse[None])
    assert not found.level
    assert found.mean == pytest.approx(0.1, abs=0.02)
    assert found.error < Spread.of(better[None]).error / 10
    assert difference(better[None], better[None]).level


def test_difference_by_hand() -> None:
    """Means over seeds by user: 2, 3 and 1, 4; differences 1 and -1."""
    found = difference(np.array([[1.0, 3.0], [3.0, 3.0]]), np.array([[1.0, 2.0], [1.0, 6.0]]))
    assert found.mean == 0.0
    assert found.error == pytest.approx(1.96 * 2**0.5 / 2**0.5)
    # means by seed: 2, 3 (variance 1/2) and 1.5, 3.5 (variance 2)
    assert found.seeds == pytest.approx((0.5 + 2.0) ** 0.5)
    once = difference(np.array([[1.0, 3.0], [3.0, 3.0]]), np.array([[1.0, 2.0]]))
    assert once.seeds == pytest.approx(0.5**0.5)
    assert difference(np.ones((1, 2)), np.ones((1, 2))).seeds is None
    with pytest.raises(ValueError, match="2 and 3 users"):
        difference(np.ones((1, 2)), np.ones((1, 3)))
