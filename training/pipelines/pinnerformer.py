"""Train PinnerFormer: timelines from a lake, the network, its evaluation; pins' vectors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from training.context import TrainingContext
from training.evaluation.served import AtCut, pinnerformer_serves
from training.models import pinnerformer as pinnerformer_model
from training.models.content import without_content
from training.models.interactions import Pins
from training.models.pinnerformer import PinnerFormer, PinnerFormerConfig, embed_pins
from training.pinnerformer import trainer as trainer_module
from training.pinnerformer.ablations import Experiment
from training.pinnerformer.batches import Sampling
from training.pinnerformer.retriever import Retriever
from training.pinnerformer.timelines import LabelRules, read_timelines
from training.pinnerformer.trainer import PinnerFormerTraining, train_network
from training.pipelines.clock import run_end, run_interval
from training.pipelines.figures import staleness_of
from training.pipelines.pinnability import TrainingWindow
from training.pipelines.retrievers import PINNERFORMER as MODEL
from training.pipelines.retrievers import Recipe, content_of, train_retriever
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part
from validation.tables import ACTION, ACTIONS, SURFACE, Polarity

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

TABLES = ("pins", "actions")

CODE = (Path(pinnerformer_model.__file__).parent, Path(trainer_module.__file__).parent, Path(__file__))

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


ROW_DAYS = TrainingWindow().days
"""How far back rankers' rows reach."""
LEAST_ROW_DAYS = 7
"""Days of rows from which a ranker learns something of a user's vector."""
TESTED_DAYS = 2
"""Days of rows that no ranker learns from, at least: one calibrates, one tests."""


def ranker_days(start: datetime, end: datetime) -> int | None:
    """Days before `end` that PinnerFormer leaves to rankers' rows, of data from `start` on: all that those
    reach back, but at most two fifths of the data. None where that is too little for a ranker."""
    days = min(ROW_DAYS, 2 * (end - start).days // 5)
    return days if days >= LEAST_ROW_DAYS + TESTED_DAYS else None


class TooFewLabels(ValueError):
    """The actions hold no label to learn from, or none to measure on."""


class PinnerFormerPipeline(BaseModel):
    """Everything one PinnerFormer version is made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: PinnerFormerConfig = PinnerFormerConfig()
    training: PinnerFormerTraining = PinnerFormerTraining(epochs=6, sampling=Sampling(users=32))
    labels: LabelRules | None = None
    """None: the paper's rules, without that of the surface where there is no home feed (`rules_of`)."""
    held_out_days: int | None = Field(None, ge=1)
    """Days kept for the metrics (the paper: 14) and for rankers that read its vectors of users; None: all that
    their rows reach back (`ranker_days`), and where data is too short for that, those that releases test on."""
    held_out_users: float = Field(0.1, ge=0, lt=1)
    """Share of users that training never sees, for the metrics of unseen users (the paper's are all such)."""

    max_tokens: int = Field(5_000_000, ge=1)
    """Actions read in all, those of every epoch together; where the data has more, epochs are fewer."""

    def fitted_to(self, actions: NDArray[np.integer]) -> PinnerFormerPipeline:
        """The same with the epochs brought to users of so many actions each, (U,), at least one epoch."""
        read = np.minimum(actions, self.network.length * self.training.sampling.sequences_per_user)
        most = max(1, self.max_tokens // max(1, int(read.sum())))
        epochs = min(self.training.epochs, most)
        return self.model_copy(update={"training": self.training.model_copy(update={"epochs": epochs})})

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

    See `train_retriever`. Raises TooFewLabels where nothing can be learned or measured.
    """
    config = _seeded(config or PinnerFormerPipeline(), ctx.seed)

    def learn(pins: Pins, at: AtCut, checkpoints: Path) -> tuple[PinnerFormer, dict[str, float]]:
        experiment = read_experiment(at.lake, pins, config, at.cut, run_end(ctx))
        ctx.progress(
            f"{MODEL}: {len(experiment.timelines)} users, {len(experiment.timelines.arrays)} actions, "
            f"{len(experiment.timelines.label_rows)} labels"
        )
        known = experiment.timelines.of_users(experiment.trained_users).before(experiment.cut_ms)
        fitted = config.fitted_to(np.diff(known.offsets))
        trained = train_network(
            config.network,
            known,
            experiment.content,
            fitted.training,
            candidates=experiment.candidates,
            checkpoints=checkpoints,
            progress=ctx.progress,
        )
        own = {"final_loss": trained.losses[-1], "epochs": float(fitted.training.epochs)}
        return trained.network, measure(experiment, trained.network) | own

    recipe = Recipe(
        model=MODEL,
        flavour="pinnerformer",
        description="Users by what they did, read by a causal transformer that learned to name what they "
        "do in the next weeks; pins by a tower of their own (arXiv 2205.04507).",
        tables=TABLES,
        code=CODE,
        held_out_days=config.held_out_days or ranker_days(*run_interval(ctx)),
        config=config,
        learn=learn,
        load=PinnerFormer.load,
        serve=pinnerformer_serves,
        signature=_signature,
        figures=lambda metrics: {"staleness": staleness_of(metrics)},
        notes=f"Metrics that start with unseen_users_ are of the {config.held_out_users:.0%} of users that "
        "training never saw. A user's vector knows what the user did, negative actions too; it is no "
        "older than the user's last action. ",
    )
    return train_retriever(ctx, content, recipe, force=force)


def load_pinnerformer(ctx: TrainingContext, part: Part) -> PinnerFormer:
    """The registered network."""
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    return PinnerFormer.load(registry.download(part.model, part.version))


def pinnerformer_catalogue(ctx: TrainingContext, part: Part) -> Pins:
    """Every pin of the lake in the part's space: what goes to Feast and Milvus.

    A pin without content has the zero vector, and no place in an index. Vectors know nothing of what anyone
    did after the weights were learned.
    """
    network, pins = load_pinnerformer(ctx, part), content_of(ctx, part)
    vectors = embed_pins(network, pins.vectors)
    vectors[without_content(pins.vectors)] = 0
    return Pins(pins.ids, vectors, pins.topics, pins.created_at_ms)


def with_content(pins: Pins) -> Pins:
    """The pins that have a content vector: only these are labels, negatives and candidates."""
    kept = ~without_content(pins.vectors)
    return Pins(pins.ids[kept], pins.vectors[kept], pins.topics[kept], pins.created_at_ms[kept])


def rules_of(lake: Lake, end: datetime) -> LabelRules:
    """The paper's rules for the lake's actions before `end`.

    Where no positive action is on a surface that labels come from, or states none (a shop has no home feed),
    those of every surface are labels.
    """
    rules = LabelRules()
    rows = lake.read(ACTIONS.name, [ACTION, SURFACE], end=end)
    rows = rows[rows[ACTION].isin(lake.contract().vocabulary.codes(Polarity.POSITIVE))]
    stated = set(rows[SURFACE].dropna().unique().tolist())
    if stated and not stated & {*rules.surfaces, ""}:
        return rules.model_copy(update={"surfaces": ()})
    return rules


def read_experiment(
    lake: Lake, pins: Pins, config: PinnerFormerPipeline, cut: datetime, end: datetime
) -> Experiment:
    """The lake before `end`, cut in two at `cut` (UTC); `pins` are the catalogue in the content space.

    Raises TooFewLabels where no label falls on either side of the cut.
    """
    pins = with_content(pins)
    timelines = read_timelines(lake, pins.ids, end, config.labels or rules_of(lake, end))
    cut_ms = unix_ms(cut)
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
            f"{before} labels before and {len(experiment.all_positives)} after {cut:%Y-%m-%d}; pinnerformer "
            "needs some on both sides of the held-out days: bring more actions, or hold out fewer days"
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


def _signature(network: PinnerFormer) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema, TensorSpec

    columns = [
        ColSpec(Array(Array(DataType.double)), "content"),
        ColSpec(Array(DataType.long), "actions"),
        ColSpec(Array(DataType.long), "surfaces"),
        ColSpec(Array(DataType.long), "timestamps_ms"),
        ColSpec(Array(DataType.double), "durations_s"),
    ]
    return ModelSignature(Schema(columns), Schema([TensorSpec(np.dtype(np.float32), (-1, network.config.dim))]))
