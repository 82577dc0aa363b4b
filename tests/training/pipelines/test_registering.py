"""Versions are found by what they were made from, registered once, and say whose weights they keep."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.training.pipelines.conftest import GiveRegistry, context
from training.context import TrainingContext
from training.model_log import FLAVOURS, Dataset, ModelLog, columns_signature
from training.pipelines.registering import flat_params, kept_weights, register, space_part, unchanged
from training.registry import LEARNED_UNTIL_TAG, WEIGHTS_TAG, Registry

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory, give_registry: GiveRegistry) -> TrainingContext:
    root = tmp_path_factory.mktemp("registering")
    give_registry(root)
    return context(root)


def log(inputs: str, name: str = "two_tower", **tags: str) -> ModelLog:
    return ModelLog(
        name=name,
        flavour=FLAVOURS / "two_tower.py",
        description="For a test.",
        params={},
        metrics={},
        interval=(START, END),
        datasets=(Dataset("actions", "here", "d1"),),
        signature=columns_signature({"x": "float"}),
        requirements=(),
        inputs=inputs,
        tags=tags,
    )


def save(files: Path) -> None:
    files.mkdir(parents=True)
    (files / "two_tower.json").write_text("{}")


def test_the_same_inputs_are_done_once_and_said(ctx: TrainingContext) -> None:
    said: list[str] = []
    telling = replace(ctx, progress=said.append)
    assert unchanged(telling, "two_tower", "i1") is None
    version = register(telling, log("i1", content_space="content@1", learned_until=END.isoformat()), save)
    assert unchanged(telling, "two_tower", "i1") == version
    assert unchanged(telling, "two_tower", "i1", force=True) is None
    assert unchanged(telling, "two_tower", "i2") is None
    assert said == [f"two_tower: registered two_tower@{version}", f"two_tower: unchanged, two_tower@{version}"]
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    assert [f.name for f in registry.download("two_tower", version).iterdir()] == ["two_tower.json"]
    part = space_part(registry, "two_tower", version, "two_tower_v1")
    assert (part.space, part.collection) == (f"two_tower@{version}", f"pins__two_tower__{version}")


def test_weights_are_kept_only_over_the_content_they_were_learned_on(ctx: TrainingContext) -> None:
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    one = register(ctx, log("c1", "content"), save)
    same = register(ctx, log("c2", "content", **{WEIGHTS_TAG: str(one)}), save)
    other = register(ctx, log("c3", "content"), save)
    parts = {v: space_part(registry, "content", v, "content_v1") for v in (one, same, other)}
    assert kept_weights(registry, "dcm", parts[one]) is None, "there is no version yet"
    reads = {"content_space": f"content@{one}", LEARNED_UNTIL_TAG: END.isoformat()}
    first = register(ctx, log("d1", "dcm", **reads), save)
    kept = kept_weights(registry, "dcm", parts[same])
    assert kept is not None
    assert (kept.version, kept.learned_at, kept.learned_until) == (first, first, END)
    assert kept_weights(registry, "dcm", parts[other]) is None
    second = register(ctx, log("d2", "dcm", content_space=f"content@{same}", **kept.tags), save)
    again = kept_weights(registry, "dcm", parts[one])
    assert again is not None
    assert (again.version, again.learned_at, again.learned_until) == (second, first, END)


def test_settings_are_flat_by_name() -> None:
    class Inner(BaseModel):
        rate: float = 0.5
        ranks: tuple[int, ...] = (1, 2)

    class Outer(BaseModel):
        inner: Inner = Inner()
        days: int = 7
        by_name: dict[str, Inner] = {}

    assert flat_params(Outer()) == {"inner.rate": 0.5, "inner.ranks": [1, 2], "days": 7, "by_name": {}}
