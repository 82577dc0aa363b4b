"""A calibrator by hand: each curve's formula, what it refuses, and the file it is kept in."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from training.models.calibration import (
    CalibrationMismatch,
    Calibrator,
    HeadCalibration,
    Identity,
    Isotonic,
    Platt,
)

HEADS = ("save", "click", "hide")


def mixed() -> Calibrator:
    """One head of every kind; `save` also weighs a feature and undoes thinning."""
    platt = Platt(slope=2.0, bias=-1.0, weights=(0.5,), mean=(10.0,), scale=(4.0,))
    return Calibrator(
        ranker="transact@3",
        heads=(
            HeadCalibration(head="save", negative_rate=0.5, curve=platt, rows=900, positives=200),
            HeadCalibration(head="click", curve=Isotonic(x=(0.2, 0.4), y=(0.1, 0.5)), rows=900, positives=300),
            HeadCalibration(head="hide", rows=900, positives=2, fallback="hide: 2 positives"),
        ),
        features=("age",),
        sample="a tenth of last week",
    )


def test_every_curve_by_hand():
    p = np.array([[0.5, 0.3, 0.7], [0.5, 0.05, 0.0], [0.5, 0.9, 1.0]], np.float32)
    out = mixed().calibrate(p, np.array([[10.0], [14.0], [np.nan]], np.float32))
    third = 0.5 / (0.5 + 0.5 / 0.5)  # of thinned negatives half were kept: 1/2 was 1/3
    line = 2 * np.log(third / (1 - third)) - 1
    expected = 1 / (1 + np.exp(-(line + np.array([0.0, 0.5, 0.0]))))  # a missing feature is the mean
    np.testing.assert_allclose(out[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(out[:, 1], [0.3, 0.1, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(out[:, 2], p[:, 2])
    assert out.dtype == np.float32


def test_scores_of_exactly_zero_and_one_stay_probabilities():
    out = mixed().calibrate(np.array([[0, 0, 0], [1, 1, 1]], np.float32), np.zeros((2, 1), np.float32))
    assert np.isfinite(out).all() and (out >= 0).all() and (out <= 1).all()


def test_no_candidates_and_one_candidate():
    assert mixed().calibrate(np.empty((0, 3), np.float32), np.empty((0, 1), np.float32)).shape == (0, 3)
    assert mixed().calibrate(np.full((1, 3), 0.2, np.float32), np.zeros((1, 1), np.float32)).shape == (1, 3)


def test_the_file_is_json_and_gives_the_same_bits(tmp_path):
    made = mixed()
    made.save(tmp_path)
    assert json.loads((tmp_path / "calibration.json").read_text())["ranker"] == "transact@3"
    loaded = Calibrator.load(tmp_path)
    assert loaded == made
    rng = np.random.default_rng(0)
    p, x = rng.random((50, 3), np.float32), rng.random((50, 1), np.float32)
    np.testing.assert_array_equal(loaded.calibrate(p, x), made.calibrate(p, x))
    with pytest.raises(FileNotFoundError):
        Calibrator.load(tmp_path / "nowhere")


def test_fallbacks_are_said():
    assert mixed().fallbacks == {"hide": "hide: 2 positives"}
    assert Calibrator.identity("r@1", HEADS).fallbacks == {}


def test_another_ranker_or_other_heads_are_refused():
    mixed().check("transact@3", HEADS)
    with pytest.raises(CalibrationMismatch, match=r"transact@3, not transact@4"):
        mixed().check("transact@4", HEADS)
    with pytest.raises(CalibrationMismatch, match="the ranker save, hide, click"):
        mixed().check("transact@3", ("save", "hide", "click"))


@pytest.mark.parametrize(
    ("p", "features", "error", "match"),
    [
        (np.full((4, 2), 0.5), np.zeros((4, 1)), CalibrationMismatch, "one column a head"),
        (np.full((4, 3), 0.5), None, CalibrationMismatch, "age"),
        (np.full((4, 3), 0.5), np.zeros((4, 2)), CalibrationMismatch, "age"),
        (np.array([[0.5, np.nan, 0.5]]), np.zeros((1, 1)), ValueError, "click"),
        (np.array([[0.5, 0.5, -2.0]]), np.zeros((1, 1)), ValueError, "hide.*logits"),
    ],
)
def test_what_does_not_belong_is_named(p, features, error, match):
    with pytest.raises(error, match=match):
        mixed().calibrate(p, features)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Platt(slope=-1.0, bias=0.0),
        lambda: Platt(slope=1.0, bias=0.0, weights=(1.0,)),
        lambda: Platt(slope=1.0, bias=float("nan")),
        lambda: Isotonic(x=(0.5, 0.2), y=(0.1, 0.2)),
        lambda: Isotonic(x=(0.2, 0.5), y=(0.3, 0.2)),
        lambda: Isotonic(x=(0.2,), y=(1.2,)),
        lambda: HeadCalibration(head="save", negative_rate=0.0),
        lambda: Calibrator(ranker="r@1", heads=(HeadCalibration(head="a"), HeadCalibration(head="a"))),
        lambda: Calibrator(
            ranker="r@1",
            heads=(
                HeadCalibration(head="a", curve=Platt(slope=1, bias=0, weights=(1,), mean=(0,), scale=(1,))),
            ),
        ),
        lambda: Identity(slope=2),
    ],
)
def test_curves_that_make_no_sense_cannot_be_made(make):
    with pytest.raises(ValidationError):
        make()
