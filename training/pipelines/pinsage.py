"""Train PinSage: stages of graph and pairs from a lake, the network, its evaluation, its registration."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from feature_repo.schema import PINSAGE_SERVICE
from training.context import Progress, TrainingContext
from training.cpu import tune_cpu
from training.data import graph as graph_module
from training.data.graph import GraphConfig, build_graph
from training.models import pinsage as pinsage_model
from training.models.content import without_content
from training.models.interactions import Pins
from training.models.pin_board_graph import PinBoardGraph, from_edges
from training.models.pinsage import (
    Neighbourhoods,
    PinSage,
    PinSageConfig,
    Rung,
    embed_catalogue,
    pin_inputs,
)
from training.pinsage import trainer as trainer_module
from training.pinsage.evaluation import RankMetrics, evaluate_pairs, popularity_metrics
from training.pinsage.ladder import SEEDS, Ladder, Stage, World, climb, rung_vectors
from training.pinsage.pairs import Pairs, consecutive_pairs
from training.pinsage.trainer import PinSageTraining
from training.pinsage.walks import CatalogueGraph, WalkConfig
from training.pipelines.clock import run_end
from training.pipelines.content import content_part, content_space_of, load_catalogue
from training.registry import (
    FLAVOURS,
    WEIGHTS_TAG,
    Dataset,
    ModelLog,
    Registry,
    digest_files,
    digest_of,
    pinned,
)
from validation.lake import Lake
from validation.manifest import Part, Space
from validation.tables import Polarity

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

MODEL = "pinsage"

PIPELINE = "pipeline.json"
"""The version's file of the `PinSagePipeline` it was made with: how its graphs are built and walked."""

CODE = (
    Path(pinsage_model.__file__).parent,
    Path(trainer_module.__file__).parent,
    *graph_module.CODE,
    Path(__file__),
)

_MS = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


HARD_FROM = 50_000
"""Pins from which hard negatives pay. Among 12,000 (the demo world) their window holds many right answers and
they cost a twentieth of the hits; among 68,000 (Complete Journey) they bring a tenth more."""


class TooFewPairs(ValueError):
    """The actions hold no pair to learn from, or none to measure on."""


class PinSagePipeline(BaseModel):
    """Everything one PinSage version is made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rung: Rung | None = None
    """What is trained; None: importance pooling, with hard negatives (`PINSAGE`) from HARD_FROM pins on."""
    network: PinSageConfig = PinSageConfig()
    training: PinSageTraining = PinSageTraining()
    walks: WalkConfig = WalkConfig()
    graph: GraphConfig = GraphConfig(delta=None, labels=False)
    """Unpruned: importance neighbourhoods choose by visits already."""
    stages: int = Field(4, ge=1)
    """Parts of the time before the held-out days; each one's pairs are learned on the graph of its start."""
    held_out_days: int = Field(7, ge=1)
    max_pairs: int = Field(100_000, ge=1)
    """Pairs learned from, drawn evenly over time where there are more; the paper took a share of them too."""

    def fitted_to(self, pins: int) -> PinSagePipeline:
        """The same with the rung chosen and the window of hard negatives brought to a catalogue of `pins`.

        The paper's ranks 2000-5000 leave the nearest pins out and stay far inside 2 billion. On a small
        catalogue the window is [2.5 %, 12.5 %) of it, but never nearer than the neighbourhood itself: nearer
        windows hold too many right answers (on the demo world [1 %, 5 %) is worse than no hard negatives).
        """
        rung = self.rung or (Rung.PINSAGE if pins >= HARD_FROM else Rung.IMPORTANCE)
        low, high = self.walks.hard_ranks
        if high > pins // 8:
            low = min(low, max(self.network.neighbours, pins // 40))
            high = max(low + 1, min(high, pins // 8))
        walks = self.walks.model_copy(update={"hard_ranks": (low, high)})
        return self.model_copy(update={"rung": rung, "walks": walks})


def train_pinsage(
    ctx: TrainingContext, content: Part, config: PinSagePipeline | None = None, *, force: bool = False
) -> Part:
    """Train, measure and register PinSage over the content space; the part whose space is `pinsage@<version>`.

    The version already made from the same tables, content version, configuration and code is returned as it
    is, unless `force`; a run that was cut short goes on from its last checkpoint. With `ctx.keep_weights`,
    where `content` has the weights that the newest version was trained on, nothing is learned: the next
    version's vectors are those of the same weights on today's graph, pins made since included. Raises
    TooFewPairs where users' actions make no pairs, and LakeError where pins or actions are missing.
    """
    lake, registry = Lake(ctx.lake), Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    end = run_end(ctx)
    config = _seeded(config or PinSagePipeline(), ctx.seed)
    kept = _kept(registry, content) if ctx.keep_weights else None
    learned_at = None
    if kept is not None:
        learned_at = registry.weights_of(MODEL, kept)
        config = PinSagePipeline.model_validate_json((registry.download(MODEL, kept) / PIPELINE).read_text())
    data = lake.digest(("pins", "actions", "boards"))
    inputs = digest_of(
        MODEL, data, end, content.space, config.model_dump_json(), learned_at, digest_files(CODE)
    )
    version = None if force else registry.find(MODEL, inputs)
    if version is not None:
        ctx.progress(f"pinsage: unchanged, {MODEL}@{version}")
        return pinsage_part(registry, version)
    tune_cpu()
    pins = load_catalogue(ctx, content)
    if kept is None:
        config = config.fitted_to(len(pins.ids))
        world = read_world(lake, pins, end, config, ctx.progress, hard=config.rung is Rung.PINSAGE)
        trained, vectors = rung_vectors(
            world,
            config.rung or Rung.PINSAGE,
            config.network,
            config.training,
            checkpoints=ctx.training_sets / f"pinsage-{inputs}",
            progress=ctx.progress,
        )
        network, metrics = trained.network, measure(world, vectors) | {"final_loss": trained.losses[-1]}
    else:
        ctx.progress(f"pinsage: {len(pins.ids)} pins by the weights of {MODEL}@{learned_at}")
        one = config.model_copy(update={"stages": 1})
        world = read_world(lake, pins, end, one, ctx.progress, hard=False)
        network = PinSage.load(registry.download(MODEL, kept))
        vectors = _embed(network, world.content, world.held_out.degrees, world.held_out.neighbourhoods)
        metrics = measure(world, vectors)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "model"
        network.save(files)
        (files / PIPELINE).write_text(config.model_dump_json(indent=2))
        log = ModelLog(
            name=MODEL,
            files=files,
            flavour=FLAVOURS / "pinsage.py",
            description="Pins by their content and their neighbourhood on boards: graph convolutions with "
            "importance pooling (arXiv 1806.01973).",
            params=_params(config) | {"content_space": content.space},
            metrics=metrics,
            interval=(lake.interval()[0], end),
            datasets=(Dataset("pins, actions, boards", str(ctx.lake), data),),
            signature=_signature(world.content.shape[1], config.network),
            requirements=pinned("numba", "numpy", "pandas", "pydantic", "safetensors", "torch"),
            inputs=inputs,
            tags={"feature_service": PINSAGE_SERVICE, "content_space": content.space or ""}
            | ({} if learned_at is None else {WEIGHTS_TAG: str(learned_at)}),
            notes=f"Weights are learned before the last {config.held_out_days} days, on which the metrics are; "
            "vectors are of the whole graph, which the network takes without retraining. "
            + lake.contract().notes,
        )
        version = registry.log_model_version(log)
    ctx.progress(f"pinsage: registered {MODEL}@{version}")
    return pinsage_part(registry, version)


def _kept(registry: Registry, content: Part) -> int | None:
    """The newest version, where `content` has the weights of the content space it reads; else None."""
    version = registry.latest(MODEL)
    if version is None:
        return None
    read = Space.parse(content_space_of(registry, pinsage_part(registry, version)))
    same = registry.weights_of(read.model, read.version) == registry.weights_of(content.model, content.version)
    return version if same else None


def compare_rungs(
    ctx: TrainingContext,
    content: Part,
    config: PinSagePipeline | None = None,
    *,
    rungs: Sequence[Rung] = tuple(Rung),
    seeds: Sequence[int] = SEEDS,
) -> Ladder:
    """The ladder from content to PinSage on the same stages and held-out pairs; nothing is registered."""
    tune_cpu()
    pins = load_catalogue(ctx, content)
    config = _seeded(config or PinSagePipeline(), ctx.seed).fitted_to(len(pins.ids))
    world = read_world(
        Lake(ctx.lake), pins, run_end(ctx), config, ctx.progress, uniform=Rung.GRAPHSAGE in rungs
    )
    return climb(world, config.network, config.training, rungs=rungs, seeds=seeds, progress=ctx.progress)


def pinsage_part(registry: Registry, version: int) -> Part:
    """The release part of one PinSage version."""
    space = Space(model=MODEL, version=version)
    return Part(
        model=MODEL,
        version=version,
        space=str(space),
        collection=space.collection,
        feature_service=PINSAGE_SERVICE,
        metrics=registry.metrics(MODEL, version),
    )


def shortfall(part: Part) -> str | None:
    """Why a version is not to be served; None where it is.

    It is where its vectors find the next pin of the held-out pairs among the nearest 50 more often than content
    vectors do, by more than the standard error of the difference. On few actions content is the better space.
    """
    ours, theirs, pairs = (
        part.metrics[name] for name in ("hit_rate_at_50", "content_hit_rate_at_50", "held_out_pairs")
    )
    likely = [(rate * pairs + 1) / (pairs + 2) for rate in (ours, theirs)]  # no rate of few pairs is 0 or 1
    error = math.sqrt(sum(p * (1 - p) for p in likely) / pairs)
    if ours - theirs > error:
        return None
    return (
        f"{part.model}@{part.version} finds the next pin of {pairs:,.0f} held-out pairs among 50 in {ours:.1%},"
        f" content vectors in {theirs:.1%}: too little data to learn more than they know"
    )


def pinsage_catalogue(
    ctx: TrainingContext, part: Part, as_of: datetime | None = None, *, content: Pins | None = None
) -> Pins:
    """Every pin of the lake in the part's space, on the graph as of a UTC time (default: the run's end).

    A pin made or saved after that time has the vector of its content alone. `content` is the catalogue in the
    space the network reads (`content_space_of`), read where left out. Pins with neither content nor neighbours
    have a row of zeros.
    """
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    files = registry.download(part.model, part.version)
    config = PinSagePipeline.model_validate_json((files / PIPELINE).read_text())
    if content is None:
        reads = Space.parse(content_space_of(registry, part))
        content = load_catalogue(ctx, content_part(registry, reads.version))
    graph = build_graph(Lake(ctx.lake), config.graph, as_of=as_of or run_end(ctx))
    vectors = embed_pin_catalogue(PinSage.load(files), content, graph, config.walks)
    return Pins(content.ids, vectors, content.topics, content.created_at_ms)


def embed_pin_catalogue(
    network: PinSage, pins: Pins, graph: PinBoardGraph, walks: WalkConfig
) -> NDArray[np.float32]:
    """Vectors of `pins` (content vectors given) on `graph`, layer by layer."""
    rows = CatalogueGraph(graph, pins.ids, walks)
    neighbours = rows.neighbourhoods()
    vectors = _embed(network, pins.vectors, rows.degrees(), neighbours)
    vectors[without_content(pins.vectors) & (np.diff(neighbours.offsets) == 0)] = 0
    return vectors


def _embed(
    network: PinSage, content: NDArray[np.float32], degrees: NDArray[np.int64], neighbours: Neighbourhoods
) -> NDArray[np.float32]:
    inputs = pin_inputs(content, degrees, network.config)
    return embed_catalogue(network, inputs, neighbours.top(network.config.neighbours))


def read_world(
    lake: Lake,
    pins: Pins,
    end: datetime,
    config: PinSagePipeline,
    progress: Progress,
    *,
    hard: bool = True,
    uniform: bool = False,
) -> World:
    """Stages before the held-out days and the held-out stage itself, from the lake's actions before `end`.

    `hard` draws hard negatives, `uniform` GraphSAGE's neighbours. Raises TooFewPairs where no pair falls on
    either side.
    """
    start = lake.interval()[0]
    split = end - timedelta(days=config.held_out_days)
    pairs = read_pairs(lake, pins, end, config.training)
    learned, held_out_pairs = pairs.split(_ms(split))
    if split <= start or not len(learned) or not len(held_out_pairs):
        raise TooFewPairs(
            f"{len(pairs)} pairs from {start:%Y-%m-%d} to {end:%Y-%m-%d}, of which the last "
            f"{config.held_out_days} days are held out; pinsage needs some on both sides: bring more actions"
        )
    learned = learned.sample(config.max_pairs, config.training.seed)
    cuts = [start + (split - start) * i / config.stages for i in range(config.stages)] + [split, end]
    stages = []
    for begin, until in pairwise(cuts):
        held_out = begin == split
        inside = held_out_pairs if held_out else learned.split(_ms(begin))[1].split(_ms(until))[0]
        nothing = np.empty(0, np.int64)  # before the first action nobody has saved anything
        graph = (
            from_edges(nothing, nothing, pin_ids=pins.ids)
            if begin <= start
            else build_graph(lake, config.graph, as_of=begin)
        )
        rows = CatalogueGraph(graph, pins.ids, config.walks)
        stages.append(
            Stage(
                rows.degrees(),
                rows.neighbourhoods(),
                inside,
                hard=rows.hard(inside) if hard and not held_out else None,
                uniform=rows.uniform() if uniform else None,
            )
        )
        progress(f"pinsage: {len(inside)} pairs from {begin:%Y-%m-%d %H:%M}, on {graph.edges} edges")
    return World(pins.vectors, tuple(stages[:-1]), stages[-1])


def read_pairs(lake: Lake, pins: Pins, end: datetime, training: PinSageTraining) -> Pairs:
    """Consecutive positive actions before `end` on pins of the catalogue."""
    columns = ["event_id", "user_id", "pin_id", "action", "timestamp"]
    actions = lake.read("actions", columns, end=end)
    actions = actions[actions["action"].isin(lake.contract().vocabulary.codes(Polarity.POSITIVE))]
    ids = actions["pin_id"].to_numpy(np.int64)
    at = np.minimum(np.searchsorted(pins.ids, ids), max(len(pins.ids) - 1, 0))
    gap = training.max_gap_hours
    return consecutive_pairs(
        actions["user_id"].to_numpy(np.int64),
        np.where(pins.ids[at] == ids, at, -1),
        actions["timestamp"].dt.as_unit("ms").astype("int64").to_numpy(),
        actions["event_id"].to_numpy(np.int64),
        max_gap_ms=None if gap is None else int(gap * 3_600_000),
    )


def measure(world: World, vectors: NDArray[np.float32]) -> dict[str, float]:
    """Metrics of `vectors` on the held-out pairs, beside content vectors and popularity, and on fresh pins."""
    pairs, degrees = world.held_out.pairs, world.held_out.degrees
    fresh = pairs.where(degrees[pairs.positives] == 0)
    metrics: RankMetrics = evaluate_pairs(vectors, pairs)
    out = metrics.named() | evaluate_pairs(world.content, pairs).named("content_")
    out |= popularity_metrics(degrees, pairs).named("popular_")
    out |= {"held_out_pairs": float(len(pairs)), "fresh_pairs": float(len(fresh))}
    if len(fresh):
        out |= evaluate_pairs(vectors, fresh).named("fresh_")
        out |= evaluate_pairs(world.content, fresh).named("fresh_content_")
    return out


def _seeded(config: PinSagePipeline, seed: int) -> PinSagePipeline:
    return config.model_copy(
        update={
            "training": config.training.model_copy(update={"seed": seed}),
            "walks": config.walks.model_copy(update={"seed": seed}),
        }
    )


def _ms(time: datetime) -> int:
    return (time - _EPOCH) // _MS


def _params(config: PinSagePipeline) -> dict[str, object]:
    groups = config.model_dump(mode="json")
    return {
        f"{group}.{name}" if isinstance(value, dict) else group: inner
        for group, value in groups.items()
        for name, inner in (value.items() if isinstance(value, dict) else [("", value)])
    }


def _signature(content_dim: int, network: PinSageConfig) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema, TensorSpec

    columns = [
        ColSpec(DataType.long, "pin_id"),
        ColSpec(Array(DataType.float), "content"),
        ColSpec(DataType.long, "degree"),
        ColSpec(Array(DataType.long), "neighbour_ids"),
        ColSpec(Array(DataType.double), "neighbour_weights"),
    ]
    return ModelSignature(Schema(columns), Schema([TensorSpec(np.dtype(np.float32), (-1, network.dim))]))
