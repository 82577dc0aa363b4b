"""The interval of a paired difference: as wide as theory says, wider where a user's rows move together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from training.evaluation.paired import bootstrap, paired


def test_independent_users_give_the_t_interval() -> None:
    rng = np.random.default_rng(0)
    candidate, champion = rng.random(400), rng.random(400)
    pair = paired("recall", candidate, champion)
    difference = candidate - champion
    low, high = stats.t.interval(0.9, 399, difference.mean(), stats.sem(difference))
    assert (pair.low, pair.high) == pytest.approx((low, high), abs=0.15 * (high - low))
    assert (pair.candidate, pair.champion, pair.n) == (candidate.mean(), champion.mean(), 400)


def test_rows_of_one_user_count_as_one() -> None:
    """Every user's 25 rows say the same: 40 users are known, not a thousand rows."""
    users = np.repeat(np.arange(40), 25)
    of_user = np.random.default_rng(1).normal(size=40)
    blind = bootstrap(of_user[users])
    low, high = bootstrap(of_user[users], users)
    assert high - low == pytest.approx(5 * (blind[1] - blind[0]), rel=0.2)
    assert (low, high) == pytest.approx(bootstrap(of_user), abs=1e-9), "as though each user had one row"


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    inside = [bootstrap(rng.gamma(4.0, 0.25, size=150), draws=400, seed=i) for i in range(400)]
    assert np.mean([low <= 1.0 <= high for low, high in inside]) == pytest.approx(0.9, abs=0.05)


def test_what_cannot_be_paired_is_refused() -> None:
    for other in (np.zeros(2), np.zeros(0)):
        with pytest.raises(ValueError, match="cannot be paired"):
            paired("recall", np.zeros(0), other)
