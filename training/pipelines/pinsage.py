"""Train PinSage: stages of graph and pairs from a lake, the network, its evaluation, its registration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import PINSAGE_SERVICE
from training.context import TrainingContext
from training.cpu import tune_cpu
from training.data import graph as graph_module
from training.data.graph import build_graph
from training.digests import digest_files, digest_of
from training.model_log import FLAVOURS, Dataset, ModelLog, pinned
from training.models import pinsage as pinsage_model
from training.models import weights as weights_module
from training.models.content import without_content
from training.models.interactions import Pins
from training.models.pin_board_graph import PinBoardGraph
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
from training.pinsage.ladder import SEEDS, Ladder, World, climb, rung_vectors
from training.pinsage.walks import CatalogueGraph, WalkConfig
from training.pipelines import pinsage_world as world_module
from training.pipelines.clock import run_end
from training.pipelines.content import content_part, content_space_of, load_catalogue
from training.pipelines.pinsage_world import PinSagePipeline, read_world
from training.pipelines.registering import flat_params, kept_weights, register, space_part, unchanged
from training.registry import LEARNED_UNTIL_TAG, Registry
from validation.lake import Lake
from validation.manifest import Part, Space

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

MODEL = "pinsage"

PIPELINE = "pipeline.json"
"""The version's file of the `PinSagePipeline` it was made with: how its graphs are built and walked."""

CODE = (
    Path(pinsage_model.__file__).parent,
    Path(trainer_module.__file__).parent,
    *graph_module.CODE,
    Path(weights_module.__file__),
    Path(world_module.__file__),
    Path(__file__),
)


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
    kept = kept_weights(registry, MODEL, content) if ctx.keep_weights else None
    learned_until = end - timedelta(days=config.held_out_days)
    tags = {LEARNED_UNTIL_TAG: learned_until.isoformat()} if kept is None else kept.tags
    if kept is not None:
        files = registry.download(MODEL, kept.version)
        config = PinSagePipeline.model_validate_json((files / PIPELINE).read_text())
    data = lake.digest(("pins", "actions", "boards"))
    inputs = digest_of(
        MODEL, data, end, content.space, config.model_dump_json(), kept and kept.learned_at, digest_files(CODE)
    )
    if version := unchanged(ctx, MODEL, inputs, force=force):
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
        ctx.progress(f"pinsage: {len(pins.ids)} pins by the weights of {MODEL}@{kept.learned_at}")
        one = config.model_copy(update={"stages": 1})
        world = read_world(lake, pins, end, one, ctx.progress, hard=False)
        network = PinSage.load(files)
        vectors = _embed(network, world.content, world.held_out.degrees, world.held_out.neighbourhoods)
        metrics = measure(world, vectors)

    def save(files: Path) -> None:
        network.save(files)
        (files / PIPELINE).write_text(config.model_dump_json(indent=2))

    log = ModelLog(
        name=MODEL,
        flavour=FLAVOURS / "pinsage.py",
        description="Pins by their content and their neighbourhood on boards: graph convolutions with "
        "importance pooling (arXiv 1806.01973).",
        params=flat_params(config) | {"content_space": content.space},
        metrics=metrics,
        interval=(lake.interval()[0], end),
        datasets=(Dataset("pins, actions, boards", str(ctx.lake), data),),
        signature=_signature(world.content.shape[1], config.network),
        requirements=pinned("numba", "numpy", "pandas", "pydantic", "safetensors", "torch"),
        inputs=inputs,
        tags={"feature_service": PINSAGE_SERVICE, "content_space": content.space or ""} | tags,
        notes=f"Weights are learned before the last {config.held_out_days} days, on which the metrics are; "
        "vectors are of the whole graph, which the network takes without retraining. " + lake.contract().notes,
    )
    version = register(ctx, log, save)
    return pinsage_part(registry, version)


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
    return space_part(registry, MODEL, version, PINSAGE_SERVICE)


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
