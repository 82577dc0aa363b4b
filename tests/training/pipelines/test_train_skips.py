"""Steps that cannot be taken are left out by name, and with them what stands on them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.pipelines.conftest import GiveRegistry, context
from tests.training.pipelines.small_run import Lines
from training.context import TrainingContext
from training.data.world import WorldPaths
from training.pipelines import train as train_module
from training.pipelines.steps import STEPS
from training.pipelines.train import train
from validation.ingest import ingest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small")]


def test_pins_without_content_skip_what_stands_on_content(
    tmp_path: Path, world: WorldPaths, monkeypatch: pytest.MonkeyPatch, give_registry: GiveRegistry
):
    import pandas as pd

    source = tmp_path / "tables"
    source.mkdir()
    for table in ("pins", "actions"):
        file = world.tables / f"{table}.parquet"
        frame = pd.read_parquet(file if file.exists() else world.tables / table)
        if table == "pins":
            frame = frame[["pin_id", "created_at"]]
        else:
            frame = frame[["user_id", "pin_id", "action", "timestamp"]]
        frame.to_parquet(source / f"{table}.parquet")
    ingest(source, tmp_path / "lake", tmp_path / "q", tmp_path / "r", checkpoint=False)
    give_registry(tmp_path)
    monkeypatch.setattr(train_module.Publisher, "features", lambda *_: None)
    lines = Lines()
    done = train(context(tmp_path, progress=lines))
    assert done.parts == {} and "no pin has a title" in done.skipped["content"]
    assert set(done.skipped) == set(STEPS) - {"features"}


def test_without_follows_there_is_no_conditional_retrieval(made: TrainingContext, tmp_path: Path):
    shutil.copytree(made.lake, tmp_path / "lake")
    shutil.rmtree(tmp_path / "lake" / "follows")
    done = train(replace(made, lake=tmp_path / "lake"), models=["conditional"])
    assert done.skipped == {"conditional": "the data has no follows"} and set(done.parts) == {"content"}
