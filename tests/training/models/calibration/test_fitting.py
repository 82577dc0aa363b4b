"""Curves are recovered from worlds whose miscalibration was planted, and equal scikit-learn's own answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from training.models.calibration import CalibrationConfig, Isotonic, Platt, fit

Arrays = tuple[np.ndarray, np.ndarray]


def world(n: int = 40_000, *, slope: float = 1.0, bias: float = 0.0, seed: int = 0) -> Arrays:
    """Scores (n, 1), and labels with P(y) = sigmoid(slope * logit(score) + bias)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-2, 1, n)
    y = rng.random(n) < 1 / (1 + np.exp(-(slope * z + bias)))
    return (1 / (1 + np.exp(-z))).astype(np.float32)[:, None], y[:, None].astype(np.int8)


def test_platt_finds_the_planted_line():
    p, y = world(slope=0.6, bias=-0.8)
    curve = fit(p, y, ["save"], ranker="r@1").heads[0].curve
    assert isinstance(curve, Platt)
    assert curve.slope == pytest.approx(0.6, abs=0.04)
    assert curve.bias == pytest.approx(-0.8, abs=0.08)


def test_platt_is_the_maximum_likelihood():
    p, y = world(3000, slope=1.4, bias=0.5)
    curve = fit(p, y, ["save"], ranker="r@1").heads[0].curve
    z, t = np.log(p[:, 0] / (1 - p[:, 0].astype(float))), y[:, 0].astype(float)

    def loss(theta: np.ndarray) -> float:
        line = theta[0] * z + theta[1]
        return float(np.mean(np.logaddexp(0, line) - t * line))

    best = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-13}).x
    np.testing.assert_allclose([curve.slope, curve.bias], best, atol=2e-3)


def test_platt_with_features_mends_a_slice_that_the_score_cannot_see():
    rng = np.random.default_rng(1)
    p, _ = world(60_000)
    new = (rng.random(len(p)) < 0.3).astype(np.float32)
    z = np.log(p[:, 0] / (1 - p[:, 0]))
    y = (rng.random(len(p)) < 1 / (1 + np.exp(-(z - 1.5 * new))))[:, None]
    features = np.column_stack([new, np.full(len(p), 7.0), np.full(len(p), np.nan)]).astype(np.float32)
    blind = fit(p, y, ["save"], ranker="r@1")
    seeing = fit(p, y, ["save"], ranker="r@1", features=features, feature_names=["new", "flat", "unknown"])
    truth = y[new == 1].mean()
    assert abs(blind.calibrate(p)[new == 1].mean() - truth) > 0.03
    assert seeing.calibrate(p, features)[new == 1].mean() == pytest.approx(truth, abs=0.004)
    assert seeing.features == ("new", "flat", "unknown") and seeing.reads_features


def test_isotonic_equals_scikit_learns_and_keeps_its_order():
    p, y = world(20_000, slope=0.5)
    made = fit(p, y, ["save"], ranker="r@1", config=CalibrationConfig(method="isotonic"))
    assert isinstance(made.heads[0].curve, Isotonic)
    oracle = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p[:, 0].astype(float), y[:, 0])
    fresh, _ = world(5000, seed=9)
    got = made.calibrate(fresh)[:, 0]
    np.testing.assert_allclose(got, oracle.predict(fresh[:, 0].astype(float)), atol=1e-6)
    assert (np.diff(got[np.argsort(fresh[:, 0])]) >= 0).all()


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_calibration_holds_on_rows_it_has_not_seen(method: str):
    p, y = world(slope=0.5, bias=1.0)
    made = fit(p, y, ["save"], ranker="r@1", config=CalibrationConfig(method=method))
    fresh, happened = world(seed=5, slope=0.5, bias=1.0)
    assert fresh.mean() / happened.mean() < 0.8
    assert made.calibrate(fresh).mean() / happened.mean() == pytest.approx(1.0, abs=0.02)


def test_sampling_corrects_without_a_fit():
    p, y = world()
    made = fit(p, y, ["save"], ranker="r@1", config=CalibrationConfig(method="sampling"), negative_rate=0.25)
    q = p[:, 0] / (p[:, 0] + (1 - p[:, 0]) / 0.25)
    np.testing.assert_allclose(made.calibrate(p)[:, 0], q, rtol=1e-5)
    assert made.fallbacks == {}


def test_weights_put_a_thinned_sample_right():
    """A sample with a fifth of the negatives and weights of five fits what the uniform one fits."""
    p, y = world(200_000, slope=0.7)
    rng = np.random.default_rng(3)
    kept = (y[:, 0] == 1) | (rng.random(len(p)) < 0.2)
    weight = np.where(y[kept, 0] == 1, 1.0, 5.0)
    curve = fit(p[kept], y[kept], ["save"], ranker="r@1", weight=weight).heads[0].curve
    assert (curve.slope, curve.bias) == (pytest.approx(0.7, abs=0.03), pytest.approx(0.0, abs=0.06))


def test_heads_that_cannot_be_fitted_stay_and_say_so():
    p, y = world(5000)
    rng = np.random.default_rng(0)
    rare = np.zeros(len(p), np.int8)
    rare[:99] = 1
    never = np.zeros(len(p), np.int8)
    backwards = (rng.random(len(p)) < 0.9 - 0.8 * p[:, 0]).astype(np.int8)
    labels = np.column_stack([y[:, 0], rare, never, backwards, y[:, 0]])
    heads = ["save", "hide", "report", "skip", "click"]
    config = CalibrationConfig(heads={"click": "isotonic"}, min_isotonic_positives=10_000)
    made = fit(np.tile(p, (1, 5)), labels, heads, ranker="r@1", config=config)
    assert list(made.fallbacks) == ["hide", "report", "skip", "click"]
    assert "99 positives in the sample, platt needs 100" in made.fallbacks["hide"]
    assert "0 positives" in made.fallbacks["report"]
    assert "slope" in made.fallbacks["skip"]
    assert "isotonic needs 10000" in made.fallbacks["click"]
    out = made.calibrate(np.tile(p, (1, 5)))
    np.testing.assert_array_equal(out[:, 1:], np.tile(p, (1, 4)))
    assert made.heads[1].positives == 99 and made.heads[1].rows == 5000


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labels": np.full((4, 1), 2)}, "0 or 1"),
        ({"labels": np.zeros((3, 1))}, "rows of 1 heads"),
        ({"p": np.full((4, 1), np.nan)}, "scores of save"),
        ({"p": np.full((4, 1), -3.0)}, "logits"),
        ({"weight": [1, 1, -1, 1]}, "weights"),
        ({"features": np.zeros((4, 2)), "feature_names": ["a"]}, "2.*1 names"),
        ({"config": CalibrationConfig(heads={"sav": "platt"})}, "methods are set for sav; heads are save"),
    ],
)
def test_bad_input_is_named(change: dict, match: str):
    given = {
        "p": np.full((4, 1), 0.5),
        "labels": np.array([[0], [1], [0], [1]]),
        "heads": ["save"],
        "ranker": "r@1",
    }
    with pytest.raises(ValueError, match=match):
        fit(**(given | change))
