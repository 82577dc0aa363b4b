"""Train a Pinnability ranker: point-in-time rows, a split by time, a fit, metrics on the days after."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from feature_repo.schema import PINNABILITY_SERVICE
from training.context import TrainingContext
from training.data.splits import DAY, Interval, TimeSplit, time_split
from training.data.training_set import Block, PinVectors, TrainingSet, TrainingSetConfig, build
from training.data.training_set_facts import TrainingSetInfo
from training.digests import digest_files, digest_of
from training.evaluation import calibration_metrics
from training.model_log import FLAVOURS, Dataset, ModelLog, columns_signature, pinned
from training.models import calibration as calibration_module
from training.models import interactions as interactions_module
from training.models import pinnability as pinnability_module
from training.models.interactions import Pins
from training.models.lexical import LexicalIndex
from training.models.pinnability import FeatureSpec, GbdtRanker, LogisticRanker, PinnabilityRanker
from training.pipelines import figures, fitting, ranker_calibration, ranker_features
from training.pipelines.clock import run_interval
from training.pipelines.fitting import GbdtConfig, LogisticConfig, Rows, fit_gbdt, fit_logistic, thin_negatives
from training.pipelines.lexical import catalogue_texts, read_language
from training.pipelines.ranker_calibration import calibrate, engage_scores
from training.pipelines.ranker_features import EVERY, keep_baseline, spec_of, vetted
from training.pipelines.registering import register, unchanged
from training.registry import LEARNED_UNTIL_TAG, Registry
from validation.lake import Lake
from validation.manifest import Part

if TYPE_CHECKING:
    from feast import FeatureStore

CODE = (
    *(Path(m.__file__ or "") for m in (interactions_module, pinnability_module, fitting)),
    Path(calibration_module.__file__).parent,
    Path(ranker_calibration.__file__),
    Path(ranker_features.__file__),
    Path(__file__),
)

TEST_ROWS = 5_000
MAX_TEST_DAYS = 7

SET = "pinnability"
"""Folder of the training set below the home's training sets."""

Floats = NDArray[np.float32]


class Kind(StrEnum):
    """Which ranker."""

    LOGISTIC = "logistic"
    GBDT = "gbdt"

    @property
    def model(self) -> str:
        """Registered model name."""
        return f"pinnability_{self.value}"


class PinnabilityConfig(BaseModel):
    """What a ranker is trained on and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: FeatureSpec = EVERY
    """What is read, as far as the rows have it (`spec_of`): a copy of EVERY with less, or no positions."""
    logistic: LogisticConfig = LogisticConfig()
    gbdt: GbdtConfig = GbdtConfig()
    negative_rate: float = Field(1.0, gt=0, le=1)
    """Share of negatives kept in training; scores are corrected for it."""
    max_rows: int = Field(4_000_000, ge=1)
    """Newest training rows that are read, whole days: memory is about 600 bytes a row."""


class TrainingWindow(BaseModel):
    """Which days of the lake become the training set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: int = Field(28, ge=3)
    """Newest days used."""
    burn_in_days: int = Field(7, ge=0)
    """First days of the data left out, at most a quarter of it: windows and sequences are still filling."""

    def interval(self, ctx: TrainingContext) -> Interval:
        """The days of `ctx`'s lake inside the window, UTC midnights."""
        start, end = run_interval(ctx)
        burn_in = min(self.burn_in_days, (end - start).days // 4)
        return Interval(max(start + timedelta(days=burn_in), end - timedelta(days=self.days)), end)


def build_training_set(
    ctx: TrainingContext,
    store: FeatureStore,
    content: Part,
    pins: Pins,
    window: TrainingWindow | None = None,
    config: TrainingSetConfig | None = None,
    folder: str = SET,
) -> TrainingSet:
    """The point-in-time rows both rankers learn from, with interactions in the content space.

    They stand in `folder` below the home's training sets. `store` answers the historical retrieval; its
    feature files must reach the run's end.

    Resumable, and left as it is where nothing changed. Raises TrainingSetError, see `training_set.build`.
    """
    from training.data.point_in_time import FeastPointInTime

    interval = (window or TrainingWindow()).interval(ctx)
    return build(
        Lake(ctx.lake),
        FeastPointInTime(store),
        ctx.training_sets / folder,
        start=interval.start,
        end=interval.end,
        vectors=PinVectors(content.space or "", pins.ids, pins.vectors),
        words=lambda: LexicalIndex.fit(*catalogue_texts(Lake(ctx.lake)), read_language(ctx.text_encoder)),
        config=config or TrainingSetConfig(seed=ctx.seed),
        progress=ctx.progress,
    )


def train_pinnability(
    ctx: TrainingContext,
    kind: Kind,
    rows: TrainingSet,
    content: Part,
    config: PinnabilityConfig | None = None,
    *,
    force: bool = False,
) -> Part:
    """Fit, measure and register one ranker on a finished training set.

    Split by time (`split_of`): the last days test, those before validate, everything earlier trains. The
    version already made from the same rows, configuration and code is returned as it is, unless `force`.
    Raises TooShort for a set of less than three days, NothingToLearn where a split holds one class only,
    LabelLeak where a feature knows a label, and ValueError where the set's interactions are of another space.
    """
    config, info = config or PinnabilityConfig(), rows.info
    if info.space != content.space:
        raise ValueError(
            f"the training set compares vectors of {info.space}, the release's are {content.space}"
        )
    registry, lake = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts), Lake(ctx.lake)
    own = config.logistic if kind is Kind.LOGISTIC else config.gbdt
    inputs = digest_of(
        kind,
        info.fingerprint,
        config.features,
        own,
        config.negative_rate,
        config.max_rows,
        ctx.seed,
        digest_files(CODE),
    )
    if version := unchanged(ctx, kind.model, inputs, force=force):
        return _part(registry, kind, version, content)
    split = split_of(info)
    spec = spec_of(config.features, info)
    block = rows.block(newest(rows, split.train, config.max_rows))
    baseline, train = vetted(block, info.action_names, spec), _rows(block, spec)
    del block
    ctx.progress(f"{kind.model}: fitting on {len(train)} rows")
    ranker = _fit(kind, train, rows, split, spec, config, ctx.seed)
    del train
    name = f"{kind.model}@{registry.next_version(kind.model)}"
    made = calibrate(ranker, name, rows, split, seed=ctx.seed)
    score = engage_scores(ranker.heads, made.scores)
    log = ModelLog(
        name=kind.model,
        flavour=FLAVOURS / "pinnability.py",
        description="Probability that a user acts positively on a pin they are shown, from user, pin and "
        f"interaction features ({'logistic regression' if kind is Kind.LOGISTIC else 'boosted trees'}).",
        params={
            **own.model_dump(),
            "negative_rate": config.negative_rate,
            "features": len(spec.names),
            "position": spec.position,
            "space": content.space,
            "train": split.train,
            "validation": split.validation,
            "test": split.test,
            "seed": ctx.seed,
            "rows": info.rows,
            "positive_rate": round(info.rate, 5),
            "scheme": info.scheme,
        },
        metrics=made.metrics,
        interval=(split.train.start, split.validation.end),
        datasets=(Dataset("training_set", str(rows.path), info.fingerprint),),
        signature=columns_signature(dict.fromkeys(spec.names, "float")),
        requirements=_requirements(kind),
        inputs=inputs,
        tags={
            "feature_service": PINNABILITY_SERVICE,
            "space": content.space or "",
            LEARNED_UNTIL_TAG: split.validation.end.isoformat(),
        },
        figures={
            "roc": figures.roc(made.test.label, score),
            "calibration": calibration_metrics.figure(made.reliability),
            "importance": figures.importance(importances(ranker)),
        },
        notes=f"Rows: {info.scheme_note}. Trained on what the logging policy chose to show; calibrated on "
        f"{made.calibrator.sample}; metrics are of {split.test}. " + lake.contract().notes,
    )

    def save(files: Path) -> None:
        ranker.save(files)
        made.calibrator.save(files)
        keep_baseline(baseline, files)

    version = register(ctx, log, save)
    ctx.progress(f"{kind.model}: AUC {made.metrics['auc']:.4f} on {split.test}")
    return _part(registry, kind, version, content)


def split_of(info: TrainingSetInfo) -> TimeSplit:
    """One day tests and one validates; more, up to a week each, until the test holds TEST_ROWS rows.

    Data rarely ends at midnight: a last day of a few hundred rows would decide by noise. At least half of the
    days train. Raises TooShort for a set of less than three days.
    """
    split = time_split(info.start, info.end)
    longest = max(1, min(MAX_TEST_DAYS, (info.end - info.start).days // 4))
    for days in range(1, longest + 1):
        split = time_split(info.start, info.end, validation=days * DAY, test=days * DAY)
        tested = sum(info.days.get(day.date().isoformat(), 0) for day in split.test.days())
        if tested >= TEST_ROWS:
            break
    return split


def newest(rows: TrainingSet, interval: Interval, max_rows: int) -> Interval:
    """The newest whole days of `interval` that hold at most `max_rows` rows together, one day at least."""
    start, total = interval.end, 0
    for day in reversed(interval.days()):
        total += rows.info.days.get(day.date().isoformat(), 0)
        if total > max_rows and start < interval.end:
            break
        start = day
    return Interval(max(start, interval.start), interval.end)


def importances(ranker: PinnabilityRanker) -> dict[str, float]:
    """Total gain of each feature (trees), or the size of its weight on the standardised scale (logistic)."""
    names = ranker.spec.names
    if isinstance(ranker, GbdtRanker):
        gains = ranker.booster.get_score(importance_type="total_gain")
        return {name: float(gains.get(name, 0.0)) for name in names}
    if isinstance(ranker, LogisticRanker):
        return dict(zip(names, np.abs(ranker.weights).tolist(), strict=True))
    raise TypeError(f"no importance is defined for {type(ranker).__name__}")


def _fit(
    kind: Kind,
    train: Rows,
    rows: TrainingSet,
    split: TimeSplit,
    spec: FeatureSpec,
    config: PinnabilityConfig,
    seed: int,
) -> PinnabilityRanker:
    thinned = thin_negatives(train, config.negative_rate, seed)
    if kind is Kind.LOGISTIC:
        return fit_logistic(thinned, spec, config.logistic, negative_rate=config.negative_rate)
    validation = thin_negatives(_rows(rows.block(split.validation), spec), config.negative_rate, seed + 1)
    return fit_gbdt(thinned, validation, spec, config.gbdt, seed=seed, negative_rate=config.negative_rate)


def _rows(block: Block, spec: FeatureSpec) -> Rows:
    return Rows(_features(block, spec), block.label.astype(np.float32), block.weight)


def _features(block: Block, spec: FeatureSpec) -> Floats:
    return spec.assemble(block.user_scalars, block.pin_scalars, block.interactions, block.position, block.query)


def _part(registry: Registry, kind: Kind, version: int, content: Part) -> Part:
    return Part(
        model=kind.model,
        version=version,
        space=content.space,
        feature_service=PINNABILITY_SERVICE,
        metrics=registry.metrics(kind.model, version),
    )


def _requirements(kind: Kind) -> tuple[str, ...]:
    common = pinned("numba", "numpy", "pandas", "pydantic", "safetensors")
    return (*common, *pinned("xgboost-cpu")) if kind is Kind.GBDT else common
