"""Train multi-interest retrieval: DCM (from histories) and conditional retrieval (topics)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.context import TrainingContext
from training.evaluation.served import AtCut, Served, conditional_serves, dcm_serves, features_at
from training.interests import trainer as trainer_module
from training.interests.engagements import ActionLog, Catalogue, followed_topics, ms
from training.interests.evaluation import (
    Ranks,
    conditional_scores,
    engaged_interests,
    implicit_scores,
    popular_scores,
    ranks,
)
from training.interests.fitting import Period, fit_conditional, fit_implicit, read_period
from training.interests.learners import TopicAssociation
from training.interests.trainer import InterestsTraining
from training.models import interests as interests_model
from training.models import pin_performance
from training.models import two_tower as two_tower_model
from training.models.interactions import Pins
from training.models.interests import (
    Construction,
    InterestNetwork,
    InterestsConfig,
    ItemTowerConfig,
    Method,
    PinFeatures,
    pin_vectors,
    sample_followed,
)
from training.pipelines.clock import run_end
from training.pipelines.retrievers import (
    CONDITIONAL,
    DCM,
    NothingServed,
    Recipe,
    content_of,
    train_retriever,
)
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

TABLES = ("pins", "actions", "impressions", "users", "topics", "follows")

CODE = (
    Path(interests_model.__file__).parent,
    Path(pin_performance.__file__),
    Path(two_tower_model.__file__),
    Path(trainer_module.__file__).parent,
    Path(__file__),
)


DAILY = "Pins carry their performance as of a midnight, so their vectors go stale and are made anew daily. "

PERFORMING = InterestsConfig(item_tower=ItemTowerConfig(performance=True))
"""Pins with their recent appeal: groceries are found by it and not by what their names say, and pins of the
demo world no worse for it."""


class InterestsPipeline(BaseModel):
    """Everything one DCM or conditional-retrieval version is made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: InterestsConfig = PERFORMING
    training: InterestsTraining = InterestsTraining(epochs=6, uniform_negatives=1024)
    """Uniform negatives beside those of the batch: most of a catalogue is in no batch."""
    association: TopicAssociation = TopicAssociation.SOURCE
    """Conditional retrieval only. Where impressions name no source topic it falls back to the item's."""
    train_days: int = Field(14, ge=1)
    held_out_days: int | None = Field(None, ge=1)
    """Days after the training ones on which the metrics are; None: those that releases test on."""


def train_dcm(
    ctx: TrainingContext, content: Part, config: InterestsPipeline | None = None, *, force: bool = False
) -> Part:
    """Train, measure and register DCM over the content space; the part whose space is `dcm@<version>`.

    See `train_retriever`. Raises TooFewEngagements where the days hold too little.
    """
    config = _seeded(config or InterestsPipeline(network=Method.DCM.config(PERFORMING)), ctx.seed)

    def learn(pins: Pins, at: AtCut, checkpoints: Path) -> tuple[InterestNetwork, dict[str, float]]:
        period = _period(ctx, DCM, pins, at, config)
        network, trained = fit_implicit(
            period, config.network, config.training, checkpoints=checkpoints, progress=ctx.progress
        )
        return network, measure(period, network) | {"final_loss": trained.losses[-1]}

    recipe = _recipe(
        DCM,
        config,
        learn,
        dcm_serves,
        "Users as up to seven implicit interests, found in their history by farthest points and "
        "single-assignment routing and crossed with their profile (DCM, arXiv 2506.23060).",
    )
    return train_retriever(ctx, content, recipe, force=force)


def train_conditional(
    ctx: TrainingContext, content: Part, config: InterestsPipeline | None = None, *, force: bool = False
) -> Part:
    """The same for conditional retrieval: one embedding a (user, followed topic), in `conditional@<version>`.

    Raises NothingServed where nobody follows a topic, and TooFewEngagements where no engagement has one.
    """
    base = config or InterestsPipeline()
    network = base.network.model_copy(update={"construction": Construction.TOPICS})
    config = _seeded(base.model_copy(update={"network": network}), ctx.seed)
    if not followed_topics(Lake(ctx.lake), run_end(ctx)):
        raise NothingServed(f"{CONDITIONAL} answers with the topics a user follows, and nobody follows one")

    def learn(pins: Pins, at: AtCut, checkpoints: Path) -> tuple[InterestNetwork, dict[str, float]]:
        period = _period(ctx, CONDITIONAL, pins, at, config)
        network, trained, association = fit_conditional(
            period,
            config.network,
            config.training,
            config.association,
            checkpoints=checkpoints,
            progress=ctx.progress,
        )
        metrics = measure_conditional(period, network, sampled_follows(period, at, config.training.seed))
        by_source = float(association is TopicAssociation.SOURCE)
        return network, metrics | {"by_source": by_source, "final_loss": trained.losses[-1]}

    recipe = _recipe(
        CONDITIONAL,
        config,
        learn,
        lambda network, at: conditional_serves(network, at, ctx.seed),
        "Users under the topics they follow: the topic is a condition of the user tower, trained with that "
        "by which a pin had been retrieved (conditional retrieval, arXiv 2506.23060 and 2508.16793).",
    )
    return train_retriever(ctx, content, recipe, force=force)


def measure(period: Period, network: InterestNetwork) -> dict[str, float]:
    """HR@K of the held-out days beside popularity; `served_` fills each interest's share of the results."""
    data, days = period.data, period.held_out
    interests = engaged_interests(data, days)

    def of(served: bool) -> Ranks:
        return ranks(data, days, implicit_scores(network, data, served=served), interests)

    out = of(False).named() | of(True).named("served_")
    popular = ranks(data, days, popular_scores(data), interests)
    return out | popular.named("popular_") | {"held_out_engagements": float(popular.count())}


def measure_conditional(
    period: Period, network: InterestNetwork, followed: dict[int, NDArray[np.int64]]
) -> dict[str, float]:
    """HR@K over users who follow topics, with the relevance filter and without."""
    data = period.data
    days = period.held_out.take(np.flatnonzero(np.isin(period.held_out.users, list(followed))))
    out: dict[str, float] = {"users_with_topics": float(len(days))}
    for name, filtered in (("filtered_", True), ("unfiltered_", False)):
        if len(days):
            out |= ranks(data, days, conditional_scores(network, data, followed, filtered=filtered)).named(name)
    return {key: value for key, value in out.items() if np.isfinite(value)}


def sampled_follows(period: Period, at: AtCut, seed: int) -> dict[int, NDArray[np.int64]]:
    """At most five topics of each held-out user who followed some before the held-out days."""
    topics = followed_topics(at.lake, at.cut)
    users = np.unique(period.held_out.users).tolist()
    return {user: sample_followed(topics[user], (seed, user)) for user in users if user in topics}


def interests_catalogue(ctx: TrainingContext, part: Part, as_of: datetime | None = None) -> Pins:
    """Every pin of the lake in the part's space, performing as until a UTC midnight (default: the run's end).

    What goes to Feast and Milvus. A pin of neither content nor topics has the zero vector.
    """
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    network = InterestNetwork.load(registry.download(part.model, part.version))
    pins = content_of(ctx, part)
    vectors = pin_vectors(network, performing_pins(ctx, pins, network.topics, as_of))
    return Pins(pins.ids, vectors, pins.topics, pins.created_at_ms)


def performing_pins(
    ctx: TrainingContext, pins: Pins, topics: tuple[int, ...], as_of: datetime | None = None
) -> PinFeatures:
    """The catalogue as a network of those topics sees it at a UTC midnight (default: the run's end)."""
    end = as_of or run_end(ctx)
    return features_at(pins, topics, ActionLog.read(Lake(ctx.lake), Catalogue.of(pins), end), ms(end))


def _recipe(
    model: str,
    config: InterestsPipeline,
    learn: Callable[[Pins, AtCut, Path], tuple[InterestNetwork, dict[str, float]]],
    serve: Callable[[InterestNetwork, AtCut], Served],
    description: str,
) -> Recipe[InterestNetwork]:
    return Recipe(
        model=model,
        flavour="interests",
        description=description,
        tables=TABLES,
        code=CODE,
        held_out_days=config.held_out_days,
        config=config,
        learn=learn,
        load=InterestNetwork.load,
        serve=serve,
        signature=_signature,
        notes=f"Learned from {config.train_days} days. An engagement is a user's first positive action on a "
        "pin. " + DAILY * config.network.by_day,
    )


def _period(ctx: TrainingContext, name: str, pins: Pins, at: AtCut, config: InterestsPipeline) -> Period:
    period = read_period(at.lake, pins, at.cut, run_end(ctx), config.train_days)
    ctx.progress(f"{name}: {len(period.train.pins)} engagements on {len(period.train)} user-days")
    return period


def _seeded(config: InterestsPipeline, seed: int) -> InterestsPipeline:
    return config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})


def _signature(network: InterestNetwork) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    inputs = [
        ColSpec(Array(DataType.float), "vector"),
        ColSpec(DataType.long, "sign"),
        ColSpec(DataType.long, "timestamp_ms"),
    ]
    outputs = [ColSpec(Array(DataType.float), "vector"), ColSpec(DataType.double, "weight")]
    return ModelSignature(Schema(inputs), Schema([*outputs, ColSpec(DataType.long, "topic_id")]))
