"""Thinning undone by hand, and samples of whole requests that no outcome has a say in."""

from __future__ import annotations

import numpy as np
import pytest

from training.models.calibration import restore_rate, uniform_sample


def test_thinned_negatives_are_put_back():
    """1,000 positives and 9,000 negatives of which a tenth is kept: 1,000 of 1,900 become 1,000 of 10,000."""
    assert restore_rate(np.array([1000 / 1900], np.float32), 0.1)[0] == pytest.approx(0.1, rel=1e-5)
    assert restore_rate(np.array([0.0, 1.0], np.float32), 0.1).tolist() == [0.0, 1.0]


def test_a_model_of_thinned_rows_is_right_on_average_once_restored():
    rng = np.random.default_rng(0)
    p = rng.beta(1, 12, 400_000)
    y = rng.random(len(p)) < p
    kept = y | (rng.random(len(p)) < 0.2)
    thinned = p / (p + 0.2 * (1 - p))  # Bayes on the rows that are kept
    assert thinned[kept].mean() == pytest.approx(y[kept].mean(), rel=0.01)
    assert restore_rate(thinned.astype(np.float32), 0.2).mean() == pytest.approx(y.mean(), rel=0.01)


def test_a_sample_holds_whole_requests_at_its_share():
    requests = np.repeat(np.arange(1, 20_001), 5)
    kept = uniform_sample(requests, 0.1)
    by_request = kept.reshape(-1, 5)
    assert (by_request.all(axis=1) | ~by_request.any(axis=1)).all()
    assert by_request[:, 0].mean() == pytest.approx(0.1, abs=0.01)
    # neighbouring ids are drawn independently: runs are as long as chance makes them
    both = (by_request[:-1, 0] & by_request[1:, 0]).mean()
    assert both == pytest.approx(0.01, abs=0.004)


def test_a_sample_depends_on_the_request_alone():
    requests = np.array([17, 3, 2**62, 99, 5], np.int64)
    kept = uniform_sample(requests, 0.5, seed=4)
    np.testing.assert_array_equal(uniform_sample(requests[::-1], 0.5, seed=4)[::-1], kept)
    np.testing.assert_array_equal(uniform_sample(requests[2:3], 0.5, seed=4), kept[2:3])
    many = np.arange(10_000)
    assert (uniform_sample(many, 0.5, 1) != uniform_sample(many, 0.5, 2)).mean() == pytest.approx(0.5, abs=0.03)
    assert uniform_sample(many, 1.0).all()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_outside_its_range_is_refused(share: float):
    with pytest.raises(ValueError, match="share"):
        uniform_sample(np.arange(3), share)
