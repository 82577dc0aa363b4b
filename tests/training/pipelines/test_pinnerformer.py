"""PinnerFormer from a lake: one version a set of inputs, every pin and user a vector, nights merged."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from tests.training.data.lakes import write_lake
from training.context import TrainingContext
from training.models.interactions import Pins
from training.models.pinnerformer import PinnerFormerConfig
from training.pinnerformer.batches import Sampling
from training.pinnerformer.trainer import PinnerFormerTraining
from training.pipelines.clock import run_end
from training.pipelines.content import load_catalogue, train_content
from training.pipelines.pinnerformer import (
    PinnerFormerPipeline,
    TooFewLabels,
    load_pinnerformer,
    pinnerformer_catalogue,
    ranker_days,
    read_experiment,
    rules_of,
    train_pinnerformer,
    with_content,
)
from training.pipelines.pinnerformer_users import UserVectors, daily_user_vectors, user_vectors
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part
from validation.tables import Contract

CONFIG = PinnerFormerPipeline(
    network=PinnerFormerConfig(dim=16, hidden=16, layers=1, heads=2, length=32),
    training=PinnerFormerTraining(epochs=2, sampling=Sampling(users=32, positions=8, in_batch=64, random=64)),
    held_out_days=3,
)


@pytest.fixture(scope="module")
def content(ctx: TrainingContext) -> Part:
    return train_content(ctx)


@pytest.fixture(scope="module")
def pins(ctx: TrainingContext, content: Part) -> Pins:
    return with_content(load_catalogue(ctx, content))


@pytest.fixture(scope="module")
def part(ctx: TrainingContext, content: Part) -> Part:
    return train_pinnerformer(ctx, content, CONFIG)


def full(ctx: TrainingContext, part: Part, pins: Pins, as_of: datetime) -> UserVectors:
    return user_vectors(load_pinnerformer(ctx, part), Lake(ctx.lake), pins.ids, pins.vectors, as_of)


@pytest.mark.parametrize(
    ("surfaces", "labels_from"),
    [
        (["homefeed", "search"], ("homefeed",)),
        ([None, None], ("homefeed",)),
        (["store", None], ()),
        (["store", "campaign"], ()),
    ],
)
def test_where_there_is_no_home_feed_every_surface_gives_labels(
    surfaces: list[str | None], labels_from: tuple[str, ...], tmp_path: Path
) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    pins = pd.DataFrame({"pin_id": [1, 2], "created_at": [start, start]})
    save = Contract().vocabulary.code("save")
    rows = {"event_id": [1, 2], "user_id": [1, 1], "pin_id": [1, 2], "action": [save] * 2, "surface": surfaces}
    actions = pd.DataFrame(rows | {"timestamp": [start + timedelta(hours=1), start + timedelta(hours=2)]})
    lake = write_lake(tmp_path, {"pins": pins, "actions": actions})
    assert rules_of(lake, start + timedelta(days=1)).surfaces == labels_from


def test_a_version_is_a_space_and_is_made_once(ctx: TrainingContext, content: Part, part: Part) -> None:
    assert part.space == f"pinnerformer@{part.version}"
    assert part.collection == f"pins__pinnerformer__{part.version}"
    assert train_pinnerformer(ctx, content, CONFIG) == part
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    params = registry.params("pinnerformer", part.version)
    assert params["training.sampling.objective"] == "dense all action" and params["held_out_days"] == "3"
    names = ("recall_at_10", "popular_recall_at_10", "unseen_users_recall_at_10", "recall_at_10_daily")
    assert all(0 <= part.metrics[name] <= 1 for name in (*names, "p90_coverage_at_10"))
    files = sorted(p.name for p in registry.download("pinnerformer", part.version).iterdir())
    assert files == ["pinnerformer.json", "pinnerformer.safetensors"]
    run = registry.version("pinnerformer", part.version).run_id
    figures = {f.path for f in registry.client.list_artifacts(run, "figures")}
    assert figures == {"figures/recall.png", "figures/staleness.png"}


def test_every_pin_with_content_gets_a_vector(ctx: TrainingContext, content: Part, part: Part) -> None:
    made, catalogue = pinnerformer_catalogue(ctx, part), load_catalogue(ctx, content)
    np.testing.assert_array_equal(made.ids, catalogue.ids)
    np.testing.assert_array_equal(made.vectors.any(axis=1), catalogue.vectors.any(axis=1))
    lengths = np.linalg.norm(made.vectors[made.vectors.any(axis=1)], axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


def test_nights_merged_over_nights_are_a_full_computation(
    ctx: TrainingContext, part: Part, pins: Pins, tmp_path: Path
) -> None:
    said: list[str] = []
    mine = replace(ctx, training_sets=tmp_path, progress=said.append)
    end = run_end(ctx)
    for days in (3, 2, 0):
        made = daily_user_vectors(mine, part, end - timedelta(days=days))
    whole = full(ctx, part, pins, end)
    np.testing.assert_array_equal(made.users, whole.users)
    np.testing.assert_array_equal(made.newest_ms, whole.newest_ms)
    np.testing.assert_allclose(made.vectors, whole.vectors, atol=1e-5)
    computed = [int(line.split()[1]) for line in said]
    assert computed[1] < computed[0] and computed[2] < len(whole), "only active users are read anew"
    again = daily_user_vectors(mine, part, end)
    np.testing.assert_array_equal(again.vectors, made.vectors)
    assert len(said) == 3, "a table that is there is not made again"


def test_vectors_as_of_a_time_know_nothing_later(ctx: TrainingContext, part: Part, pins: Pins) -> None:
    as_of = run_end(ctx) - timedelta(days=2, hours=5)
    made = full(ctx, part, pins, as_of)
    assert made.newest_ms.max() < as_of.timestamp() * 1000
    actions = Lake(ctx.lake).read("actions", ["user_id"], end=as_of)
    np.testing.assert_array_equal(made.users, np.unique(actions["user_id"]))
    np.testing.assert_allclose(np.linalg.norm(made.vectors, axis=1), 1, atol=1e-5)


def test_merging_puts_fresh_rows_over_old_ones(tmp_path: Path) -> None:
    old = UserVectors(
        np.array([1, 3, 5]), np.array([1, 2, 3]), np.array([10, 30, 50]), np.eye(3, dtype=np.float32)
    )
    fresh = UserVectors(np.array([2, 3]), np.array([1, 4]), np.array([99, 98]), np.ones((2, 3), np.float32))
    merged = old.merged(fresh)
    assert merged.users.tolist() == [1, 2, 3, 5] and merged.newest_ms.tolist() == [10, 99, 98, 50]
    assert merged.actions.tolist() == [1, 1, 4, 3]
    assert merged.stale(np.array([1, 2, 3, 4, 5]), np.array([1, 2, 4, 1, 3])).tolist() == [2, 4]
    assert merged.vectors[2].tolist() == [1, 1, 1] and merged.vectors[3].tolist() == [0, 0, 1]
    merged.save(tmp_path / "deep" / "table.parquet")
    loaded = UserVectors.load(tmp_path / "deep" / "table.parquet")
    np.testing.assert_array_equal(loaded.vectors, merged.vectors)
    np.testing.assert_array_equal(loaded.users, merged.users)


def test_a_time_without_zone_is_refused(ctx: TrainingContext, part: Part) -> None:
    with pytest.raises(ValueError, match="no zone"):
        daily_user_vectors(ctx, part, datetime(2026, 3, 1))


def test_too_few_days_say_what_to_do(ctx: TrainingContext, content: Part) -> None:
    end, pins = run_end(ctx), load_catalogue(ctx, content)
    with pytest.raises(TooFewLabels, match="bring more actions"):
        read_experiment(Lake(ctx.lake), pins, CONFIG, end - timedelta(days=60), end)


def test_much_data_is_read_fewer_times() -> None:
    base = PinnerFormerPipeline(max_tokens=10_000)
    most = base.network.length * base.training.sampling.sequences_per_user
    assert base.fitted_to(np.array([10, 90])) == base
    assert base.fitted_to(np.array([1_500, 1_000])).training.epochs == 10_000 // (min(1_500, most) + 1_000)
    assert base.fitted_to(np.full(1_000, 5_000)).training.epochs == 1


def test_id_embeddings_make_no_space() -> None:
    with pytest.raises(ValidationError, match="no id embedding"):
        PinnerFormerPipeline(network=PinnerFormerConfig(id_dim=8))


def test_mlflow_loads_the_version_by_itself(ctx: TrainingContext, part: Part, pins: Pins) -> None:
    import mlflow
    import pandas as pd

    mlflow.set_tracking_uri(ctx.mlflow_uri)
    model = mlflow.pyfunc.load_model(f"models:/pinnerformer/{part.version}")
    table = pd.DataFrame(
        {
            "content": [pins.vectors[:2].tolist(), pins.vectors[5:6].tolist()],
            "actions": [[1, 4], [2]],
            "surfaces": [[1, 1], [0]],
            "timestamps_ms": [[1_760_000_900_000, 1_760_000_000_000], [1_760_000_000_000]],
            "durations_s": [[3.0, 0.0], [12.5]],
        }
    )
    vectors = np.asarray(model.predict(table))
    assert vectors.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 0


@pytest.mark.parametrize(("days", "left"), [(365, 28), (35, 14), (23, 9), (22, None), (10, None)])
def test_the_newest_days_are_left_to_the_rankers(days: int, left: int | None) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert ranker_days(start, start + timedelta(days=days)) == left
