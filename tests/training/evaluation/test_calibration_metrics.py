"""Calibration errors by hand, against scikit-learn, and against the miscalibration that was planted."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from training.evaluation import calibration_metrics as cal
from training.evaluation.figure import FigureError


def world(n: int = 60_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (n, 2) drawn from the truth, scores twice as high for the first head only, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(1, 9, (n, 2)).astype(np.float32) / 2
    labels = (rng.random((n, 2)) < truth).astype(np.int8)
    before = truth.copy()
    before[:, 0] *= 2
    return labels, before, truth


def test_errors_by_hand():
    """Ten rows at 0.1 of which two happen, ten at 0.6 of which six happen."""
    p = np.array([0.1] * 10 + [0.6] * 10)
    y = np.array([1] * 2 + [0] * 8 + [1] * 6 + [0] * 4)
    fit = cal.fit_of(y, p, bins=2)
    assert fit.total_error == pytest.approx(7 / 8 - 1)
    assert fit.ece == pytest.approx(0.05)
    np.testing.assert_allclose(fit.diagram.predicted, [0.1, 0.6])
    np.testing.assert_allclose(fit.diagram.observed, [0.2, 0.6])
    np.testing.assert_allclose(fit.diagram.weight, [10, 10])


def test_the_diagram_is_scikit_learns_at_equal_counts():
    labels, before, _ = world(4000)
    diagram = cal.fit_of(labels[:, 0], before[:, 0], bins=10).diagram
    observed, predicted = calibration_curve(labels[:, 0], before[:, 0], n_bins=10, strategy="quantile")
    np.testing.assert_allclose(diagram.predicted, predicted, rtol=2e-3)
    np.testing.assert_allclose(diagram.observed, observed, atol=3e-3)  # one row may fall beside a border


def test_planted_errors_are_found_where_they_are():
    labels, before, after = world()
    crowd = np.arange(len(labels)) % 3 == 0
    after = after.copy()
    after[crowd, 1] *= 1.5
    rows = {
        (r.head, r.slice): r for r in cal.calibration_table(labels, before, after, ["a", "b"], {"crowd": crowd})
    }
    assert list(rows) == [("a", "all"), ("a", "crowd"), ("b", "all"), ("b", "crowd")]
    assert rows["a", "all"].before.total_error == pytest.approx(1.0, abs=0.06)
    assert rows["a", "all"].after.total_error == pytest.approx(0.0, abs=0.03)
    assert rows["b", "crowd"].after.total_error == pytest.approx(0.5, abs=0.06)
    assert rows["b", "all"].after.total_error == pytest.approx(0.5 / 3, abs=0.05)
    assert rows["a", "crowd"].rows == crowd.sum()
    assert rows["a", "crowd"].positives == labels[crowd, 0].sum()


def test_chance_is_what_perfect_probabilities_show():
    _, _, truth = world(8000)
    rng = np.random.default_rng(1)
    p = truth[:, 0]
    seen = [cal.fit_of(rng.random(len(p)) < p, p).ece for _ in range(60)]
    assert cal.ece_by_chance(p) == pytest.approx(np.mean(seen), rel=0.1)


def test_a_head_without_positives_is_nan_not_an_error():
    row = cal.calibration_table(np.zeros((50, 1)), np.full((50, 1), 0.2), np.full((50, 1), 0.1), ["hide"])[0]
    assert row.positives == 0 and np.isnan(row.after.total_error)
    assert row.after.ece == pytest.approx(0.1)
    assert "nan" in cal.text([row])


def test_empty_slices_are_left_out_and_wrong_shapes_named():
    labels, before, after = world(100)
    rows = cal.calibration_table(labels, before, after, ["a", "b"], {"none": np.zeros(100, bool)})
    assert [r.slice for r in rows] == ["all", "all"]
    with pytest.raises(ValueError, match="slice short"):
        cal.calibration_table(labels, before, after, ["a", "b"], {"short": np.ones(99, bool)})
    with pytest.raises(ValueError, match="1 heads"):
        cal.calibration_table(labels, before, after, ["a"])


def test_the_figure_has_a_panel_for_every_head_and_slice(tmp_path):
    labels, before, after = world(500)
    rows = cal.calibration_table(labels, before, after, ["a", "b"], {"even": np.arange(500) % 2 == 0})
    drawn = cal.figure(rows)
    titles = [panel.get_title() for panel in drawn.axes if panel.get_visible()]
    assert len(titles) == 4 and titles[1].startswith("a, even")
    lines = drawn.axes[0].get_lines()  # the diagonal, before, after
    np.testing.assert_allclose(lines[1].get_xdata(), rows[0].before.diagram.predicted)
    np.testing.assert_allclose(lines[2].get_ydata(), rows[0].after.diagram.observed)
    cal.draw(rows, tmp_path / "deep" / "reliability.png")
    assert (tmp_path / "deep" / "reliability.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(FigureError):
        cal.draw(rows, tmp_path / "reliability.txt")
