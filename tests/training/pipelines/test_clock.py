"""A run ends at a midnight that is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from tests.training.pipelines.conftest import context
from training.context import TrainingContext
from training.data.splits import midnight
from training.pipelines.clock import NoWholeDay, run_end, run_interval
from validation.ingest import ingest
from validation.lake import Lake


def lake_with_actions_at(root: Path, *times: datetime) -> TrainingContext:
    source = root / "tables"
    source.mkdir(parents=True)
    created = pd.Timestamp(times[0] - timedelta(days=30))
    pd.DataFrame({"pin_id": [1], "created_at": [created]}).to_parquet(source / "pins.parquet")
    rows = {"user_id": 1, "pin_id": 1, "action": "save", "timestamp": pd.to_datetime(list(times), utc=True)}
    pd.DataFrame(rows).to_parquet(source / "actions.parquet")
    ingest(source, root / "lake", root / "quarantine", root / "reports", checkpoint=False)
    return context(root)


def test_old_data_ends_after_its_last_day(ctx: TrainingContext):
    start, end = Lake(ctx.lake).interval()
    assert run_interval(ctx) == (start, end)
    assert end == midnight(end) and (end - start).days == 10


def test_a_day_that_is_not_over_is_left_out(tmp_path: Path):
    now = datetime.now(UTC)
    today = midnight(now)
    made = lake_with_actions_at(tmp_path, today - timedelta(hours=5), max(today, now - timedelta(seconds=30)))
    assert Lake(made.lake).interval()[1] == today + timedelta(days=1)
    assert run_end(made) == today


def test_nothing_but_today_is_named(tmp_path: Path):
    now = datetime.now(UTC)
    made = lake_with_actions_at(tmp_path, max(midnight(now), now - timedelta(seconds=30)))
    with pytest.raises(NoWholeDay, match="not over yet"):
        run_end(made)


def test_as_of_looks_back_and_has_to_be_a_midnight(ctx: TrainingContext):
    start, end = Lake(ctx.lake).interval()
    earlier = end - timedelta(days=3)
    assert run_end(context(ctx.lake.parent, as_of=earlier)) == earlier
    for wrong in (earlier + timedelta(hours=1), earlier.replace(tzinfo=None)):
        with pytest.raises(ValueError, match="UTC midnight"):
            run_end(context(ctx.lake.parent, as_of=wrong))
    with pytest.raises(NoWholeDay):
        run_end(context(ctx.lake.parent, as_of=start))
