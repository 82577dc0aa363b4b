"""Train the two-tower retrieval source and light scorer, measure it, register it in a space of its own."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from training.context import Progress, TrainingContext
from training.evaluation.served import AtCut, two_tower_pins_of, two_tower_serves
from training.interests.evaluation import engaged_interests, popular_scores, ranks, two_tower_scores
from training.interests.fitting import Period, read_period
from training.interests.learners import TwoTowerLearner
from training.interests.trainer import InterestsTraining, Trained, train
from training.models.interactions import Pins
from training.models.two_tower import TwoTower, TwoTowerConfig, seeded
from training.pipelines.clock import run_end
from training.pipelines.interests import CODE, DAILY, TABLES, performing_pins
from training.pipelines.retrievers import TWO_TOWER as MODEL
from training.pipelines.retrievers import Recipe, content_of, train_retriever
from training.registry import Registry
from validation.manifest import Part

if TYPE_CHECKING:
    from mlflow.models import ModelSignature


class TwoTowerPipeline(BaseModel):
    """Everything one two-tower version is made with. The batch is the post's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: TwoTowerConfig = TwoTowerConfig()
    training: InterestsTraining = InterestsTraining(batch=6000, epochs=8, learning_rate=6e-3)
    train_days: int = Field(14, ge=1)
    held_out_days: int | None = Field(None, ge=1)
    """Days after the training ones on which the metrics are; None: those that releases test on."""
    least_steps: int = Field(16, ge=1)
    """Steps an epoch has at least: a data set too small for that gets a smaller batch."""

    def fitted_to(self, engagements: int) -> TwoTowerPipeline:
        """The same with the batch brought to a data set of so many engagements."""
        batch = max(1, min(self.training.batch, engagements // self.least_steps))
        return self.model_copy(update={"training": self.training.model_copy(update={"batch": batch})})


def train_two_tower(
    ctx: TrainingContext, content: Part, config: TwoTowerPipeline | None = None, *, force: bool = False
) -> Part:
    """Train, measure and register the two-tower; the part whose space is `two_tower@<version>`.

    See `train_retriever`. Raises TooFewEngagements where the days hold too little.
    """
    config = config or TwoTowerPipeline()
    config = config.model_copy(update={"training": config.training.model_copy(update={"seed": ctx.seed})})

    def learn(pins: Pins, at: AtCut, checkpoints: Path) -> tuple[TwoTower, dict[str, float]]:
        period = read_period(at.lake, pins, at.cut, run_end(ctx), config.train_days)
        fitted = config.fitted_to(len(period.train.pins))
        network, trained = fit_two_tower(period, fitted, checkpoints=checkpoints, progress=ctx.progress)
        own = {"final_loss": trained.losses[-1], "batch": float(fitted.training.batch)}
        return network, measure(period, network) | own

    recipe = Recipe(
        model=MODEL,
        flavour="two_tower",
        description="Two towers, users and pins, that meet in one dot product: a retrieval source and a "
        "light scorer (unified lightweight scoring, Pinterest Engineering 2021).",
        tables=TABLES,
        code=(*CODE, Path(__file__)),
        held_out_days=config.held_out_days,
        config=config,
        learn=learn,
        load=TwoTower.load,
        serve=two_tower_serves,
        signature=_signature,
        notes=f"Learned from {config.train_days} days. {DAILY}",
    )
    return train_retriever(ctx, content, recipe, force=force)


def fit_two_tower(
    period: Period,
    config: TwoTowerPipeline,
    *,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
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
        progress=progress,
    )
    return network, trained


def measure(period: Period, network: TwoTower) -> dict[str, float]:
    """HR@K of the held-out days beside popularity."""
    data, days = period.data, period.held_out
    interests = engaged_interests(data, days)
    found = ranks(data, days, two_tower_scores(network, data), interests)
    popular = ranks(data, days, popular_scores(data), interests)
    return found.named() | popular.named("popular_") | {"held_out_engagements": float(found.count())}


def two_tower_catalogue(ctx: TrainingContext, part: Part, as_of: datetime | None = None) -> Pins:
    """Every pin of the lake in the part's space, performing as until a UTC midnight (default: the run's end).

    What goes to Feast and Milvus. A pin of neither content nor topics has the zero vector.
    """
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    network = TwoTower.load(registry.download(part.model, part.version))
    pins = content_of(ctx, part)
    vectors = two_tower_pins_of(network, performing_pins(ctx, pins, network.topics, as_of))
    return Pins(pins.ids, vectors, pins.topics, pins.created_at_ms)


def _signature(network: TwoTower) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema, TensorSpec

    inputs = [
        ColSpec(Array(DataType.float), "content"),
        ColSpec(Array(DataType.long), "topics"),
        ColSpec(Array(DataType.float), "performance"),
    ]
    return ModelSignature(Schema(inputs), Schema([TensorSpec(np.dtype(np.float32), (-1, network.config.dim))]))
