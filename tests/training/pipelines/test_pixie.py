"""Pixie from a lake: one version a set of inputs, walks chosen before the tested days, graphs as of a time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.data.lakes import write_lake
from tests.training.pipelines.conftest import context
from training.context import TrainingContext
from training.evaluation.histories import Histories
from training.evaluation.retrieval import evaluate, hold_out, hold_out_last
from training.models.interactions import Pins
from training.models.pixie import PixieConfig, PixieSettings, ReleasedPixie
from training.pipelines.clock import run_end
from training.pipelines.content import load_catalogue, train_content
from training.pipelines.pixie import (
    NothingToWalk,
    PixiePipeline,
    _clearly_best,
    _rarity,
    choose,
    graph_at,
    released_graph_at,
    train_pixie,
    variants,
    walk,
)
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part
from validation.tables import DEFAULT_VOCABULARY, Polarity

GIVEN = PixiePipeline(settings=PixieSettings(walk=PixieConfig(steps=20_000), half_life_days=3.0))


@pytest.fixture(scope="module")
def content(ctx: TrainingContext) -> Part:
    return train_content(ctx)


@pytest.fixture(scope="module")
def pins(ctx: TrainingContext, content: Part) -> Pins:
    return load_catalogue(ctx, content)


@pytest.fixture(scope="module")
def part(ctx: TrainingContext, content: Part, pins: Pins) -> Part:
    return train_pixie(ctx, content, pins, GIVEN)


def files(ctx: TrainingContext, part: Part) -> Path:
    return Registry(ctx.mlflow_uri, ctx.mlflow_artifacts).download(part.model, part.version)


def test_a_version_is_a_graph_and_its_walk_and_is_made_once(
    ctx: TrainingContext, content: Part, pins: Pins, part: Part
) -> None:
    assert part.space is None and part.collection is None and part.feature_service == "pixie_v1"
    assert train_pixie(ctx, content, pins, GIVEN) == part
    released = ReleasedPixie.load(files(ctx, part))
    assert released.settings.half_life_days == 3.0 and released.settings.context == "board"
    assert not released.graph.rows.pin_boards.flags.writeable
    assert released.graph.info.as_of_ms == int(run_end(ctx).timestamp() * 1000)
    assert part.metrics["edges"] == released.graph.edges > 100
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    assert registry.params("pixie", part.version)["digest"] == released.graph.digest()
    assert registry.version("pixie", part.version).tags["content_space"] == content.space


def test_a_released_graph_can_be_made_as_of_any_time(ctx: TrainingContext, pins: Pins, part: Part) -> None:
    now = released_graph_at(ctx, part, run_end(ctx))
    assert now.digest() == ReleasedPixie.load(files(ctx, part)).graph.digest()
    cut = run_end(ctx) - timedelta(days=4)
    before = released_graph_at(ctx, part, cut)
    assert 0 < before.edges < now.edges
    later = set(pins.ids[pins.created_at_ms >= cut.timestamp() * 1000].tolist())
    assert later and not later & set(before.pin_ids.tolist())


def test_walks_find_what_users_did_next_and_nothing_they_knew(ctx: TrainingContext, pins: Pins) -> None:
    lake = Lake(ctx.lake)
    held = hold_out(lake, run_end(ctx) - timedelta(days=2), run_end(ctx))
    past = Histories.before(lake, held)
    graph = graph_at(lake, pins, GIVEN.graph, held.cut)
    assert GIVEN.settings is not None
    found = walk(graph, GIVEN.settings, past, seed=3)
    again = walk(graph, GIVEN.settings, past, seed=3)
    np.testing.assert_array_equal(found, again)
    assert evaluate(found, held)["recall@100"] > 1.5 * 100 / graph.pins
    for row, user in enumerate(held.users.tolist()):
        assert not np.isin(found[row][found[row] > 0], past.known(user)).any()


def test_the_walk_is_chosen_on_days_before_the_tested_ones(
    ctx: TrainingContext, pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, end = Lake(ctx.lake), run_end(ctx)
    offered = tuple(PixieSettings(walk=PixieConfig(steps=s)) for s in (10, 20_000))
    monkeypatch.setattr("training.pipelines.pixie.variants", lambda rarity: offered)
    monkeypatch.setattr("training.evaluation.retrieval.HOLDOUT_USERS", 30)
    chosen, metrics = choose(ctx, lake, pins, GIVEN.graph, end)
    assert chosen == offered[1], "ten steps find next to nothing"
    assert metrics["tuned_recall_at_100"] == metrics["tuned_recall_at_100_variant_1"]
    tested = hold_out_last(lake, end)
    tuned = hold_out_last(lake, tested.cut)
    assert tuned.end <= tested.cut and metrics["tuned_users"] == len(tuned)


def test_the_papers_walk_stands_against_noise() -> None:
    rng = np.random.default_rng(0)
    paper = rng.random(400)
    noise = paper + rng.normal(0.001, 0.5, 400)
    better = paper + rng.normal(0.1, 0.5, 400)
    assert _clearly_best(np.stack([paper, noise - noise.mean() + paper.mean() + 0.001])) == 0
    assert _clearly_best(np.stack([paper, noise, better])) == 2


def test_variants_begin_with_the_papers_walk() -> None:
    first, *others = variants({"save": 1.0, "closeup": 0.5})
    assert first == PixieSettings() and first not in others


def test_rarer_actions_weigh_more(ctx: TrainingContext) -> None:
    lake, end = Lake(ctx.lake), run_end(ctx)
    weights = _rarity(lake, end)
    vocabulary = lake.contract().vocabulary
    counts = lake.read("actions", ["action"], end=end)["action"].value_counts()
    counted = {vocabulary.name(int(code)): n for code, n in counts.items()}
    positive = {n for n, p in vocabulary.actions.items() if p is Polarity.POSITIVE} & set(counted)
    assert set(weights) == positive and max(weights.values()) == 1.0
    for a in positive:
        for b in positive:
            assert weights[a] / weights[b] == pytest.approx(np.sqrt(counted[b] / counted[a]))


def test_weights_are_of_polarity_unless_an_action_has_its_own(ctx: TrainingContext) -> None:
    vocabulary = Lake(ctx.lake).contract().vocabulary
    settings = PixieSettings(action_weights={"save": 2.5, "unknown here": 9.0}, neutral_weight=0.25)
    weights = settings.weights(vocabulary)
    assert weights[vocabulary.code("save")] == 2.5 and weights[vocabulary.code("click")] == 1.0
    assert weights[vocabulary.code("hide")] == -1.0
    assert np.count_nonzero(weights) == len(vocabulary.actions)


def test_a_lake_without_edges_says_so(tmp_path: Path, content: Part, ctx: TrainingContext) -> None:
    hide = DEFAULT_VOCABULARY.code("hide")
    hidden = pd.DataFrame({"event_id": [1, 2], "user_id": [1, 2], "pin_id": [1, 2], "action": [hide, hide]})
    hidden["timestamp"] = pd.to_datetime(["2026-01-01", "2026-01-02"], utc=True)
    created = pd.DataFrame({"pin_id": [1, 2, 3], "created_at": pd.Timestamp("2025-12-01", tz="UTC")})
    write_lake(tmp_path / "lake", {"pins": created, "actions": hidden})
    empty = context(tmp_path, mlflow_uri=ctx.mlflow_uri, mlflow_artifacts=ctx.mlflow_artifacts)
    nothing = Pins(
        np.arange(1, 4), np.eye(3, 4, dtype=np.float32), np.zeros((3, 4), np.int64), np.zeros(3, np.int64)
    )
    with pytest.raises(NothingToWalk, match="nothing to walk"):
        train_pixie(empty, content, nothing, GIVEN)


def test_mlflow_loads_the_version_by_itself(ctx: TrainingContext, part: Part) -> None:
    import mlflow

    mlflow.set_tracking_uri(ctx.mlflow_uri)
    model = mlflow.pyfunc.load_model(f"models:/pixie/{part.version}")
    graph = ReleasedPixie.load(files(ctx, part)).graph
    asked = graph.ids_of(np.arange(2, dtype=np.int32))
    found = model.predict(pd.DataFrame({"pin_id": asked, "weight": [1.0, 0.5]}))
    assert len(found) > 10 and not np.isin(found["pin_id"], asked).any()
    assert found["score"].is_monotonic_decreasing
