"""Train multi-interest retrieval: DCM (from histories) and conditional retrieval (topics)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.context import TrainingContext
from training.cpu import tune_cpu
from training.interests import trainer as trainer_module
from training.interests.engagements import followed_topics
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
from training.interests.trainer import InterestsTraining, Trained
from training.models import interests as interests_model
from training.models import two_tower as two_tower_model
from training.models.interactions import Pins
from training.models.interests import (
    Construction,
    InterestNetwork,
    InterestsConfig,
    Method,
    PinFeatures,
    pin_vectors,
    sample_followed,
    topic_places,
)
from training.models.interests.budgets import FOLLOWED
from training.pipelines.clock import run_end
from training.pipelines.content import load_catalogue
from training.registry import FLAVOURS, Dataset, ModelLog, Registry, digest_files, digest_of, pinned
from validation.lake import Lake
from validation.manifest import Part, Space

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

DCM, CONDITIONAL = "dcm", "conditional"
SERVICES = {DCM: "dcm_v1", CONDITIONAL: "conditional_v1"}
TABLES = ("pins", "actions", "impressions", "users", "topics", "follows")

CODE = (
    Path(interests_model.__file__).parent,
    Path(two_tower_model.__file__),
    Path(trainer_module.__file__).parent,
    Path(__file__),
)


class InterestsPipeline(BaseModel):
    """Everything one DCM or conditional-retrieval version is made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: InterestsConfig = InterestsConfig()
    training: InterestsTraining = InterestsTraining()
    association: TopicAssociation = TopicAssociation.SOURCE
    """Conditional retrieval only. Where impressions name no source topic it falls back to the item's."""
    train_days: int = Field(14, ge=1)
    held_out_days: int = Field(1, ge=1)
    """Days after the training ones on which the metrics are."""


def train_dcm(
    ctx: TrainingContext, content: Part, config: InterestsPipeline | None = None, *, force: bool = False
) -> Part:
    """Train, measure and register DCM over the content space; the part whose space is `dcm@<version>`.

    The version already made from the same tables, content version, configuration and code is returned as it
    is, unless `force`; a run that was cut short goes on from its last checkpoint. Raises TooFewEngagements
    where the days hold too little, and LakeError where pins or actions are missing.
    """
    config = _seeded(config or InterestsPipeline(network=Method.DCM.config()), ctx.seed)

    def fit(period: Period, folder: Path) -> tuple[InterestNetwork, Trained, dict[str, float]]:
        network, trained = fit_implicit(
            period, config.network, config.training, checkpoints=folder, progress=ctx.progress
        )
        return network, trained, measure(period, network)

    return _registered(
        ctx,
        content,
        config,
        DCM,
        "Users as up to seven implicit interests, found in their history by farthest points and "
        "single-assignment routing and crossed with their profile (DCM, arXiv 2506.23060).",
        fit,
        force=force,
    )


def train_conditional(
    ctx: TrainingContext, content: Part, config: InterestsPipeline | None = None, *, force: bool = False
) -> Part:
    """The same for conditional retrieval: one embedding a (user, followed topic), in `conditional@<version>`.

    Raises ValueError where the data set has no topics.
    """
    base = config or InterestsPipeline()
    network = base.network.model_copy(update={"construction": Construction.TOPICS})
    config = _seeded(base.model_copy(update={"network": network}), ctx.seed)

    def fit(period: Period, folder: Path) -> tuple[InterestNetwork, Trained, dict[str, float]]:
        network, trained, association = fit_conditional(
            period,
            config.network,
            config.training,
            config.association,
            checkpoints=folder,
            progress=ctx.progress,
        )
        followed = sampled_follows(ctx, period, config.training.seed)
        metrics = measure_conditional(period, network, followed)
        return network, trained, metrics | {"by_source": float(association is TopicAssociation.SOURCE)}

    return _registered(
        ctx,
        content,
        config,
        CONDITIONAL,
        "Users under the topics they follow: the topic is a condition of the user tower, trained with that "
        "by which a pin had been retrieved (conditional retrieval, arXiv 2506.23060 and 2508.16793).",
        fit,
        force=force,
    )


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


def sampled_follows(ctx: TrainingContext, period: Period, seed: int) -> dict[int, NDArray[np.int64]]:
    """At most five topics of each held-out user who followed some before the held-out days."""
    lake = Lake(ctx.lake)
    first = datetime.fromtimestamp(int(period.held_out.times_ms.min()) / 1000, tz=lake.interval()[0].tzinfo)
    topics = followed_topics(lake, first)
    users = np.unique(period.held_out.users).tolist()
    return {u: sample_followed(topics[u], (seed, u), FOLLOWED) for u in users if u in topics}


def interests_catalogue(ctx: TrainingContext, part: Part, content: Part) -> Pins:
    """Every pin of the lake in the part's space: what goes to Feast and Milvus.

    Raises ValueError where `content` is another version than the network was trained on.
    """
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    trained_on = registry.version(part.model, part.version).tags.get("content_space")
    if trained_on != content.space:
        raise ValueError(f"{part.space} reads vectors of {trained_on}, not of {content.space}; train it anew")
    network = InterestNetwork.load(registry.download(part.model, part.version))
    pins = load_catalogue(ctx, content)
    features = PinFeatures(pins.vectors, topic_places(pins.topics, network.topics))
    return Pins(pins.ids, pin_vectors(network, features), pins.topics, pins.created_at_ms)


def interests_part(registry: Registry, model: str, version: int) -> Part:
    """The release part of one version of `dcm` or `conditional`."""
    space = Space(model=model, version=version)
    return Part(
        model=model,
        version=version,
        space=str(space),
        collection=space.collection,
        feature_service=SERVICES[model],
        metrics=registry.metrics(model, version),
    )


Fit = Callable[[Period, Path], tuple[InterestNetwork, Trained, dict[str, float]]]


def _registered(
    ctx: TrainingContext,
    content: Part,
    config: InterestsPipeline,
    model: str,
    description: str,
    fit: Fit,
    *,
    force: bool,
) -> Part:
    lake, registry = Lake(ctx.lake), Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    end = run_end(ctx)
    data = lake.digest(TABLES)
    inputs = digest_of(model, data, end, content.space, config.model_dump_json(), digest_files(CODE))
    version = None if force else registry.find(model, inputs)
    if version is not None:
        ctx.progress(f"{model}: unchanged, {model}@{version}")
        return interests_part(registry, model, version)
    tune_cpu()
    pins = load_catalogue(ctx, content)
    period = read_period(lake, pins, end, config.train_days, config.held_out_days)
    ctx.progress(f"{model}: {len(period.train.pins)} engagements on {len(period.train)} user-days")
    network, trained, metrics = fit(period, ctx.training_sets / f"{model}-{inputs}")
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "model"
        network.save(files)
        log = ModelLog(
            name=model,
            files=files,
            flavour=FLAVOURS / "interests.py",
            description=description,
            params=flat_params(config) | {"content_space": content.space},
            metrics=metrics | {"final_loss": trained.losses[-1]},
            interval=(
                max(lake.interval()[0], end - timedelta(days=config.train_days + config.held_out_days)),
                end,
            ),
            datasets=(Dataset(", ".join(TABLES), str(ctx.lake), data),),
            signature=_signature(config.network.dim),
            requirements=pinned("numba", "numpy", "pandas", "pydantic", "safetensors", "torch"),
            inputs=inputs,
            tags={"feature_service": SERVICES[model], "content_space": content.space or ""},
            notes=f"Weights are learned from the {config.train_days} days before the last "
            f"{config.held_out_days}, on which the metrics are. An engagement is a user's first positive "
            "action on a pin. " + lake.contract().notes,
        )
        version = registry.log_model_version(log)
    ctx.progress(f"{model}: registered {model}@{version}")
    return interests_part(registry, model, version)


def _seeded(config: InterestsPipeline, seed: int) -> InterestsPipeline:
    return config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})


def flat_params(config: BaseModel) -> dict[str, object]:
    """Every setting as `group.name`, for the registry."""
    out: dict[str, object] = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{prefix}.{name}" if prefix else name, inner)
        else:
            out[prefix] = value

    walk("", config.model_dump(mode="json"))
    return out


def _signature(dim: int) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    inputs = [
        ColSpec(Array(DataType.float), "vector"),
        ColSpec(DataType.long, "sign"),
        ColSpec(DataType.long, "timestamp_ms"),
    ]
    outputs = [ColSpec(Array(DataType.float), "vector"), ColSpec(DataType.double, "weight")]
    return ModelSignature(Schema(inputs), Schema([*outputs, ColSpec(DataType.long, "topic_id")]))
