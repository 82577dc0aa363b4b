"""Train the two-tower retrieval source and light scorer, measure it, register it in a space of its own."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from training.context import TrainingContext
from training.cpu import tune_cpu
from training.interests.engagements import ActionLog, Catalogue, Engagements, UserDays, ms
from training.interests.evaluation import engaged_interests, popular_scores, ranks, two_tower_scores
from training.interests.fitting import Period, read_period
from training.interests.learners import TwoTowerLearner
from training.interests.trainer import InterestsTraining, Trained, train
from training.models.interactions import Pins
from training.models.interests import PinFeatures, topic_places
from training.models.two_tower import TwoTower, TwoTowerConfig, pin_vectors, seeded
from training.pipelines.clock import run_end
from training.pipelines.content import load_catalogue
from training.pipelines.interests import CODE, TABLES, flat_params
from training.registry import FLAVOURS, Dataset, ModelLog, Registry, digest_files, digest_of, pinned
from validation.lake import Lake
from validation.manifest import Part, Space

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

MODEL = "two_tower"
SERVICE = "two_tower_v1"


class TwoTowerPipeline(BaseModel):
    """Everything one two-tower version is made with. The batch is the post's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: TwoTowerConfig = TwoTowerConfig()
    training: InterestsTraining = InterestsTraining(batch=6000, epochs=20, learning_rate=4e-3)
    train_days: int = Field(14, ge=1)
    held_out_days: int = Field(1, ge=1)
    least_steps: int = Field(8, ge=1)
    """Steps an epoch has at least: a data set too small for that gets a smaller batch."""

    def fitted_to(self, engagements: int) -> TwoTowerPipeline:
        """The same with the batch brought to a data set of so many engagements."""
        batch = max(1, min(self.training.batch, engagements // self.least_steps))
        return self.model_copy(update={"training": self.training.model_copy(update={"batch": batch})})


def train_two_tower(
    ctx: TrainingContext, content: Part, config: TwoTowerPipeline | None = None, *, force: bool = False
) -> Part:
    """Train, measure and register the two-tower; the part whose space is `two_tower@<version>`.

    The version already made from the same tables, content version, configuration and code is returned as it
    is, unless `force`. Raises TooFewEngagements where the days hold too little.
    """
    lake, registry = Lake(ctx.lake), Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    end = run_end(ctx)
    config = config or TwoTowerPipeline()
    config = config.model_copy(update={"training": config.training.model_copy(update={"seed": ctx.seed})})
    data = lake.digest(TABLES)
    inputs = digest_of(
        MODEL, data, end, content.space, config.model_dump_json(), digest_files((*CODE, Path(__file__)))
    )
    version = None if force else registry.find(MODEL, inputs)
    if version is not None:
        ctx.progress(f"{MODEL}: unchanged, {MODEL}@{version}")
        return two_tower_part(registry, version)
    tune_cpu()
    pins = load_catalogue(ctx, content)
    period = read_period(lake, pins, end, config.train_days, config.held_out_days)
    config = config.fitted_to(len(period.train.pins))
    network, trained = fit_two_tower(
        period, config, checkpoints=ctx.training_sets / f"{MODEL}-{inputs}", ctx=ctx
    )
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "model"
        network.save(files)
        log = ModelLog(
            name=MODEL,
            files=files,
            flavour=FLAVOURS / "two_tower.py",
            description="Two towers, users and pins, that meet in one dot product: a retrieval source and a "
            "light scorer (unified lightweight scoring, Pinterest Engineering 2021).",
            params=flat_params(config) | {"content_space": content.space},
            metrics=measure(period, network) | {"final_loss": trained.losses[-1]},
            interval=(
                max(lake.interval()[0], end - timedelta(days=config.train_days + config.held_out_days)),
                end,
            ),
            datasets=(Dataset(", ".join(TABLES), str(ctx.lake), data),),
            signature=_signature(network),
            requirements=pinned("numpy", "pandas", "pydantic", "safetensors", "torch"),
            inputs=inputs,
            tags={"feature_service": SERVICE, "content_space": content.space or ""},
            notes=f"Weights are learned from the {config.train_days} days before the last "
            f"{config.held_out_days}, on which the metrics are. Pins carry their performance as of a midnight, "
            "so their vectors go stale and are made anew daily. " + lake.contract().notes,
        )
        version = registry.log_model_version(log)
    ctx.progress(f"{MODEL}: registered {MODEL}@{version}")
    return two_tower_part(registry, version)


def fit_two_tower(
    period: Period,
    config: TwoTowerPipeline,
    *,
    checkpoints: Path | None = None,
    ctx: TrainingContext | None = None,
) -> tuple[TwoTower, Trained]:
    """Both towers trained on the period's training days."""
    catalogue = period.data.catalogue
    width = catalogue.features.content.shape[1]
    network = seeded(config.network, width, catalogue.topics, config.training.seed)
    trained = train(
        TwoTowerLearner(network, period.data),
        period.train,
        period.candidates,
        config.training,
        name=MODEL,
        identity=config.network.model_dump_json(),
        checkpoints=checkpoints,
        progress=ctx.progress if ctx is not None else None,
    )
    return network, trained


def measure(period: Period, network: TwoTower) -> dict[str, float]:
    """HR@K of the held-out days beside popularity."""
    data, days = period.data, period.held_out
    interests = engaged_interests(data, days)
    found = ranks(data, days, two_tower_scores(network, data), interests)
    popular = ranks(data, days, popular_scores(data), interests)
    return found.named() | popular.named("popular_") | {"held_out_engagements": float(found.count())}


def two_tower_catalogue(ctx: TrainingContext, part: Part, content: Part) -> Pins:
    """Every pin of the lake in the part's space as of the run's end: what goes to Feast and Milvus.

    Raises ValueError where `content` is another version than the network was trained on.
    """
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    trained_on = registry.version(part.model, part.version).tags.get("content_space")
    if trained_on != content.space:
        raise ValueError(f"{part.space} reads vectors of {trained_on}, not of {content.space}; train it anew")
    network = TwoTower.load(registry.download(part.model, part.version))
    pins, end = load_catalogue(ctx, content), run_end(ctx)
    catalogue = Catalogue.of(pins)
    nothing = np.empty(0, np.int64)
    days = UserDays(nothing, nothing, np.zeros(1, np.int64), nothing, nothing)
    data = Engagements(catalogue, ActionLog.read(Lake(ctx.lake), catalogue, end), days)
    features = PinFeatures(pins.vectors, topic_places(pins.topics, network.topics))
    vectors = pin_vectors(network, features, data.performance(np.array([ms(end)]))[ms(end)])
    return Pins(pins.ids, vectors, pins.topics, pins.created_at_ms)


def two_tower_part(registry: Registry, version: int) -> Part:
    """The release part of one two-tower version."""
    space = Space(model=MODEL, version=version)
    return Part(
        model=MODEL,
        version=version,
        space=str(space),
        collection=space.collection,
        feature_service=SERVICE,
        metrics=registry.metrics(MODEL, version),
    )


def _signature(network: TwoTower) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema, TensorSpec

    inputs = [
        ColSpec(Array(DataType.float), "content"),
        ColSpec(Array(DataType.long), "topics"),
        ColSpec(Array(DataType.float), "performance"),
    ]
    return ModelSignature(Schema(inputs), Schema([TensorSpec(np.dtype(np.float32), (-1, network.config.dim))]))
