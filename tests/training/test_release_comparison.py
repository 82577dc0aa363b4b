"""Search by meaning and ads are compared as the manifests hold them, where both were asked the same."""

from __future__ import annotations

import pytest

from tests.validation.test_gates import release
from training.release_comparison import REGISTERED, registered

CLICKS = "ads/auc/click/all"


def test_metrics_of_one_evaluation_are_compared() -> None:
    champion = release({CLICKS: 0.75})
    pairs, unlike = registered(release(), champion)
    found = {pair.metric: pair for pair in pairs}
    assert found.keys() == REGISTERED.keys() and unlike == {}
    clicks = found[CLICKS]
    assert (clicks.candidate, clicks.champion, clicks.n) == (0.7, 0.75, 5_000)
    # 1.645 x sqrt(0.25 / 5000 + 0.25 / 5000)
    assert (clicks.low, clicks.high) == (
        pytest.approx(-0.05 - 0.01645, abs=1e-5),
        pytest.approx(-0.03355, abs=1e-5),
    )


def test_metrics_of_two_evaluations_are_named_and_not_compared() -> None:
    pairs, unlike = registered(release(), release(evaluation="e0"))
    assert pairs == [] and unlike.keys() == REGISTERED.keys()
    assert registered(release(evaluation="e0"), release({name: None for name in REGISTERED})) == ([], {})
