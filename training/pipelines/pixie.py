"""Release Pixie: build the pruned graph of the lake, choose how it is walked, register both."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from feature_repo.schema import PIXIE_SERVICE
from training.context import TrainingContext
from training.data import graph as graph_module
from training.data.graph import Context, GraphConfig, PinVectors, build_graph
from training.digests import digest_files, digest_of
from training.evaluation.histories import Histories, actions_by_day
from training.evaluation.retrieval import (
    HeldOut,
    NothingHeldOut,
    hold_out_last,
    popularity,
    user_metrics,
)
from training.model_log import FLAVOURS, Dataset, ModelLog, pinned
from training.models import pixie as pixie_model
from training.models.interactions import Pins
from training.models.pin_board_graph import PinBoardGraph
from training.models.pixie import Pixie, PixieConfig, PixieSettings, ReleasedPixie
from training.pipelines.clock import run_end
from training.pipelines.content import content_part, content_space_of, load_catalogue
from training.pipelines.registering import register, unchanged
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part, Space
from validation.tables import Polarity

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

MODEL = "pixie"

PIPELINE = "pipeline.json"
"""The version's file of the `PixiePipeline` it was made with."""

TABLES = ("pins", "actions", "boards", "topics", "users")

CODE = (Path(pixie_model.__file__).parent, *graph_module.CODE, Path(__file__))

Ids = NDArray[np.int64]

K = 100
TUNED_USERS = 500


class NothingToWalk(ValueError):
    """The graph has no edges."""


class PixiePipeline(BaseModel):
    """Everything one Pixie version is made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    graph: GraphConfig = GraphConfig()
    settings: PixieSettings | None = None
    """How the graph is walked; None chooses among `variants` by the days before those that releases test on."""


def variants(rarity: dict[str, float]) -> tuple[PixieSettings, ...]:
    """What is chosen among: the paper's walk first, then one change at a time, then those that go together.

    `rarity` weighs each action by how seldom it is.
    """
    paper = PixieConfig()
    shared = paper.model_copy(update={"steps_by_degree": False})
    discounted = shared.model_copy(update={"popularity_discount": 0.3})
    return (
        PixieSettings(walk=paper),
        PixieSettings(walk=shared),
        PixieSettings(walk=discounted),
        PixieSettings(walk=shared, half_life_days=30.0),
        PixieSettings(walk=shared, action_weights=rarity),
        PixieSettings(walk=shared, language_bias=True),
        PixieSettings(walk=discounted, half_life_days=30.0, action_weights=rarity),
    )


def train_pixie(
    ctx: TrainingContext, content: Part, pins: Pins, config: PixiePipeline | None = None, *, force: bool = False
) -> Part:
    """Build, choose, measure and register; the part of the release's walk. It has no space of its own.

    `pins` are the catalogue in the space of `content`, by which edges are pruned. The version already made
    from the same tables, content version, configuration and code is returned as it is, unless `force`.
    Raises NothingToWalk where no positive action makes an edge, GraphError for a declared context the lake
    lacks.
    """
    lake, registry = Lake(ctx.lake), Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    end, config = run_end(ctx), config or PixiePipeline()
    data = lake.digest(TABLES)
    inputs = digest_of(MODEL, data, end, content.space, config.model_dump_json(), ctx.seed, digest_files(CODE))
    if version := unchanged(ctx, MODEL, inputs, force=force):
        return pixie_part(registry, version)
    graph = graph_at(lake, pins, config.graph, end)
    if graph.edges == 0:
        raise NothingToWalk(
            "no positive action ties a pin to a board, basket or session: there is nothing to walk"
        )
    for line in graph.info.notes:
        ctx.progress(f"pixie: {line}")
    settings, metrics = config.settings, {}
    if settings is None:
        settings, metrics = choose(ctx, lake, pins, config.graph, end)
    settings = settings.model_copy(update=_context(lake, config.graph))
    metrics |= {
        "pins": graph.pins,
        "boards": graph.boards,
        "edges": graph.edges,
        "degree": graph.max_pin_degree,
    }

    def save(files: Path) -> None:
        ReleasedPixie(settings, graph).save(files)
        (files / PIPELINE).write_text(config.model_dump_json(indent=2))

    log = ModelLog(
        name=MODEL,
        flavour=FLAVOURS / "pixie.py",
        description="The pin-board graph and random walks on it: pins that stand on boards with a "
        "user's, a pin's or a board's pins (arXiv 1711.07601).",
        params=_params(config, settings, graph),
        metrics=metrics,
        interval=(lake.interval()[0], end),
        datasets=(Dataset(", ".join(TABLES), str(ctx.lake), data),),
        signature=_signature(),
        requirements=pinned("numba", "numpy", "pandas", "pydantic"),
        inputs=inputs,
        tags={"feature_service": PIXIE_SERVICE, "content_space": content.space or ""},
        notes="\n".join(f"- {line}" for line in graph.info.notes) + "\n\n" + lake.contract().notes,
    )
    version = register(ctx, log, save)
    return pixie_part(registry, version)


def pixie_part(registry: Registry, version: int) -> Part:
    """The release part of one version."""
    return Part(
        model=MODEL,
        version=version,
        feature_service=PIXIE_SERVICE,
        metrics=registry.metrics(MODEL, version),
    )


def released_graph_at(ctx: TrainingContext, part: Part, as_of: datetime) -> PinBoardGraph:
    """The graph that the version's configuration makes of the lake as of a UTC time."""
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    files = registry.download(part.model, part.version)
    config = PixiePipeline.model_validate_json((files / PIPELINE).read_text())
    content = content_part(registry, Space.parse(content_space_of(registry, part)).version)
    return graph_at(Lake(ctx.lake), load_catalogue(ctx, content), config.graph, as_of)


def graph_at(lake: Lake, pins: Pins, config: GraphConfig, as_of: datetime) -> PinBoardGraph:
    """The lake's graph as of a time, pruned by the vectors of `pins`."""
    return build_graph(lake, config, as_of=as_of, vectors=PinVectors(pins.ids, pins.vectors))


def choose(
    ctx: TrainingContext, lake: Lake, pins: Pins, config: GraphConfig, end: datetime
) -> tuple[PixieSettings, dict[str, float]]:
    """How to walk, chosen by recall@100 on the days before those that releases test on; and what each reached.

    The paper's walk stands unless another is better beyond the noise, and where there are no such days.
    """
    try:
        tested = hold_out_last(lake, end)
        held = hold_out_last(lake, tested.cut).sample(TUNED_USERS, ctx.seed)
    except NothingHeldOut:
        return PixieSettings(), {}
    if held.cut <= lake.interval()[0]:  # nobody has a history before those days
        return PixieSettings(), {}
    graph = graph_at(lake, pins, config, held.cut)
    offered = variants(_rarity(lake, held.cut))
    if len(graph.info.languages) < 2:
        offered = tuple(v for v in offered if not v.language_bias)
    past = Histories.before(lake, held)
    recall = np.stack(
        [_recall(walk(graph, v, past, seed=ctx.seed), held) for v in offered]
    )  # (variants, users)
    best = _clearly_best(recall)
    popular = np.tile(popularity(lake, held.cut, K), (len(held), 1))
    metrics = {f"tuned_recall_at_100_variant_{i}": float(values.mean()) for i, values in enumerate(recall)}
    metrics |= {
        "tuned_recall_at_100": float(recall[best].mean()),
        "tuned_recall_at_100_popular": float(_recall(popular, held).mean()),
        "tuned_users": float(len(held)),
    }
    ctx.progress(
        f"pixie: variant {best} of {len(offered)}, recall@100 {metrics['tuned_recall_at_100']:.3f}"
        f" of {len(held)} users (the paper's walk {recall[0].mean():.3f},"
        f" popularity {metrics['tuned_recall_at_100_popular']:.3f})"
    )
    return offered[best], metrics


def _recall(recommended: Ids, held: HeldOut) -> NDArray[np.float64]:
    return user_metrics(recommended, held, ks=(K,))[f"recall@{K}"]


def _clearly_best(recall: NDArray[np.float64]) -> int:
    """The row of `recall` (variants, users) with the highest mean, if it beats the first, the paper's walk, by
    more than the standard error of their paired difference; else the first.
    """
    best = int(np.argmax(recall.mean(axis=1)))
    gain = recall[best] - recall[0]
    return best if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)) else 0


def walk(graph: PinBoardGraph, settings: PixieSettings, past: Histories, *, k: int = K, seed: int = 0) -> Ids:
    """Pixie's `k` pins new to each held-out user, (U, k) int64, best first, zero-padded."""
    pixie, weights = Pixie(graph, settings.walk), settings.weights(past.vocabulary)

    def one(user: int) -> Ids:
        done = past.sequence(user)
        query = settings.query(done.pin_ids, done.actions, done.timestamps_ms, past.cut_ms, weights)
        query = replace(query, exclude=np.union1d(query.exclude, past.known(user)))
        bias = settings.bias(graph, past.languages.get(user))
        found = pixie.recommend(query, k, seed=seed + user, bias=bias).pin_ids
        return np.pad(found, (0, k - len(found)))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return np.array(list(pool.map(one, past.held.users.tolist())), np.int64).reshape(-1, k)


def _rarity(lake: Lake, end: datetime) -> dict[str, float]:
    """Weight of each positive action by how seldom it is: sqrt(the rarest one's count / its count)."""
    vocabulary = lake.contract().vocabulary
    counts = pd.Series(0, index=vocabulary.codes(Polarity.POSITIVE))
    for rows in actions_by_day(lake, end):
        counts = counts.add(rows["action"].value_counts(), fill_value=0)
    counts = counts.reindex(vocabulary.codes(Polarity.POSITIVE), fill_value=0)
    counts = counts[counts > 0]
    return {vocabulary.name(int(code)): float(np.sqrt(counts.min() / n)) for code, n in counts.items()}


def _context(lake: Lake, config: GraphConfig) -> dict[str, object]:
    context = graph_module.context_of(lake, config)
    gap = {"session_gap_minutes": config.session_gap_minutes} if context is Context.SESSION else {}
    return {"context": context.value, **gap}


def _params(config: PixiePipeline, settings: PixieSettings, graph: PinBoardGraph) -> dict[str, object]:
    params = {f"graph.{name}": value for name, value in config.graph.model_dump(mode="json").items()}
    params |= {f"walk.{name}": value for name, value in settings.walk.model_dump(mode="json").items()}
    params |= settings.model_dump(mode="json", exclude={"walk"})
    return params | {
        "settings_were": "chosen" if config.settings is None else "given",
        "digest": graph.digest(),
    }


def _signature() -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, DataType, Schema

    query = [ColSpec(DataType.long, "pin_id"), ColSpec(DataType.double, "weight", required=False)]
    return ModelSignature(
        Schema(query), Schema([ColSpec(DataType.long, "pin_id"), ColSpec(DataType.float, "score")])
    )
