"""PSI by hand, moves that must trip, and samples of the same world that must not."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from validation.drift import (
    DriftBaseline,
    DriftMismatch,
    FeatureBaseline,
    FeatureDrift,
    baseline_of,
    check_drift,
    drift,
    psi,
)

NAMES = ("count", "cosine", "flat")


def rows(n: int, seed: int) -> np.ndarray:
    """A count that is mostly zero, a cosine that is sometimes missing, a constant."""
    rng = np.random.default_rng(seed)
    cosine = np.where(rng.random(n) < 0.05, np.nan, rng.normal(0.3, 0.2, n))
    return np.column_stack([rng.poisson(0.4, n), cosine, np.full(n, 2.5)]).astype(np.float32)


def test_psi_by_hand():
    before, now = np.array([0.5, 0.5]), np.array([0.8, 0.2])
    assert psi(before, now) == pytest.approx(0.3 * np.log(1.6) - 0.3 * np.log(0.4))
    assert psi(before, before) == 0
    assert np.isfinite(psi(np.array([1.0, 0.0]), np.array([0.0, 1.0])))


def test_bins_are_deciles_with_atoms_and_missing_apart():
    made = baseline_of(("x",), np.repeat([0.0, 1.0, 2.0, np.nan], [70, 10, 10, 10])[:, None].astype(np.float32))
    feature = made.features[0]
    assert sum(feature.shares) == pytest.approx(1) and feature.shares[-1] == pytest.approx(0.1)
    assert feature.shares[:2] == (0.0, pytest.approx(0.7))  # below zero nothing, zero itself apart
    even = baseline_of(("x",), np.random.default_rng(0).random((10_000, 1)).astype(np.float32)).features[0]
    np.testing.assert_allclose(even.shares[:-1], 0.1, atol=0.001)


@pytest.mark.parametrize("n", [60, 1000, 20_000])
def test_the_same_world_does_not_trip(n: int):
    baseline = baseline_of(NAMES, rows(30_000, 0))
    for seed in range(1, 30):
        check_drift(baseline, NAMES, rows(n, seed), bound=0.02)


@pytest.mark.parametrize(
    ("column", "move", "says"),
    [
        (0, lambda x: x * 3 + 1, "count PSI"),
        (1, lambda x: x + 0.3, "cosine PSI"),
        (1, lambda x: np.where(np.arange(len(x)) % 2, np.nan, x), r"cosine PSI .*missing 5% -> 5[0-9]%"),
        (2, lambda x: x + 0.1, "flat PSI"),
        (2, lambda x: x - 0.1, "flat PSI"),
        (2, lambda x: x * np.nan, "flat PSI .*missing 0% -> 100%"),
    ],
)
def test_a_move_trips_and_is_named(column: int, move, says: str):
    baseline, now = baseline_of(NAMES, rows(20_000, 0)), rows(5000, 1)
    now[:, column] = move(now[:, column])
    with pytest.raises(FeatureDrift, match=rf"1 of 3 features.*{says}"):
        check_drift(baseline, NAMES, now)
    check_drift(baseline, NAMES, now, ignore=(NAMES[column],))


def test_the_most_moved_comes_first():
    baseline, now = baseline_of(NAMES, rows(20_000, 0)), rows(5000, 1)
    now[:, 0] += 2
    now[:, 1] += 0.05
    assert [d.name for d in drift(baseline, NAMES, now)] == ["count", "cosine", "flat"]


def test_columns_are_found_by_name():
    baseline, now = baseline_of(NAMES, rows(20_000, 0)), rows(5000, 1)
    check_drift(baseline, ("new", "flat", "cosine", "count"), np.column_stack([now[:, 0], now[:, ::-1]]))
    with pytest.raises(DriftMismatch, match="the baseline has flat"):
        check_drift(baseline, NAMES[:2], now[:, :2])
    with pytest.raises(DriftMismatch, match="2 names"):
        check_drift(baseline, NAMES[:2], now)
    with pytest.raises(DriftMismatch, match="no rows"):
        check_drift(baseline, NAMES, now[:0])


def test_the_baseline_is_kept_as_json():
    made = baseline_of(NAMES, rows(3000, 0))
    loaded = DriftBaseline.model_validate_json(made.model_dump_json())
    now = rows(800, 3)
    assert drift(loaded, NAMES, now) == drift(made, NAMES, now)
    with pytest.raises(ValidationError, match="1 edges make 3 shares"):
        FeatureBaseline(name="x", edges=(0.0,), shares=(0.5, 0.5))
