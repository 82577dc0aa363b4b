"""PinSage from a lake: stages that see nothing of later, one version a set of inputs, every pin a vector."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from training.context import TrainingContext
from training.models.interactions import Pins
from training.models.pin_board_graph import from_edges
from training.models.pinsage import PinSage, PinSageConfig, Rung
from training.pinsage.ladder import World
from training.pinsage.trainer import PinSageTraining
from training.pinsage.walks import WalkConfig
from training.pipelines.clock import run_end
from training.pipelines.content import load_catalogue, train_content
from training.pipelines.pinsage import embed_pin_catalogue, pinsage_catalogue, shortfall, train_pinsage
from training.pipelines.pinsage_world import PinSagePipeline, TooFewPairs, read_world
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part

CONFIG = PinSagePipeline(
    network=PinSageConfig(dim=16, hidden=24),
    training=PinSageTraining(epochs=2, batch=256, uniform_negatives=100),
    walks=WalkConfig(walks=50, hard_walks=200, hard_ranks=(20, 100)),
    stages=2,
    held_out_days=3,
)


@pytest.fixture(scope="module")
def content(ctx: TrainingContext) -> Part:
    return train_content(ctx)


@pytest.fixture(scope="module")
def pins(ctx: TrainingContext, content: Part) -> Pins:
    return load_catalogue(ctx, content)


@pytest.fixture(scope="module")
def stages(ctx: TrainingContext, pins: Pins) -> World:
    return read_world(Lake(ctx.lake), pins, run_end(ctx), CONFIG, ctx.progress)


@pytest.fixture(scope="module")
def part(ctx: TrainingContext, content: Part) -> Part:
    return train_pinsage(ctx, content, CONFIG)


def test_a_stage_knows_nothing_of_its_own_pairs(ctx: TrainingContext, stages: World, pins: Pins) -> None:
    lake, end = Lake(ctx.lake), run_end(ctx)
    saves = lake.read("actions", ["pin_id", "board_id", "timestamp"]).dropna()
    split = end - timedelta(days=3)
    assert stages.stages[0].degrees.sum() == 0
    last = stages.held_out
    assert last.pairs.times_ms.min() >= split.timestamp() * 1000
    assert max(stage.pairs.times_ms.max() for stage in stages.stages) < split.timestamp() * 1000
    before = saves[saves["timestamp"] < split].drop_duplicates(["pin_id", "board_id"])
    boards = before["pin_id"].value_counts().reindex(pins.ids, fill_value=0).to_numpy()
    assert (last.degrees <= boards).all() and last.degrees.sum() > 0.5 * boards.sum()


def test_a_version_is_a_space_and_is_made_once(ctx: TrainingContext, content: Part, part: Part) -> None:
    assert part.space == f"pinsage@{part.version}"
    assert part.collection == f"pins__pinsage__{part.version}"
    assert train_pinsage(ctx, content, CONFIG) == part
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    assert registry.params("pinsage", part.version)["walks.hard_ranks"] == "[20, 100]"
    for name in ("hit_rate_at_50", "content_hit_rate_at_50", "popular_hit_rate_at_50", "scaled_mrr"):
        assert 0 <= part.metrics[name] <= 1
    files = sorted(p.name for p in registry.download("pinsage", part.version).iterdir())
    assert files == ["pinsage.json", "pinsage.safetensors", "pipeline.json"]


@pytest.mark.parametrize(
    ("ours", "theirs", "pairs", "served"),
    [(0.15, 0.12, 15_000, True), (0.27, 0.33, 3_000, False), (0.15, 0.148, 1_000, False)],
)
def test_it_is_served_where_it_finds_more_than_content_beyond_the_noise(
    part: Part, ours: float, theirs: float, pairs: int, served: bool
) -> None:
    said = {"hit_rate_at_50": ours, "content_hit_rate_at_50": theirs, "held_out_pairs": float(pairs)}
    reason = shortfall(part.model_copy(update={"metrics": said}))
    assert (reason is None) is served
    assert served or f"{theirs:.1%}" in (reason or "")


def test_new_pins_get_vectors_of_the_weights_there_are(
    ctx: TrainingContext, content: Part, part: Part, tmp_path: Path
) -> None:
    """Three pins more than anything was trained on: one more version of each encoder, of the same weights."""
    shutil.copytree(ctx.lake, tmp_path / "lake")
    lake = Lake(tmp_path / "lake")
    pins = pq.read_table(lake.file("pins"))
    new = pins.slice(0, 3).to_pandas()
    new["pin_id"] += int(pc.max(pins["pin_id"]).as_py())
    rows = pa.Table.from_pandas(new, schema=pins.schema, preserve_index=False)
    pq.write_table(pa.concat_tables([pins, rows]), lake.file("pins"))
    later = replace(ctx, lake=lake.path, keep_weights=True)
    more_content = train_content(later)
    more = train_pinsage(later, more_content)
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    # Other tests of this home may have made versions of the content space in between.
    assert more_content.version > content.version and more.version == part.version + 1
    newest = registry.weights_of("content", more_content.version - 1)
    assert registry.weights_of("content", more_content.version) == newest
    assert registry.weights_of("pinsage", more.version) == part.version
    files = [registry.download("pinsage", v) / "pinsage.safetensors" for v in (part.version, more.version)]
    assert files[0].read_bytes() == files[1].read_bytes()
    then, now = pinsage_catalogue(ctx, part), pinsage_catalogue(later, more)
    assert len(now.ids) == len(then.ids) + 3
    fresh = now.vectors[np.isin(now.ids, new["pin_id"])]
    assert fresh.any(axis=1).all()
    old = then.vectors[np.isin(then.ids, new["pin_id"] - int(pc.max(pins["pin_id"]).as_py()))]
    cosine = (fresh * old).sum(1) / np.linalg.norm(fresh, axis=1) / np.linalg.norm(old, axis=1)
    assert (cosine > 0.7).all(), "the same content, without the boards"
    assert train_pinsage(later, more_content) == more, "and nothing is done twice"


def test_every_pin_gets_a_vector(ctx: TrainingContext, content: Part, part: Part, pins: Pins) -> None:
    made = pinsage_catalogue(ctx, part)
    np.testing.assert_array_equal(made.ids, pins.ids)
    assert made.vectors.shape == (len(pins.ids), 16) and np.isfinite(made.vectors).all()
    assert made.vectors.any(axis=1).all()


def test_vectors_as_of_a_time_know_nothing_later(ctx: TrainingContext, part: Part) -> None:
    now = pinsage_catalogue(ctx, part)
    before = pinsage_catalogue(ctx, part, run_end(ctx) - timedelta(days=4))
    moved = (now.vectors != before.vectors).any(axis=1)
    assert moved.any(), "what was saved since moves some vectors"
    at_start = pinsage_catalogue(ctx, part, Lake(ctx.lake).interval()[0] + timedelta(seconds=1))
    fresh = at_start.created_at_ms >= run_end(ctx).timestamp() * 1000
    assert not fresh.any() and np.isfinite(at_start.vectors).all(), "content alone makes a vector"


def test_a_pin_of_neither_content_nor_neighbours_has_no_vector(pins: Pins) -> None:
    blank = pins.vectors.copy()
    blank[:3] = 0
    edges = np.array([pins.ids[0], pins.ids[5], pins.ids[6]]), np.array([1, 1, 1])
    graph = from_edges(*edges, pin_ids=pins.ids)
    network = PinSage(CONFIG.network, blank.shape[1])
    vectors = embed_pin_catalogue(network, replace(pins, vectors=blank), graph, CONFIG.walks)
    assert vectors[0].any(), "its neighbours speak for it"
    assert not vectors[1:3].any()


def test_too_few_days_say_what_to_do(ctx: TrainingContext, pins: Pins) -> None:
    with pytest.raises(TooFewPairs, match="bring more actions"):
        read_world(
            Lake(ctx.lake), pins, run_end(ctx), CONFIG.model_copy(update={"held_out_days": 60}), ctx.progress
        )


def test_mlflow_loads_the_version_by_itself(ctx: TrainingContext, part: Part) -> None:
    import mlflow
    import pandas as pd

    mlflow.set_tracking_uri(ctx.mlflow_uri)
    model = mlflow.pyfunc.load_model(f"models:/pinsage/{part.version}")
    width = 64
    table = pd.DataFrame(
        {
            "pin_id": [5, 6],
            "content": [np.ones(width, np.float32)] * 2,
            "degree": [3, 0],
            "neighbour_ids": [[6, 77], []],
            "neighbour_weights": [[0.9, 0.1], []],
        }
    )
    vectors = np.asarray(model.predict(table))
    assert vectors.shape == (2, 16) and np.abs(vectors[0] - vectors[1]).max() > 0


def test_hard_negatives_are_for_large_catalogues() -> None:
    assert PinSagePipeline().fitted_to(12_000).rung is Rung.IMPORTANCE
    assert PinSagePipeline().fitted_to(68_000).rung is Rung.PINSAGE
    assert PinSagePipeline(rung=Rung.PINSAGE).fitted_to(12_000).rung is Rung.PINSAGE


def test_fitted_windows_stay_inside_the_catalogue() -> None:
    assert PinSagePipeline().fitted_to(1_000_000).walks.hard_ranks == (2000, 5000)
    low, high = PinSagePipeline().fitted_to(12_000).walks.hard_ranks
    assert 50 <= low < high <= 12_000
    low, high = PinSagePipeline().fitted_to(30).walks.hard_ranks
    assert 0 < low < high
