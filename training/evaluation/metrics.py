"""Metrics of rankers and of retrieval, over plain arrays.

Labels are 0 or 1, scores are probabilities where a metric needs them to be; `weight` counts a row so many
times. A metric that its rows cannot decide (one class only, nothing relevant) is NaN, never a made-up number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_EPSILON = 1e-7
"""Probabilities are kept this far from 0 and 1 in the log loss (float32 scores do reach 1)."""


def auc(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Area under the ROC curve: chance that a positive scores above a negative, ties counting half."""
    y, s, w = _rows(label, score, weight)
    order = np.argsort(s, kind="stable")
    y, s, w = y[order], s[order], w[order]
    positive, negative = w * y, w * (1 - y)
    if positive.sum() == 0 or negative.sum() == 0:
        return float("nan")
    groups = np.concatenate([[0], np.flatnonzero(np.diff(s)) + 1])
    p, n = np.add.reduceat(positive, groups), np.add.reduceat(negative, groups)
    below = np.cumsum(n) - n
    return float((p * (below + n / 2)).sum() / (p.sum() * n.sum()))


def pr_auc(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Average precision: sum over thresholds of the gain in recall times the precision there."""
    y, s, w = _rows(label, score, weight)
    order = np.argsort(-s, kind="stable")
    y, s, w = y[order], s[order], w[order]
    if (w * y).sum() == 0:
        return float("nan")
    last = np.concatenate([np.flatnonzero(np.diff(s)), [len(s) - 1]])
    hits, shown = np.cumsum(w * y)[last], np.cumsum(w)[last]
    gains = np.diff(np.concatenate([[0.0], hits])) / hits[-1]
    return float((gains * hits / np.maximum(shown, 1e-300)).sum())


def log_loss(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Mean of -log of the probability given to what happened, in nats."""
    y, s, w = _rows(label, score, weight)
    p = np.clip(s, _EPSILON, 1 - _EPSILON)
    return float(np.average(-(y * np.log(p) + (1 - y) * np.log(1 - p)), weights=w))


def rmse(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Root of the mean squared difference."""
    y, s, w = _rows(label, score, weight)
    return float(np.sqrt(np.average((y - s) ** 2, weights=w)))


def r2(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Share of the labels' variance that the scores explain: 1 is perfect, 0 the mean, negative worse."""
    y, s, w = _rows(label, score, weight)
    spread = np.average((y - np.average(y, weights=w)) ** 2, weights=w)
    return float(1 - np.average((y - s) ** 2, weights=w) / spread) if spread > 0 else float("nan")


@dataclass(frozen=True)
class Reliability:
    """Predicted against observed, over bins of equal row count; arrays (B,)."""

    predicted: np.ndarray
    observed: np.ndarray
    weight: np.ndarray


def reliability(
    label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None, *, bins: int = 20
) -> Reliability:
    """Mean score and mean label in `bins` bins of about equal row count; equal scores share a bin."""
    y, s, w = _rows(label, score, weight)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    order = np.argsort(s, kind="stable")
    y, s, w = y[order], s[order], w[order]
    edge = (np.arange(1, bins) * len(s)) // bins
    edge = np.searchsorted(s, s[edge])  # the first row of the score that the border falls on
    starts = np.unique(np.concatenate([[0], edge]))
    total = np.add.reduceat(w, starts)
    kept = total > 0
    total = np.where(kept, total, 1.0)
    return Reliability(
        predicted=(np.add.reduceat(w * s, starts) / total)[kept],
        observed=(np.add.reduceat(w * y, starts) / total)[kept],
        weight=total[kept],
    )


def ece(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None, *, bins: int = 20) -> float:
    """Expected calibration error: weighted mean of |observed - predicted| over `reliability` bins."""
    table = reliability(label, score, weight, bins=bins)
    return float(np.average(np.abs(table.observed - table.predicted), weights=table.weight))


def calibration_error(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Total calibration error, sum of scores over sum of labels less 1; 0 is right, positive is too high."""
    y, s, w = _rows(label, score, weight)
    happened = (w * y).sum()
    return float((w * s).sum() / happened - 1) if happened > 0 else float("nan")


def grouped_auc(label: ArrayLike, score: ArrayLike, group: ArrayLike) -> float:
    """Mean AUC within groups (a request, a user), each weighing as many rows as it has; groups of one class
    are left out. What a ranker can still be right about when only the order within a page matters.
    """
    y, s, _ = _rows(label, score, None)
    g = np.asarray(group)
    if g.shape != y.shape:
        raise ValueError(f"group has shape {g.shape}, label {y.shape}; one group a row is needed")
    _, g = np.unique(g, return_inverse=True)
    order = np.lexsort((s, g))
    y, s, g = y[order], s[order], g[order]
    first = np.concatenate([[True], (g[1:] != g[:-1]) | (s[1:] != s[:-1])])
    tie = np.flatnonzero(first)  # runs of one score within one group
    p, n = np.add.reduceat(y, tie), np.add.reduceat(1 - y, tie)
    owner = g[tie]
    groups = int(g[-1]) + 1
    below_all = np.cumsum(n) - n
    start = np.concatenate([[True], owner[1:] != owner[:-1]])
    below = below_all - below_all[start][owner]
    positives, negatives = np.bincount(owner, p, groups), np.bincount(owner, n, groups)
    won = np.bincount(owner, p * (below + n / 2), groups)
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return float("nan")
    each = won[both] / (positives[both] * negatives[both])
    return float(np.average(each, weights=(positives + negatives)[both]))


def recall_at_k(hits: np.ndarray, relevant: ArrayLike, k: int) -> np.ndarray:
    """Share of each row's relevant items among its first k, float64 (n,); NaN where a row has none.

    `hits` is bool (n, m), m >= k: whether the item at each rank is relevant; `relevant` is (n,), how many
    relevant items there are in all.
    """
    count = _checked(hits, relevant, k)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, hits[:, :k].sum(axis=1) / count, np.nan)


def hit_rate_at_k(hits: np.ndarray, relevant: ArrayLike, k: int) -> np.ndarray:
    """1 where any of a row's first k items is relevant, else 0, float64 (n,); NaN where a row has none."""
    count = _checked(hits, relevant, k)
    return np.where(count > 0, hits[:, :k].any(axis=1).astype(float), np.nan)


def ndcg_at_k(hits: np.ndarray, relevant: ArrayLike, k: int) -> np.ndarray:
    """Discounted gain (1 / log2(rank + 1), ranks from 1) over the best possible, float64 (n,); NaN where
    a row has none relevant."""
    count = _checked(hits, relevant, k)
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(count, k).astype(int)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, (hits[:, :k] * discount).sum(axis=1) / best, np.nan)


def _rows(
    label: ArrayLike, score: ArrayLike, weight: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three columns as float64 (n,). Raises ValueError naming what does not belong."""
    y, s = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
    w = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    if y.ndim != 1 or y.shape != s.shape or y.shape != w.shape:
        raise ValueError(f"label {y.shape}, score {s.shape} and weight {w.shape} must be of one length")
    if len(y) == 0:
        raise ValueError("there are no rows to measure on")
    if not np.isin(y, (0.0, 1.0)).all():
        raise ValueError("labels must be 0 or 1")
    if not np.isfinite(s).all():
        raise ValueError(f"{int((~np.isfinite(s)).sum())} scores are not finite")
    if (w < 0).any() or w.sum() == 0:
        raise ValueError("weights must not be negative, and not all zero")
    return y, s, w


def _checked(hits: np.ndarray, relevant: ArrayLike, k: int) -> np.ndarray:
    count = np.asarray(relevant, dtype=np.float64)
    if hits.ndim != 2 or count.shape != (hits.shape[0],):
        raise ValueError(f"hits {hits.shape} must be (n, m) beside relevant (n,), got {count.shape}")
    if not 1 <= k <= hits.shape[1]:
        raise ValueError(f"k is {k}; the ranking holds {hits.shape[1]} items")
    return count
