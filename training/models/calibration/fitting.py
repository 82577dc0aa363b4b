"""Fit a calibrator on a uniform sample: as many rows of every outcome as really happen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.models.calibration.calibrator import Calibrator, HeadCalibration
from training.models.calibration.curves import Curve, Identity, Isotonic, Platt, logit, standardised
from training.models.calibration.sampling import restore_rate

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

Method = Literal["platt", "isotonic", "sampling"]
"""`sampling` corrects for thinned negatives and fits nothing."""


class CalibrationConfig(BaseModel):
    """How heads are calibrated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = "platt"
    heads: Mapping[str, Method] = Field(default_factory=dict)
    """Heads with a method of their own."""
    min_positives: int = Field(100, ge=1)
    """A head with fewer positives, or negatives, in the sample has no curve of its own."""
    min_isotonic_positives: int = Field(1000, ge=1)
    """The same for isotonic, which has as many parameters as it finds steps."""
    l2: float = Field(1e-6, gt=0)
    """Platt: times half the squared slope and weights, beside the mean log loss."""


class _Refused(Exception):
    """A head that must not be fitted; the message is the calibrator's `fallback`."""


def fit(
    p: Floats,
    labels: ArrayLike,
    heads: Sequence[str],
    *,
    ranker: str,
    config: CalibrationConfig | None = None,
    negative_rate: float | Mapping[str, float] = 1.0,
    weight: ArrayLike | None = None,
    features: Floats | None = None,
    feature_names: Sequence[str] = (),
    sample: str = "",
    stand_in: Calibrator | None = None,
) -> Calibrator:
    """Curves for every head of `ranker`, fitted to what happened.

    Parameters
    ----------
    p : (n, H) scores in [0, 1] of rows the ranker was not trained on.
    labels : (n, H) 0 or 1. The rows must be a uniform sample of those that will be scored
        (`uniform_sample`), or `weight` (n,) the inverse of the chance that each was taken with.
    negative_rate : share of negatives the ranker was trained on, of all heads or by head, where it does not
        correct for it itself.
    features : (n, F) read beside the score by Platt, NaN where unknown; `feature_names` are their F names.
    sample : what the rows are, in words, for the model card.
    stand_in : of a wider sample of the same ranker: its curves serve heads that cannot be fitted on this one.

    A head that cannot be fitted says why in `Calibrator.fallbacks`: too few positives or negatives, or scores
    that order the sample backwards. It keeps its scores where `stand_in` has no curve for it either. Raises
    ValueError for blocks that do not belong together or scores that are no probabilities.
    """
    config = config or CalibrationConfig()
    y = np.asarray(labels)
    w = np.ones(len(p)) if weight is None else np.asarray(weight, np.float64)
    _check(np.asarray(p), y, w, heads, config, features, feature_names)
    rates = negative_rate if isinstance(negative_rate, Mapping) else dict.fromkeys(heads, negative_rate)
    beside = None if features is None else np.asarray(features, np.float64)
    fitted = []
    for column, head in enumerate(heads):
        rate, label = rates.get(head, 1.0), y[:, column].astype(np.float64)
        full = restore_rate(np.asarray(p)[:, column].astype(np.float64), rate).astype(np.float64)
        curve, why = Identity(), None
        try:
            curve = _curve(config.heads.get(head, config.method), full, label, w, beside, config)
        except _Refused as refusal:
            curve, instead = _instead(head, stand_in)
            why = f"{head}: {refusal}; {instead}"
        fitted.append(
            HeadCalibration(
                head=head,
                negative_rate=rate,
                curve=curve,
                rows=len(label),
                positives=int(label.sum()),
                fallback=why,
            )
        )
    return Calibrator(ranker=ranker, heads=tuple(fitted), features=tuple(feature_names), sample=sample)


def _instead(head: str, stand_in: Calibrator | None) -> tuple[Curve, str]:
    """What a head without a curve of its own goes through, and how that is said."""
    for other in stand_in.heads if stand_in else ():
        if other.head == head and other.fallback is None:
            return other.curve, f"the curve of {stand_in.sample} stands in"
    return Identity(), "its scores pass as they are"


def _curve(
    method: Method, p: Doubles, y: Doubles, w: Doubles, features: Doubles | None, config: CalibrationConfig
) -> Curve:
    if method == "sampling":
        return Identity()
    needed = config.min_isotonic_positives if method == "isotonic" else config.min_positives
    for outcome, count in (("positives", int(y.sum())), ("negatives", int((1 - y).sum()))):
        if count < needed:
            raise _Refused(f"{count} {outcome} in the sample, {method} needs {needed}")
    return _isotonic(p, y, w) if method == "isotonic" else _platt(p, y, w, features, config.l2)


def _platt(p: Doubles, y: Doubles, w: Doubles, features: Doubles | None, l2: float) -> Platt:
    from sklearn.linear_model import LogisticRegression

    x, mean, scale = logit(p)[:, None], np.empty(0), np.empty(0)
    if features is not None:
        known = np.where(np.isfinite(features), features, np.nan)
        mean, scale = _moments(known)
        x = np.hstack([x, standardised(known, mean, scale)])
    model = LogisticRegression(C=1.0 / (l2 * w.sum()), tol=1e-8, max_iter=1000).fit(x, y, sample_weight=w)
    slope, *weights = model.coef_[0].tolist()
    if slope <= 0:
        raise _Refused(
            f"higher scores go with fewer positives (slope {slope:.2g}); the ranker needs training anew"
        )
    return Platt(
        slope=slope,
        bias=float(model.intercept_[0]),
        weights=tuple(weights),
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
    )


def _isotonic(p: Doubles, y: Doubles, w: Doubles) -> Isotonic:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(p, y, sample_weight=w)
    x, first = np.unique(model.X_thresholds_, return_index=True)
    return Isotonic(x=tuple(x.tolist()), y=tuple(model.y_thresholds_[first].tolist()))


def _moments(features: Doubles) -> tuple[Doubles, Doubles]:
    """Mean and standard deviation (F,) of what is known; 0 and 1 where nothing is, or nothing varies."""
    known = np.isfinite(features)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, features, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(known, (features - mean) ** 2, 0.0).sum(axis=0) / count)
    return mean, np.where(spread > 1e-9 * np.maximum(np.abs(mean), 1.0), spread, 1.0)


def _check(
    p: Floats,
    y: NDArray,
    w: Doubles,
    heads: Sequence[str],
    config: CalibrationConfig,
    features: Floats | None,
    names: Sequence[str],
) -> None:
    if p.ndim != 2 or p.shape != y.shape or p.shape[1] != len(heads) or w.shape != (len(p),):
        raise ValueError(
            f"scores {p.shape}, labels {y.shape} and weight {w.shape} must be rows of {len(heads)} heads"
        )
    if (np.shape(features) if features is not None else (len(p), 0)) != (len(p), len(names)):
        raise ValueError(f"features {np.shape(features)} and their {len(names)} names do not belong together")
    unknown = sorted(set(config.heads) - set(heads))
    if unknown:
        raise ValueError(f"methods are set for {', '.join(unknown)}; heads are {', '.join(heads)}")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not (np.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
        raise ValueError("weights must be finite and not negative, and not all zero")
    wrong = ~((p >= 0) & (p <= 1)).all(axis=0)
    if wrong.any():
        named = ", ".join(head for head, bad in zip(heads, wrong, strict=True) if bad)
        raise ValueError(f"scores of {named} are not all in [0, 1]; pass probabilities, not logits")
