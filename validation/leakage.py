"""Does a feature know the label? What predicts an action perfectly was written after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from validation.manifest import Frozen

Floats = NDArray[np.float32]

MAX_AUC = 0.999
MIN_OUTCOMES = 10
"""Fewer positives (or negatives) are parted perfectly by chance: only equality is looked for then."""


class LabelLeak(ValueError):
    """A feature equals a label, or predicts it as nothing known beforehand can; the message names both."""


class Leak(Frozen):
    """One feature that knows one label."""

    feature: str
    label: str
    auc: float
    """Of the feature alone, in whichever direction it predicts."""
    equal: bool
    """Whether it is the label (or its opposite), row by row."""

    def __str__(self) -> str:
        how = (
            f"equals label {self.label}"
            if self.equal
            else f"predicts label {self.label} with AUC {self.auc:.4f}"
        )
        return f"{self.feature} {how}"


def leaks(
    names: Sequence[str],
    values: Floats,
    label_names: Sequence[str],
    labels: NDArray[np.int8],
    *,
    max_auc: float = MAX_AUC,
) -> tuple[Leak, ...]:
    """Every (feature, label) where the feature alone parts the rows of the label with an AUC above `max_auc`.

    `values` is (n, F), NaN where missing, and being missing may be what gives it away; `labels` is (n, H) 0
    or 1. Labels of one outcome only are passed over. Raises ValueError for blocks of different lengths.
    """
    if values.ndim != 2 or labels.ndim != 2 or len(values) != len(labels):
        raise ValueError(f"features {values.shape} and labels {labels.shape} must be rows of one table")
    if values.shape[1] != len(names) or labels.shape[1] != len(label_names):
        raise ValueError(
            f"{values.shape[1]} features with {len(names)} names, "
            f"{labels.shape[1]} labels with {len(label_names)}"
        )
    y = labels > 0
    positives = y.sum(axis=0)
    open_labels = np.flatnonzero((positives > 0) & (positives < len(y)))
    enough = np.minimum(positives, len(y) - positives) >= MIN_OUTCOMES
    found = []
    for column, name in enumerate(names):
        x = values[:, column].astype(np.float64)
        ranks = _ranks(x)
        for label in open_labels:
            equal = _equal(x, y[:, label])
            auc = max(_auc(r, y[:, label], int(positives[label])) for r in ranks)
            if equal or (enough[label] and auc > max_auc):
                found.append(Leak(feature=name, label=label_names[label], auc=auc, equal=equal))
    return tuple(found)


def check_leaks(
    names: Sequence[str],
    values: Floats,
    label_names: Sequence[str],
    labels: NDArray[np.int8],
    *,
    max_auc: float = MAX_AUC,
) -> None:
    """Raise LabelLeak naming every feature that knows a label; see `leaks`."""
    found = leaks(names, values, label_names, labels, max_auc=max_auc)
    if found:
        raise LabelLeak(
            f"{len(found)} features know what they are to foretell: {'; '.join(map(str, found))} "
            f"(bound {max_auc:g}, {len(values)} rows). "
            "Take them out, or read them as of the moment before the impression"
        )


def _ranks(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Ranks with missing values below all others and above all others; one ranking where nothing is missing."""
    missing = np.isnan(x)
    if not missing.any():
        return (rankdata(x),)
    return tuple(rankdata(np.where(missing, end, x)) for end in (-np.inf, np.inf))


def _auc(ranks: NDArray[np.float64], y: NDArray[np.bool_], positives: int) -> float:
    """AUC in the better direction, from the positives' mean rank (Mann and Whitney)."""
    negatives = len(y) - positives
    auc = (ranks[y].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    return float(max(auc, 1 - auc))


def _equal(x: NDArray[np.float64], y: NDArray[np.bool_]) -> bool:
    return bool((x == y).all() or (x == ~y).all())
