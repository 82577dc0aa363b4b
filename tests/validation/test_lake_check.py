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
MIX = "actions.action: kl divergence"


def frames(pins: list[int], newest: str, many: int = A_DAY) -> dict[str, pd.DataFrame]:
    """Two weeks of saves; of the second's actions of a day, `many` are `newest`."""
    rows = []
    for day in range(DAYS):
        start = END - timedelta(days=DAYS - day)
        for i in range(A_DAY):
            action = DEFAULT_VOCABULARY.code(newest if day >= 7 and i < many else "save")
            rows.append((1 + i % 5, 1 + i % 3, action, start + timedelta(minutes=i)))
    actions = pd.DataFrame(rows, columns=["user_id", "pin_id", "action", "timestamp"])
    actions["event_id"] = range(1, len(actions) + 1)
    made = [END - timedelta(days=30)] * len(pins)
    titles = [f"pin {pin}" for pin in pins]
    return {"pins": pd.DataFrame({"pin_id": pins, "created_at": made, "title": titles}), "actions": actions}


def test_what_broke_in_the_lake_is_named(tmp_path: Path) -> None:
    lake = write_lake(tmp_path / "broken", frames([1, 2, 2], "hide"))
    found = check_lake(lake, END - timedelta(days=DAYS), END)
    named = [line.split(" (")[0] for line in found.failed]
    assert named[0] == "pins.pin_id: values to be unique" and len(named) == 2, "nobody saves any more"
    assert named[1].startswith(MIX) and any(line.startswith(MIX) for line in found.warnings)
    assert found.rows == {"pins": 3, "actions": DAYS * A_DAY}


def test_a_mix_that_moves_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    found = check_lake(write_lake(tmp_path, frames([1, 2, 3], "hide", 3)), END - timedelta(days=DAYS), END)
    assert found.failed == () and any(line.startswith(MIX) for line in found.warnings)


def test_sound_data_passes_and_other_days_are_not_looked_at(tmp_path: Path) -> None:
    lake = write_lake(tmp_path / "sound", frames([1, 2, 3], "hide"))
    found = check_lake(lake, END - timedelta(days=DAYS), END - timedelta(days=7))
    assert found.failed == () and found.expectations > 10
    assert not any("divergence" in line for line in found.warnings), "the week of saves alone"
    assert found.rows["actions"] == 7 * A_DAY
