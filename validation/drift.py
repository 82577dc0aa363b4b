"""Have features moved away from those that were trained on? Population stability index, feature by feature.

With e and o the shares of rows that a bin held in training and holds now, PSI = sum over bins of (o - e) ln(o
/ e). Bins are the training set's deciles; a value that holds a decile alone (a zero) gets a bin of its own,
and what is missing is a bin too. By custom under 0.1 is calm and over 0.25 has moved.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.stats import chi2

from validation.manifest import Frozen

Floats = NDArray[np.float32]

_LEAST_SHARE = 1e-4
"""An empty bin counts as this share, so that the logarithm stays finite."""

_SURPRISE = 1e-3
"""PSI above the bound counts only where so few samples of the training rows themselves would show as much."""


class FeatureDrift(ValueError):
    """Features have moved away from the training baseline; the message names them."""


class DriftMismatch(ValueError):
    """The columns are not those that the baseline was made of."""


class FeatureBaseline(Frozen):
    """How one feature was spread in training."""

    name: str
    edges: tuple[float, ...]
    """Rising borders: bin i holds values from edges[i - 1] on and below edges[i]."""
    shares: tuple[float, ...]
    """Share of rows of each bin; the last is of missing values."""

    @model_validator(mode="after")
    def _parallel(self) -> FeatureBaseline:
        if len(self.shares) != len(self.edges) + 2:
            raise ValueError(f"{self.name}: {len(self.edges)} edges make {len(self.edges) + 2} shares")
        return self


class DriftBaseline(Frozen):
    """How every feature was spread in training; kept beside the model as JSON."""

    rows: int = Field(ge=1)
    features: tuple[FeatureBaseline, ...]


class Drift(Frozen):
    """How far one feature has moved."""

    name: str
    psi: float
    chance: float
    """PSI that one in a thousand samples of the training rows would exceed, at these row counts."""
    missing_before: float
    missing_now: float

    def moved(self, bound: float) -> bool:
        """Whether it is above the bound, and above what chance shows."""
        return self.psi > max(bound, self.chance)


def baseline_of(names: Sequence[str], values: Floats, *, bins: int = 10) -> DriftBaseline:
    """The spread of every column of (n, F) training rows. Values that are not finite count as missing."""
    _check(names, values)
    features = []
    for column, name in enumerate(names):
        x = values[:, column].astype(np.float64)
        edges = _edges(x[np.isfinite(x)], bins)
        features.append(
            FeatureBaseline(name=name, edges=tuple(edges.tolist()), shares=tuple(_shares(x, edges).tolist()))
        )
    return DriftBaseline(rows=len(values), features=tuple(features))


def drift(baseline: DriftBaseline, names: Sequence[str], values: Floats) -> tuple[Drift, ...]:
    """Every feature of `baseline` on today's rows (n, F), the most moved first.

    Raises DriftMismatch where `names` lacks one of them; columns that the baseline does not know are passed
    over.
    """
    _check(names, values)
    lacking = [f.name for f in baseline.features if f.name not in names]
    if lacking:
        raise DriftMismatch(f"the baseline has {', '.join(lacking)}, the rows have not; make both of one model")
    out = []
    for feature in baseline.features:
        x = values[:, list(names).index(feature.name)].astype(np.float64)
        before, now = np.array(feature.shares), _shares(x, np.array(feature.edges))
        filled = max(int(((before > 0) | (now > 0)).sum()), 2)
        noise = 1 / baseline.rows + 1 / len(values)
        out.append(
            Drift(
                name=feature.name,
                psi=psi(before, now),
                chance=float(chi2.isf(_SURPRISE, filled - 1) * noise),
                missing_before=float(before[-1]),
                missing_now=float(now[-1]),
            )
        )
    return tuple(sorted(out, key=lambda d: -d.psi))


def psi(before: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    """Population stability index of two spreads over the same bins."""
    e, o = np.maximum(before, _LEAST_SHARE), np.maximum(now, _LEAST_SHARE)
    return float(((o - e) * np.log(o / e)).sum())


def check_drift(
    baseline: DriftBaseline,
    names: Sequence[str],
    values: Floats,
    *,
    bound: float = 0.25,
    ignore: Sequence[str] = (),
) -> tuple[Drift, ...]:
    """`drift`, once no feature has moved beyond `bound`; `ignore` names those that move by nature (hour of
    day).

    Raises FeatureDrift naming every feature that has, with its PSI and what went missing.
    """
    found = drift(baseline, names, values)
    moved = [d for d in found if d.name not in ignore and d.moved(bound)]
    if moved:
        said = "; ".join(
            f"{d.name} PSI {d.psi:.2f}"
            + (
                f", missing {d.missing_before:.0%} -> {d.missing_now:.0%}"
                if d.missing_now != d.missing_before
                else ""
            )
            for d in moved
        )
        raise FeatureDrift(
            f"{len(moved)} of {len(found)} features moved beyond PSI {bound:g} of the training baseline: "
            f"{said}. Look at what feeds them, or train on newer days"
        )
    return found


def _edges(known: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Inner borders at the quantiles, with a bin of its own for every value that several of them fall on."""
    if len(known) == 0:
        return np.empty(0)
    cuts = np.quantile(known, np.arange(1, bins) / bins, method="lower")
    value, count = np.unique(cuts, return_counts=True)
    atoms = value[count > 1]
    return np.unique(np.concatenate([value, np.nextafter(atoms, np.inf)]))


def _shares(x: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(x)
    counts = np.bincount(np.searchsorted(edges, x[known], side="right"), minlength=len(edges) + 1)
    return np.append(counts, (~known).sum()) / len(x)


def _check(names: Sequence[str], values: Floats) -> None:
    if values.ndim != 2 or values.shape[1] != len(names):
        raise DriftMismatch(f"rows are {values.shape}; a column for each of {len(names)} names is needed")
    if len(values) == 0:
        raise DriftMismatch("there are no rows to compare")
