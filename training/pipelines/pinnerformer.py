"""Train PinnerFormer: timelines from a lake, the network, its evaluation, its registration; pins' vectors."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from training.context import TrainingContext
from training.cpu import tune_cpu
from training.models import pinnerformer as pinnerformer_model
from training.models.content import without_content
from training.models.interactions import Pins
from training.models.pinnerformer import PinnerFormer, PinnerFormerConfig, embed_pins
from training.pinnerformer import trainer as trainer_module
from training.pinnerformer.ablations import Experiment
from training.pinnerformer.retriever import Retriever
from training.pinnerformer.timelines import LabelRules, read_timelines
from training.pinnerformer.trainer import PinnerFormerTraining, train_network
from training.pipelines.clock import run_end
from training.pipelines.content import load_catalogue
from training.pipelines.figures import staleness_of
from training.registry import FLAVOURS, Dataset, ModelLog, Registry, digest_files, digest_of, pinned
from validation.lake import Lake
from validation.manifest import Part, Space

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

MODEL = "pinnerformer"
PINNERFORMER_SERVICE = "pinnerformer_v1"

CODE = (Path(pinnerformer_model.__file__).parent, Path(trainer_module.__file__).parent, Path(__file__))

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TooFewLabels(ValueError):
    """The actions hold no label to learn from, or none to measure on."""


class PinnerFormerPipeline(BaseModel):
    """Everything one PinnerFormer version is made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: PinnerFormerConfig = PinnerFormerConfig()
    training: PinnerFormerTraining = PinnerFormerTraining()
    labels: LabelRules = LabelRules()
    held_out_days: int = Field(7, ge=1)
    """Days kept for the metrics (the paper: 14)."""
    held_out_users: float = Field(0.1, ge=0, lt=1)
    """Share of users that training never sees, for the metrics of unseen users (the paper's are all such)."""

    @field_validator("network")
    @classmethod
    def _inductive(cls, network: PinnerFormerConfig) -> PinnerFormerConfig:
        if network.id_dim:
            raise ValueError(
                "a space takes pins that come later, so its network has no id embedding (id_dim 0)"
            )
        return network


def train_pinnerformer(
    ctx: TrainingContext, content: Part, config: PinnerFormerPipeline | None = None, *, force: bool = False
) -> Part:
    """Train, measure and register PinnerFormer over the content space; its space is `pinnerformer@<version>`.

    The version already made from the same tables, content version, configuration and code is returned as it
    is, unless `force`; a run that was cut short goes on from its last checkpoint. Raises TooFewLabels where
    nothing can be learned or measured, and LakeError where pins or actions are missing.
    """
    lake, registry = Lake(ctx.lake), Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    end = run_end(ctx)
    config = _seeded(config or PinnerFormerPipeline(), ctx.seed)
    data = lake.digest(("pins", "actions"))
    inputs = digest_of(MODEL, data, end, content.space, config.model_dump_json(), digest_files(CODE))
    version = None if force else registry.find(MODEL, inputs)
    if version is not None:
        ctx.progress(f"pinnerformer: unchanged, {MODEL}@{version}")
        return pinnerformer_part(registry, version)
    tune_cpu()
    experiment = read_experiment(ctx, content, config)
    ctx.progress(
        f"pinnerformer: {len(experiment.timelines)} users, {len(experiment.timelines.arrays)} actions, "
        f"{len(experiment.timelines.label_rows)} labels"
    )
    known = experiment.timelines.of_users(experiment.trained_users).before(experiment.cut_ms)
    trained = train_network(
        config.network,
        known,
        experiment.content,
        config.training,
        candidates=experiment.candidates,
        checkpoints=ctx.training_sets / f"pinnerformer-{inputs}",
        progress=ctx.progress,
    )
    metrics = measure(experiment, trained.network) | {"final_loss": trained.losses[-1]}
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "model"
        trained.network.save(files)
        log = ModelLog(
            name=MODEL,
            files=files,
            flavour=FLAVOURS / "pinnerformer.py",
            description="Users by what they did, read by a causal transformer that learned to name what they "
            "do in the next weeks; pins by a tower of their own (arXiv 2205.04507).",
            params=_params(config) | {"content_space": content.space},
            metrics=metrics,
            interval=(lake.interval()[0], end),
            datasets=(Dataset("pins, actions", str(ctx.lake), data),),
            signature=_signature(config.network),
            requirements=pinned("numba", "numpy", "pandas", "pydantic", "safetensors", "torch"),
            inputs=inputs,
            figures={"staleness": staleness_of(metrics)},
            tags={"feature_service": PINNERFORMER_SERVICE, "content_space": content.space or ""},
            notes=f"Weights are learned before the last {config.held_out_days} days, on which the metrics are; "
            f"metrics that start with unseen_users_ are of the {config.held_out_users:.0%} of users that "
            "training never saw. A user's vector knows what the user did, negative actions too; it is no "
            f"older than the user's last action. " + lake.contract().notes,
        )
        version = registry.log_model_version(log)
    ctx.progress(f"pinnerformer: registered {MODEL}@{version}")
    return pinnerformer_part(registry, version)


def pinnerformer_part(registry: Registry, version: int) -> Part:
    """The release part of one PinnerFormer version."""
    space = Space(model=MODEL, version=version)
    return Part(
        model=MODEL,
        version=version,
        space=str(space),
        collection=space.collection,
        feature_service=PINNERFORMER_SERVICE,
        metrics=registry.metrics(MODEL, version),
    )


def load_network(ctx: TrainingContext, part: Part, content: Part) -> PinnerFormer:
    """The registered network. Raises ValueError where `content` is another version than it was trained on."""
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    trained_on = registry.version(part.model, part.version).tags.get("content_space")
    if trained_on != content.space:
        raise ValueError(f"{part.space} reads vectors of {trained_on}, not of {content.space}; train it anew")
    return PinnerFormer.load(registry.download(part.model, part.version))


def pinnerformer_catalogue(ctx: TrainingContext, part: Part, content: Part) -> Pins:
    """Every pin of the lake in the part's space: what goes to Feast and Milvus.

    A pin without content has the zero vector, and no place in an index. Raises as `load_network` does.
    """
    network, pins = load_network(ctx, part, content), load_catalogue(ctx, content)
    vectors = embed_pins(network, pins.vectors)
    vectors[without_content(pins.vectors)] = 0
    return Pins(pins.ids, vectors, pins.topics, pins.created_at_ms)


def with_content(pins: Pins) -> Pins:
    """The pins that have a content vector: only these are labels, negatives and candidates."""
    kept = ~without_content(pins.vectors)
    return Pins(pins.ids[kept], pins.vectors[kept], pins.topics[kept], pins.created_at_ms[kept])


def read_experiment(
    ctx: TrainingContext, content: Part, config: PinnerFormerPipeline | None = None
) -> Experiment:
    """The lake before the run's end, cut where the held-out days start.

    Raises TooFewLabels where no label falls on either side of the cut.
    """
    config = _seeded(config or PinnerFormerPipeline(), ctx.seed)
    lake, end = Lake(ctx.lake), run_end(ctx)
    pins = with_content(load_catalogue(ctx, content))
    timelines = read_timelines(lake, pins.ids, end, config.labels)
    cut_ms = unix_ms(end - timedelta(days=config.held_out_days))
    drawn = np.random.default_rng(config.training.seed).random(len(timelines))
    experiment = Experiment(
        timelines=timelines,
        content=np.ascontiguousarray(pins.vectors, np.float32),
        pin_ids=pins.ids,
        topics=pins.topics[:, 0],
        candidates=np.flatnonzero(pins.created_at_ms < cut_ms),
        cut_ms=cut_ms,
        end_ms=unix_ms(end),
        trained_users=drawn >= config.held_out_users,
    )
    before = int((timelines.labels.times_ms < cut_ms).sum())
    if before == 0 or len(experiment.candidates) == 0 or len(experiment.all_positives) == 0:
        raise TooFewLabels(
            f"{before} labels before and {len(experiment.all_positives)} after "
            f"{end - timedelta(days=config.held_out_days):%Y-%m-%d}; pinnerformer needs some on both sides of "
            "the held-out days: bring more actions, or hold out fewer days"
        )
    return experiment


def measure(experiment: Experiment, network: PinnerFormer) -> dict[str, float]:
    """Quality on all users and on those unseen in training, Recall@10 by refresh, and popularity's quality."""
    retriever = Retriever(
        network,
        experiment.content,
        experiment.pin_ids,
        experiment.candidates,
        experiment.timelines,
        experiment.cut_ms,
    )
    everyone = experiment.all_positives
    out = experiment.measure(retriever, everyone, staleness=True)
    out |= {f"popular_{name}": value for name, value in experiment.popularity(everyone).items()}
    unseen = experiment.positives
    if 0 < len(unseen) < len(everyone):
        out |= {f"unseen_users_{k}": v for k, v in experiment.measure(retriever, unseen).items()}
    return out


def unix_ms(time: datetime) -> int:
    """Unix milliseconds of a zoned time."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


def _seeded(config: PinnerFormerPipeline, seed: int) -> PinnerFormerPipeline:
    return config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})


def _params(config: PinnerFormerPipeline) -> dict[str, object]:
    """Settings as flat names, `training.sampling.objective`."""

    def flat(prefix: str, value: object) -> dict[str, object]:
        if not isinstance(value, dict):
            return {prefix: value}
        start = f"{prefix}." if prefix else ""
        return {k: v for name, inner in value.items() for k, v in flat(start + name, inner).items()}

    return flat("", config.model_dump(mode="json"))


def _signature(network: PinnerFormerConfig) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema, TensorSpec

    columns = [
        ColSpec(Array(Array(DataType.double)), "content"),
        ColSpec(Array(DataType.long), "actions"),
        ColSpec(Array(DataType.long), "surfaces"),
        ColSpec(Array(DataType.long), "timestamps_ms"),
        ColSpec(Array(DataType.double), "durations_s"),
    ]
    return ModelSignature(Schema(columns), Schema([TensorSpec(np.dtype(np.float32), (-1, network.dim))]))
