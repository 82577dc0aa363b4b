"""What a TransAct version says of itself in the registry: parameters, metrics, figures, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from feature_repo.schema import PINNABILITY_SERVICE, TRANSACT_LIFELONG_SERVICE
from training.evaluation import calibration_metrics
from training.model_log import FLAVOURS, Dataset, ModelLog, pinned
from training.models.calibration import Calibrator
from training.models.pinnability import FeatureSpec
from training.models.transact.ranker import TransActRanker
from training.pipelines import figures
from training.pipelines.ranker_calibration import Calibrated, engage_scores
from training.pipelines.registering import flat_params
from validation.lake import Lake

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

    from training.pipelines.transact import Job
    from training.pipelines.transact_settings import TransActPipeline

MODEL = "transact"

USER_SPACE_TAG = "user_space"
"""Space of the users' vectors that a version reads."""


def card(
    job: Job,
    ranker: TransActRanker,
    made: Calibrated,
    rate: float,
    facts: Mapping[str, object],
    tags: Mapping[str, str],
) -> ModelLog:
    """Everything there is to say of `ranker`, whose rows without an action were thinned to `rate`; `facts` are
    parameters and `tags` tags of how the weights came to be."""
    info, split, space = job.rows.info, job.split, job.content.space or ""
    score = engage_scores(ranker.heads, made.scores)
    users = job.no_former if ranker.user_space is None else f"{ranker.user_space}, of each day's midnight"
    return ModelLog(
        name=MODEL,
        flavour=FLAVOURS / "transact.py",
        description=f"Probability of each action on a pin that a user is shown, from {_read(ranker)} met "
        "with the pin by a transformer, and every feature, through full-rank DCNv2 (arXiv 2306.00248).",
        params={
            **settings(job.config, ranker.spec),
            "heads": ", ".join(ranker.heads),
            "negative_rate": rate,
            "user_vectors_of": users,
            "position": ranker.spec.position,
            "space": space,
            "train": split.train,
            "validation": split.validation,
            "test": split.test,
            "rows": info.rows,
            **{f"labels.{action}": count for action, count in info.label_sums.items()},
            "scheme": info.scheme,
            **facts,
        },
        metrics=made.metrics,
        interval=(split.train.start, split.validation.end),
        datasets=(Dataset("training_set", str(job.rows.path), info.fingerprint),),
        signature=_signature(ranker),
        requirements=pinned("numba", "numpy", "pandas", "pydantic", "safetensors", "torch"),
        inputs=job.inputs,
        tags={
            "feature_service": TRANSACT_LIFELONG_SERVICE if ranker.reads_history else PINNABILITY_SERVICE,
            "space": space,
            "content_space": space,
            **({} if ranker.user_space is None else {USER_SPACE_TAG: ranker.user_space}),
            **tags,
        },
        figures={
            "roc": figures.roc(made.test.label, score),
            "calibration": calibration_metrics.figure(made.reliability),
        },
        notes=_notes(job, ranker.spec, rate, made.calibrator, users),
    )


def settings(config: TransActPipeline, spec: FeatureSpec) -> dict[str, object]:
    """Everything a version is made with, flat, as its parameters record it; `spec` is what it reads."""
    others = {name: v for name, v in flat_params(config).items() if not name.startswith("features.")}
    names = {"features": ", ".join(spec.names), "features.serving_position": spec.serving_position}
    return others | names


def changed_settings(params: Mapping[str, str], config: TransActPipeline, spec: FeatureSpec) -> tuple[str, ...]:
    """Names of the settings in which a version with these parameters differs, sorted; one that either side
    lacks differs."""
    asked = {name: str(value) for name, value in settings(config, spec).items()}
    recorded = {n: v for n, v in params.items() if n.split(".")[0] in type(config).model_fields}
    return tuple(sorted(n for n in asked.keys() | recorded.keys() if asked.get(n) != recorded.get(n)))


def _notes(job: Job, spec: FeatureSpec, rate: float, calibrator: Calibrator, users: str) -> str:
    position = "a feature of training rows, one constant when serving" if spec.position else "none"
    uncalibrated = "".join(f" Uncalibrated: {why}." for why in calibrator.fallbacks.values())
    return (
        f"Rows: {job.rows.info.scheme_note}. Of the rows without an action {rate:.0%} were read, which "
        f"calibration undoes.{_targets(job.config)} Calibrated on {calibrator.sample}; metrics are of "
        f"{job.split.test}.{uncalibrated} Positions: {position}. Long-term vectors of users: {users}. "
        f"Trained on what the logging policy chose to show. {Lake(job.ctx.lake).contract().notes}"
    )


def _targets(config: TransActPipeline) -> str:
    """What is learned that is no label; nothing without a teacher."""
    if config.teacher is None:
        return ""
    return (
        f" Of a target, {config.teacher.share:.0%} is what boosted trees answer, where weights start afresh "
        "and `not_taught` does not name the head."
    )


def _read(ranker: TransActRanker) -> str:
    """Which of the user's tokens a pin meets."""
    settings = ranker.network.config.lifelong
    if settings is None:
        return "their last actions"
    return (
        f"their last {settings.recent} actions and those like the pin: {settings.nearest_realtime} of the last "
        f"{settings.realtime}, {settings.nearest_lifelong} of the {settings.length} before a midnight, "
        f"{settings.nearest_impressions} impressions without an action (TransAct V2, arXiv 2506.02267),"
    )


def _signature(ranker: TransActRanker) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema, TensorSpec

    vectors, codes = Array(Array(DataType.double)), Array(DataType.long)
    columns = [
        ColSpec(vectors, "history"),
        *(ColSpec(codes, name) for name in ("actions", "surfaces", "timestamps_ms")),
        ColSpec(DataType.long, "request_ms"),
        ColSpec(Array(DataType.double), "user"),
        ColSpec(vectors, "candidates"),
        ColSpec(vectors, "features"),
    ]
    if ranker.reads_history:
        columns += [ColSpec(vectors, "past_history"), ColSpec(vectors, "shown")]
        names = ("past_actions", "past_surfaces", "past_timestamps_ms", "shown_timestamps_ms")
        columns += [ColSpec(codes, name) for name in names]
    heads = len(ranker.heads)
    return ModelSignature(Schema(columns), Schema([TensorSpec(np.dtype(np.float32), (-1, heads))]))
