"""The calibrator that stands beside every ranker version, and what the two reach together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.splits import TimeSplit
from training.data.training_set import Block, TrainingSet
from training.evaluation.calibration_metrics import CalibrationRow, calibration_table
from training.evaluation.ranker_metrics import labels_of, ranker_metrics
from training.evaluation.served_scores import served_scores
from training.evaluation.slices import block_slices
from training.models.calibration import CalibrationConfig, Calibrator, fit, uniform_sample
from training.models.ranker import ENGAGE, Ranker
from training.transact.examples import Known

Floats = NDArray[np.float32]

SAMPLE_ROWS = 500_000
"""Validation rows that curves are fitted on; of more, a uniform sample of requests."""


@dataclass(frozen=True)
class Calibrated:
    """A calibrator, and the two measured on the days after those it was fitted on."""

    calibrator: Calibrator
    metrics: dict[str, float]
    test: Block
    scores: Floats  # (n, H) calibrated, of the test rows
    reliability: tuple[CalibrationRow, ...]
    """Of the test rows before and after, by head and slice."""


def calibrate(
    ranker: Ranker,
    version: str,
    rows: TrainingSet,
    split: TimeSplit,
    *,
    known: Known | None = None,
    negative_rate: float = 1.0,
    config: CalibrationConfig | None = None,
    seed: int = 0,
) -> Calibrated:
    """Fit `ranker`'s calibrator on the validation days, as they would be served, and measure on the test days.

    `version` is the ranker's, `transact@4`; `negative_rate` the share of rows without an action in its
    training, where the ranker does not correct for it.
    """
    actions, heads, beside = rows.info.action_names, ranker.heads, rows.info.calibration_features
    block = rows.block(split.validation)
    if len(block) > SAMPLE_ROWS:
        share = SAMPLE_ROWS / len(block)
        sampled = uniform_sample(block.keys["request_id"].to_numpy(np.int64), share, seed)
        block = block.take(np.flatnonzero(sampled))
    calibrator = fit(
        served_scores(ranker, block, known),
        labels_of(heads, actions, block),
        heads,
        ranker=version,
        config=config,
        negative_rate=negative_rate,
        features=block.columns(beside) if beside else None,
        feature_names=beside,
        sample=f"{len(block)} rows of {split.validation}, at serving's position",
    )
    test = rows.block(split.test)
    raw = served_scores(ranker, test, known)
    made = calibrator.calibrate(raw, test.columns(beside))
    reliability = calibration_table(labels_of(heads, actions, test), raw, made, heads, block_slices(test))
    return Calibrated(calibrator, ranker_metrics(heads, actions, raw, made, test), test, made, reliability)


def engage_scores(heads: tuple[str, ...], scores: Floats) -> Floats:
    """The column of any positive action, (n,)."""
    return scores[:, heads.index(ENGAGE)]
