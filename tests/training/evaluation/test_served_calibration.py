"""A planted event log whose probabilities are right for one head, twice too high for the other."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from infra.cli import app
from tests.training.data.lakes import write_lake
from training.evaluation.served_calibration import ServedCalibration, served_calibration
from validation.events import ActionRecord, ImpressionRecord, to_line
from validation.lake import Lake

END = datetime.now(UTC) - timedelta(hours=1)
START = END - timedelta(days=2)
OLD, NEW = 1, 2
"""A user of many saves, and one of none."""
SHOWN = 1_500


def shown(i: int, **changes: object) -> ImpressionRecord:
    user = OLD if i % 2 else NEW
    first = {
        "event_id": 10_000 + i,
        "user_id": user,
        "pin_id": i + 1,
        "timestamp_ms": int(START.timestamp() * 1000) + 60_000 * (i + 1),
        "request_id": i + 1,
        "position": 0,
        "surface": "homefeed",
        "source": "pixie" if i % 3 else "dcm",
        "ranker": "transact@4",
        "calibrated": True,
        "policy": "abcd0123",
    }
    return ImpressionRecord(**{**first, **changes})


def acted(impression: ImpressionRecord, action: str, *, late_s: int = 60) -> ActionRecord:
    return ActionRecord(
        event_id=impression.event_id * 10 + len(action),
        user_id=impression.user_id,
        pin_id=impression.pin_id,
        timestamp_ms=impression.timestamp_ms + 1000 * late_s,
        action=action,
        request_id=impression.request_id,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("home")
    past = pd.Timestamp(START) - pd.Timedelta(days=3)
    saves = pd.DataFrame({"user_id": OLD, "pin_id": np.arange(1, 9), "action": np.int8(4), "timestamp": past})
    write_lake(root / "lake", {"actions": saves.assign(event_id=np.arange(1, 9), request_id=0)})
    rng = np.random.default_rng(0)
    lines = []
    for i in range(SHOWN):
        save, hide = rng.uniform(0.05, 0.4), rng.uniform(0.02, 0.1)
        engage = save
        made = shown(i, heads={"engage": engage, "save": save, "hide": min(1.0, 2 * hide)}, score=save)
        lines.append(made)
        if rng.random() < save:
            lines.append(acted(made, "save"))
        if rng.random() < hide:
            lines.append(acted(made, "hide"))
    lines.append(shown(SHOWN, heads=None))
    lines.append(shown(SHOWN + 1, ranker="lr@1", calibrated=False, heads={"engage": 0.5}))
    lines.append(acted(lines[-1], "save", late_s=3 * 86_400))
    ad = {"ranker": "ads_multi_tower@2", "surface": "related_ads", "heads": {"hide": 0.5}}
    lines.append(shown(SHOWN + 2, **ad))
    (root / "events").mkdir()
    written = b"".join(map(to_line, lines)) + b'{"torn": '
    (root / "events" / "events-1.jsonl").write_bytes(written)
    return root


def measured(home: Path, end: datetime = END) -> tuple[ServedCalibration, ...]:
    within = timedelta(hours=12)
    return served_calibration(home / "events", Lake(home / "lake"), start=START, end=end, within=within)


def test_planted_errors_are_found_by_head_and_slice(home: Path):
    ads, other, newest = measured(home)
    assert [one.ads for one in (ads, other, newest)] == [True, False, False]
    rows = {(row.head, row.slice): row for row in newest.rows}
    assert (newest.ranker, newest.calibrated) == ("transact@4", True)
    assert rows["save", "all"].rows == SHOWN and rows["save", "all"].before is None
    assert rows["save", "all"].after.total_error == pytest.approx(0, abs=0.12)
    assert rows["hide", "all"].after.total_error == pytest.approx(1, abs=0.4)
    assert rows["engage", "all"].positives == rows["save", "all"].positives, "hides are no engagement"
    assert {"pixie", "dcm"} <= {row.slice for row in newest.rows}
    assert (other.ranker, other.calibrated) == ("lr@1", False)
    assert other.rows[0].positives == 0, "an answer after three days is none"


def test_new_users_are_those_of_few_positive_actions_before(home: Path):
    rows = {(row.head, row.slice): row for row in measured(home)[2].rows}
    new = rows["engage", "new users"]
    assert 5 <= new.rows < SHOWN / 4, "until the fifth save"


def test_impressions_outside_the_interval_are_left_out(home: Path):
    early = measured(home, START + timedelta(hours=5))
    assert [one.ranker for one in early] == ["transact@4"] and early[0].rows[0].rows == 299
    assert measured(home, START) == ()


def test_the_command_prints_and_draws(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("MLFLOW_TRACKING_URI", "CORKBOARD_MILVUS_URI", "CORKBOARD_HOME", "BENTOML_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    files = ("--json", tmp_path / "all.json", "--figure", tmp_path / "served.png", "--within-hours", "0.9")
    command = ["--home", str(home), "calibration", *map(str, files)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "transact@4" in result.output and "lr@1, scores served uncalibrated" in result.output
    told = json.loads((tmp_path / "all.json").read_text())
    assert {one["ranker"] for one in told} == {"transact@4", "lr@1", "ads_multi_tower@2"}
    assert (tmp_path / "served.png").read_bytes()[:4] == b"\x89PNG"
    assert "reliability of lr@1" in result.output, "an ad was shown last, and ads have no headline"
    result = CliRunner().invoke(app, ["--home", str(home), "calibration", "--within-hours", "9000"])
    assert result.exit_code == 1 and "has no ranked impression" in " ".join(result.output.split())
