"""Rankers on the days after those they learned from: every head's probabilities, and the order they make
together.

Every ranker of the table is fitted on the same rows and the same heads, calibrated on the validation days
(Platt), and measured on the test days. Scores are those that serving would give: the position a pin was shown
at is something a ranker may learn from, never something it is told. The order is by utility, for HIT@K/h.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.context import Progress, silent
from training.data.splits import Interval, TimeSplit
from training.data.training_set import Block, TrainingSet
from training.evaluation import metrics
from training.evaluation.auc_by_user import auc_by_user
from training.evaluation.calibration_metrics import calibration_table
from training.evaluation.diversity_curve import Trade
from training.evaluation.hit_at_k import hit_at_k
from training.evaluation.ranking_report import HeadQuality, RankingReport, RankingRow
from training.evaluation.slices import block_slices
from training.evaluation.spread import Spread, difference
from training.models.calibration import CalibrationConfig, fit
from training.models.utility import UtilityWeights, utility

Floats = NDArray[np.float32]
Parts = NDArray[np.float64]

MIN_POSITIVES = 10
"""A head with fewer in training, validation or test is left out: its numbers would be chance."""


class RankingError(ValueError):
    """Rankers cannot be measured on these rows; the message says why."""


@dataclass(frozen=True)
class RankingData:
    """The rows of one evaluation; each block is read once."""

    rows: TrainingSet
    split: TimeSplit
    """`train` may be narrower than everything before `validation`."""
    heads: tuple[str, ...]
    """Actions with enough positives in every part."""

    @classmethod
    def of(
        cls, rows: TrainingSet, split: TimeSplit, *, min_positives: int = MIN_POSITIVES
    ) -> tuple[RankingData, dict[str, str]]:
        """The data, and the actions that are left out with the reason. Raises RankingError where all are."""
        whole = cls(rows, split, rows.info.action_names)
        counts = {
            part: labels.sum(axis=0, dtype=np.int64)
            for part, labels in (
                ("training", whole.train.labels),
                ("validation", whole.validation.labels),
                ("test", whole.test.labels),
            )
        }
        left_out = {}
        for column, head in enumerate(whole.heads):
            few = [f"{c[column]} in {part}" for part, c in counts.items() if c[column] < min_positives]
            if few:
                left_out[head] = f"{', '.join(few)}, {min_positives} positives are needed"
        heads = tuple(head for head in whole.heads if head not in left_out)
        if not heads:
            raise RankingError("no action has enough positives: " + "; ".join(map(": ".join, left_out.items())))
        chosen = cls(rows, split, heads)
        for part in ("train", "validation", "test"):
            chosen.__dict__[part] = getattr(whole, part)
        return chosen, left_out

    @cached_property
    def train(self) -> Block:
        return self._block(self.split.train, "training")

    @cached_property
    def validation(self) -> Block:
        return self._block(self.split.validation, "validation")

    @cached_property
    def test(self) -> Block:
        return self._block(self.split.test, "test")

    def labels(self, block: Block) -> NDArray[np.int8]:
        """(n, H), a column for each of `heads`."""
        names = self.rows.info.action_names
        return block.labels[:, [names.index(head) for head in self.heads]]

    def _block(self, interval: Interval, part: str) -> Block:
        block = self.rows.block(interval)
        if len(block) == 0:
            raise RankingError(f"there are no {part} rows in {interval}; bring more days")
        return block


@dataclass(frozen=True)
class Scores:
    """Probabilities as serving would give them, a column for each head."""

    validation: Floats  # (m, H)
    test: Floats  # (n, H)


class RankingModel(Protocol):
    """One row of the table."""

    seeded: bool
    """Whether fitting draws at random."""

    def scores(self, data: RankingData, seed: int) -> Scores:
        """Fit on `data.train` (and stop by `data.validation`), score validation and test."""


def evaluate(
    data: RankingData,
    models: Mapping[str, RankingModel],
    *,
    seeds: Sequence[int] = (0,),
    k: int = 3,
    weights: UtilityWeights | None = None,
    trade: Trade | None = None,
    against: str | None = None,
    skipped: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> RankingReport:
    """Every model under every seed (once where it has none), in one report.

    `weights` order the pins of a request, the data set's defaults if left out; `trade` also draws what variety
    costs under them; `against` is the model that every other's AUC is compared with, user by user. Raises
    UtilityError where the weights weigh no head, RankingError for an `against` that is no model.
    """
    if against is not None and against not in models:
        raise RankingError(f"--against {against}: add it to --models; there are {', '.join(models)}")
    weights = (weights or UtilityWeights.default(data.rows.info.vocabulary)).check(data.rows.info.vocabulary)
    vector = weights.vector(data.heads)
    rows: list[RankingRow] = []
    parts: dict[str, list[Parts]] = {name: [] for name in models}
    for name, model in models.items():
        for seed in seeds if model.seeded else seeds[:1]:
            progress(f"{name}, seed {seed}")
            started = time.perf_counter()
            scores = model.scores(data, seed)
            rows.append(_row(data, name, seed, scores, vector, k, trade, time.perf_counter() - started))
            if against is not None:
                parts[name].append(_by_user(data, scores.test))
    info, test = data.rows.info, data.test
    return RankingReport(
        heads=data.heads,
        k=k,
        facts={
            "scheme": info.scheme,
            "train": str(data.split.train),
            "validation": str(data.split.validation),
            "test": str(data.split.test),
            "training rows": len(data.train),
            "test rows": len(test),
            "users": int(test.keys["user_id"].nunique()),
            "requests": int(test.keys["request_id"].nunique()),
            "utility": {head: round(float(w), 6) for head, w in zip(data.heads, vector, strict=True)},
            "positions": "a constant" if info.has_position else "none recorded",
        },
        rows=tuple(rows),
        skipped=dict(skipped or {}),
        against=against,
        changes={} if against is None else _changes(parts, against),
    )


def head_quality(
    head: str, label: ArrayLike, raw: Floats, calibrated: Floats, position: ArrayLike
) -> HeadQuality:
    """One head's numbers: order and fit of its scores (n,), and their fit once calibrated; `position` is
    (n,)."""
    y = np.asarray(label)
    order = metrics.auc(y, raw)
    positives = int(y.sum())
    return HeadQuality(
        head=head,
        positives=positives,
        auc=order,
        auc_error=auc_error(order, positives, len(y) - positives),
        auc_same_place=metrics.grouped_auc(y, raw, position),
        pr_auc=metrics.pr_auc(y, raw),
        log_loss=metrics.log_loss(y, calibrated),
        ece=metrics.ece(y, raw),
        ece_calibrated=metrics.ece(y, calibrated),
        total_error=metrics.calibration_error(y, calibrated),
    )


def auc_error(auc: float, positives: int, negatives: int) -> float:
    """Half the 95 % interval of an AUC (Hanley and McNeil 1982, eq. 1); NaN without both outcomes."""
    if not positives or not negatives:
        return float("nan")
    above, below = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (above - auc**2) + (negatives - 1) * (below - auc**2)
    return 1.96 * float(np.sqrt(max(variance, 0.0) / (positives * negatives)))


def _by_user(data: RankingData, scores: Floats) -> Parts:
    """What each user adds to the AUC of each head, (H, users)."""
    users, labels = data.test.keys["user_id"], data.labels(data.test)
    return np.stack([auc_by_user(labels[:, h], scores[:, h], users) for h in range(len(data.heads))])


def _changes(parts: Mapping[str, Sequence[Parts]], against: str) -> dict[str, tuple[Spread, ...]]:
    """Of the AUC of each head, by model."""
    runs = {name: np.stack(own, axis=1) for name, own in parts.items()}  # (H, seeds, users)
    other = runs.pop(against)
    return {name: tuple(map(difference, own, other)) for name, own in runs.items()}


def _row(
    data: RankingData,
    name: str,
    seed: int,
    scores: Scores,
    weights: Floats,
    k: int,
    trade: Trade | None,
    took: float,
) -> RankingRow:
    test, labels = data.test, data.labels(data.test)
    beside = data.rows.info.calibration_features
    calibrator = fit(
        scores.validation,
        data.labels(data.validation),
        data.heads,
        ranker=name,
        config=CalibrationConfig(min_positives=50),
        features=data.validation.columns(beside) if beside else None,
        feature_names=beside,
    )
    made = calibrator.calibrate(scores.test, test.columns(beside))
    worth = utility(made, weights)
    hits = hit_at_k(test.keys["user_id"], test.keys["request_id"], worth, labels, k)
    return RankingRow(
        model=name,
        seed=seed,
        heads=tuple(
            head_quality(head, labels[:, h], scores.test[:, h], made[:, h], test.position)
            for h, head in enumerate(data.heads)
        ),
        calibration=calibration_table(labels, scores.test, made, data.heads, block_slices(test)),
        hits=tuple(Spread.of(hits.values[None, :, h]) for h in range(len(data.heads))),
        trade=trade.curve(test, worth) if trade else (),
        uncalibrated=calibrator.fallbacks,
        fit_s=took,
    )
