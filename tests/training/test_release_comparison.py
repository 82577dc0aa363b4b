"""Search by meaning and ads are compared as the manifests hold them, where both were asked the same; what
cannot be measured is named."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.validation.test_gates import release
from training import release_comparison as module
from training.release_comparison import REGISTERED, compare, registered

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


def test_a_part_whose_files_are_damaged_is_named_and_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    class HeaderTooLarge(Exception):
        """As a file format raises them."""

    def damaged(*_: object) -> None:
        raise HeaderTooLarge("invalid header")

    said: list[str] = []
    bench = SimpleNamespace(evaluation="e1")
    monkeypatch.setattr(module.Bench, "of", lambda *_: bench)
    monkeypatch.setattr(module, "_compared", damaged)
    both = release().model_copy(update={"parts": {"pixie": object()}})
    found = compare(SimpleNamespace(progress=said.append), both, both, 3)  # type: ignore[arg-type]
    assert found.missing == {"pixie": "it cannot be measured: HeaderTooLarge('invalid header')"}
    assert "pixie cannot be measured" in said[0]
