"""The suites over the lake: what broke in it since it entered is named, other days are not looked at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd

from tests.training.data.lakes import write_lake
from validation.lake_check import check_lake
from validation.tables import DEFAULT_VOCABULARY

END = datetime(2026, 3, 20, tzinfo=UTC)
DAYS, A_DAY = 14, 20


def frames(pins: list[int], newest: str) -> dict[str, pd.DataFrame]:
    """Two weeks of saves; `newest` is what people do in the second."""
    rows = []
    for day in range(DAYS):
        action = DEFAULT_VOCABULARY.code("save" if day < 7 else newest)
        start = END - timedelta(days=DAYS - day)
        rows += [(1 + i % 5, 1 + i % 3, action, start + timedelta(minutes=i)) for i in range(A_DAY)]
    actions = pd.DataFrame(rows, columns=["user_id", "pin_id", "action", "timestamp"])
    actions["event_id"] = range(1, len(actions) + 1)
    made = [END - timedelta(days=30)] * len(pins)
    titles = [f"pin {pin}" for pin in pins]
    return {"pins": pd.DataFrame({"pin_id": pins, "created_at": made, "title": titles}), "actions": actions}


def test_what_broke_in_the_lake_is_named(tmp_path: Path) -> None:
    lake = write_lake(tmp_path / "broken", frames([1, 2, 2], "hide"))
    found = check_lake(lake, END - timedelta(days=DAYS), END)
    assert [line.split(" (")[0] for line in found.failed] == ["pins.pin_id: values to be unique"]
    assert any(line.startswith("actions.action: kl divergence") for line in found.warnings), found.warnings
    assert found.rows == {"pins": 3, "actions": DAYS * A_DAY}


def test_sound_data_passes_and_other_days_are_not_looked_at(tmp_path: Path) -> None:
    lake = write_lake(tmp_path / "sound", frames([1, 2, 3], "hide"))
    found = check_lake(lake, END - timedelta(days=DAYS), END - timedelta(days=7))
    assert found.failed == () and found.expectations > 10
    assert not any("divergence" in line for line in found.warnings), "the week of saves alone"
    assert found.rows["actions"] == 7 * A_DAY
