"""How good an ads model is, by source, head and day: AUC, log loss and calibration before and after Platt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.ads.baselines import Scores
from training.ads.examples import AdExamples
from training.evaluation import metrics

ALL = "all"
"""Every source."""

MIN_POSITIVES = 5
"""A day with fewer positives says nothing of calibration."""


@dataclass(frozen=True)
class Measured:
    """One head on one source's rows of the test days; what they cannot decide is NaN."""

    source: str
    head: str
    rows: int
    positives: int
    auc: float
    log_loss: float
    error_before: float
    """Mean over the test days of |sum of probabilities / positives - 1|, corrected for thinning alone."""
    error_after: float
    """The same behind the Platt curve."""
    days: tuple[tuple[str, float, float], ...]
    """(day, before, after): the signed error of each day with MIN_POSITIVES positives or more."""


def measure(test: AdExamples, scores: Scores, heads: Sequence[str]) -> tuple[Measured, ...]:
    """Every head on all rows and on each source's."""
    labels = test.of(heads)
    parts = {ALL: np.ones(len(test), bool)}
    parts |= {name: test.sources == name for name in np.unique(test.sources).tolist()}
    return tuple(
        _one(source, head, test.days[rows], labels[rows, i], scores.before[rows, i], scores.after[rows, i])
        for source, rows in parts.items()
        for i, head in enumerate(heads)
    )


def _one(source: str, head: str, days: NDArray, label: NDArray, before: NDArray, after: NDArray) -> Measured:
    decided = 0 < label.sum() < len(label)
    by_day = []
    for day in np.unique(days):
        at = days == day
        if label[at].sum() >= MIN_POSITIVES:
            errors = (metrics.calibration_error(label[at], p[at]) for p in (before, after))
            by_day.append((str(day), *errors))
    missed = np.abs(np.array([row[1:] for row in by_day])).mean(axis=0) if by_day else (np.nan, np.nan)
    return Measured(
        source=source,
        head=head,
        rows=len(label),
        positives=int(label.sum()),
        auc=metrics.auc(label, after) if decided else float("nan"),
        log_loss=metrics.log_loss(label, after) if len(label) else float("nan"),
        error_before=float(missed[0]),
        error_after=float(missed[1]),
        days=tuple(by_day),
    )


def flat(measured: Mapping[str, Sequence[Measured]], own: str) -> dict[str, float]:
    """Metrics for the registry: `auc/click/standard` of the arm `own`, `mixed/auc/click/standard` of others."""
    out: dict[str, float] = {}
    for arm, rows in measured.items():
        for row in rows:
            for name in ("auc", "log_loss", "error_before", "error_after"):
                key = f"{name}/{row.head}/{row.source}"
                out[key if arm == own else f"{arm}/{key}"] = getattr(row, name)
            if arm == own:
                out[f"positives/{row.head}/{row.source}"] = float(row.positives)
    return {name: value for name, value in out.items() if np.isfinite(value)}


def table(measured: Mapping[str, Sequence[Measured]]) -> str:
    """A line an arm, source and head, in Markdown."""
    lines = ["| arm | source | head | rows | positives | AUC | log loss | error a day, before | after Platt |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for arm, rows in measured.items():
        lines += [
            f"| {arm} | {r.source} | {r.head} | {r.rows} | {r.positives} | {r.auc:.4f} | {r.log_loss:.4f} |"
            f" {r.error_before:.3f} | {r.error_after:.3f} |"
            for r in rows
        ]
    return "\n".join(lines)
