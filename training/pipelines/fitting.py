"""Fit the Pinnability rankers to arrays: logistic regression by Newton's method, trees by xgboost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.models.pinnability import FeatureSpec, GbdtRanker, LogisticRanker, signed_log, standardise

Floats = NDArray[np.float32]


class NothingToLearn(ValueError):
    """Rows that hold one outcome only."""


_CHUNK = 65_536
"""Rows a pass touches at once, so that what it makes on the way stays in cache."""


@dataclass(frozen=True)
class Rows:
    """Labelled feature rows."""

    features: Floats  # (n, F)
    label: Floats  # (n,) 0 or 1
    weight: Floats  # (n,)

    def __len__(self) -> int:
        return len(self.label)

    def outcomes(self) -> tuple[int, int]:
        """Rows with label 0 and rows with label 1, of those that weigh something."""
        positive = self.label[self.weight > 0] > 0
        return int((~positive).sum()), int(positive.sum())


class LogisticConfig(BaseModel):
    """Logistic regression: weighted log loss plus `l2` times half the squared weights, over the mean row."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    l2: float = Field(1e-4, ge=0)
    iterations: int = Field(50, ge=1)


class GbdtConfig(BaseModel):
    """Gradient-boosted trees; `rounds` is an upper bound, the validation rows say when to stop."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rounds: int = Field(300, ge=1)
    depth: int = Field(6, ge=1, le=16)
    learning_rate: float = Field(0.1, gt=0, le=1)
    min_child_weight: float = Field(5.0, ge=0)
    row_share: float = Field(0.8, gt=0, le=1)
    column_share: float = Field(0.6, gt=0, le=1)
    l2: float = Field(1.0, ge=0)
    patience: int = Field(20, ge=1)
    """Rounds without a better validation log loss after which fitting stops."""
    threads: int = Field(0, ge=0)
    """0: all cores."""


def fit_logistic(
    train: Rows, spec: FeatureSpec, config: LogisticConfig, *, negative_rate: float = 1.0
) -> LogisticRanker:
    """Fit on `train`; raises NothingToLearn where it holds one class only.

    Newton's method with step halving: the problem is convex and narrow, so ten passes do what a gradient method
    needs hundreds for. Makes one standardised copy of the features: 4 bytes a value.
    """
    _two_classes(train)
    mean, scale = _moments(train)
    x = np.empty_like(train.features)
    for rows in _chunks(len(train)):
        x[rows] = standardise(train.features[rows], mean, scale)
    theta = np.zeros(x.shape[1] + 1)
    rate = float(np.average(train.label, weights=train.weight))
    theta[-1] = np.log(rate / (1 - rate))
    loss, gradient, hessian = _logistic_pass(theta, x, train, config.l2)
    for _ in range(config.iterations):
        step = np.linalg.solve(hessian, gradient)
        decrement = float(gradient @ step)
        if decrement < 1e-9:
            break
        size = 1.0
        while size > 1e-4:
            tried = theta - size * step
            found = _logistic_pass(tried, x, train, config.l2)
            if found[0] <= loss - 1e-4 * size * decrement:
                break
            size /= 2
        else:
            break  # no step helps any more: float32 products limit how far the loss can be told apart
        theta, (loss, gradient, hessian) = tried, found
    return LogisticRanker(
        spec=spec,
        mean=mean,
        scale=scale,
        weights=theta[:-1].astype(np.float32),
        bias=float(theta[-1]),
        negative_rate=negative_rate,
    )


def _logistic_pass(
    theta: NDArray[np.float64], x: Floats, train: Rows, l2: float
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Mean loss, its gradient (F + 1,) and Hessian (F + 1, F + 1) at `theta`, the bias last."""
    width = x.shape[1]
    weights, bias = theta[:-1], theta[-1]
    loss, gradient, hessian = 0.0, np.zeros(width + 1), np.zeros((width + 1, width + 1))
    for rows in _chunks(len(x)):
        part, y, w = x[rows], train.label[rows].astype(np.float64), train.weight[rows].astype(np.float64)
        logit = (part @ weights.astype(np.float32)).astype(np.float64) + bias
        p = 1.0 / (1.0 + np.exp(-logit))
        loss += float(w @ (np.logaddexp(0.0, logit) - y * logit))
        residual, curve = w * (p - y), w * p * (1 - p)
        gradient[:-1] += residual.astype(np.float32) @ part
        gradient[-1] += residual.sum()
        scaled = part * np.sqrt(curve).astype(np.float32)[:, None]
        hessian[:-1, :-1] += scaled.T @ scaled
        hessian[:-1, -1] += curve.astype(np.float32) @ part
        hessian[-1, -1] += curve.sum()
    hessian[-1, :-1] = hessian[:-1, -1]
    total = float(train.weight.sum(dtype=np.float64))
    ridge = np.append(np.full(width, l2), 0.0)
    hessian = hessian / total + np.diag(ridge + 1e-8)  # a constant column has no curvature of its own
    return loss / total + 0.5 * l2 * float(weights @ weights), gradient / total + ridge * theta, hessian


def _chunks(rows: int) -> Iterator[slice]:
    return (slice(first, first + _CHUNK) for first in range(0, rows, _CHUNK))


def fit_gbdt(
    train: Rows,
    validation: Rows,
    spec: FeatureSpec,
    config: GbdtConfig,
    *,
    seed: int,
    negative_rate: float = 1.0,
) -> GbdtRanker:
    """Fit on `train`, stop by `validation`; raises NothingToLearn where either holds one class only."""
    import xgboost

    _two_classes(train)
    _two_classes(validation)
    names = list(spec.names)
    matrix = xgboost.QuantileDMatrix(
        train.features, train.label, weight=train.weight, feature_names=names, nthread=config.threads or None
    )
    held = xgboost.QuantileDMatrix(
        validation.features, validation.label, weight=validation.weight, feature_names=names, ref=matrix
    )
    booster = xgboost.train(
        {
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "tree_method": "hist",
            "max_depth": config.depth,
            "eta": config.learning_rate,
            "min_child_weight": config.min_child_weight,
            "subsample": config.row_share,
            "colsample_bytree": config.column_share,
            "lambda": config.l2,
            "seed": seed,
            "nthread": config.threads,
        },
        matrix,
        config.rounds,
        evals=[(held, "validation")],
        early_stopping_rounds=config.patience,
        verbose_eval=False,
    )
    best = booster[: booster.best_iteration + 1]
    best.set_param({"nthread": 1})
    return GbdtRanker(spec, best, negative_rate)


def thin_negatives(rows: Rows, rate: float, seed: int) -> Rows:
    """All positives and a share `rate` of the negatives, drawn evenly."""
    if rate >= 1:
        return rows
    kept = (rows.label > 0) | (np.random.default_rng(seed).random(len(rows)) < rate)
    return Rows(rows.features[kept], rows.label[kept], rows.weight[kept])


def _moments(rows: Rows) -> tuple[Floats, Floats]:
    """Weighted mean and standard deviation of the signed-log features; constant columns get 1."""
    total = rows.weight.sum(dtype=np.float64)
    first = np.zeros(rows.features.shape[1])
    second = np.zeros_like(first)
    for part in _chunks(len(rows)):
        x = signed_log(rows.features[part]).astype(np.float64)
        w = rows.weight[part].astype(np.float64)
        first += w @ x
        second += w @ (x * x)
    mean = first / total
    spread = np.sqrt(np.maximum(second / total - mean**2, 0))
    return mean.astype(np.float32), np.where(spread > 1e-6, spread, 1.0).astype(np.float32)


def _two_classes(rows: Rows) -> None:
    negatives, positives = rows.outcomes()
    if not negatives or not positives:
        raise NothingToLearn(
            f"{negatives + positives} rows with {positives} positives cannot train a ranker: both outcomes are "
            "needed, on rows of some weight"
        )
