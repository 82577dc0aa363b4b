"""Calibration of what services showed, from rows whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.data.lakes import write_lake
from training.ads.monitoring import COLUMNS, served_calibration

DAY = pd.Timestamp("2026-03-01 12:00", tz="UTC")


def frames(shown: int = 200, p: float = 0.1, clicks: int = 10) -> dict[str, pd.DataFrame]:
    """`shown` priced ads, the first `clicks` of them clicked, beside rows that do not count."""
    n = np.arange(shown)
    rows = pd.DataFrame(
        {
            "request_id": n + 1,
            "user_id": n % 7 + 1,
            "pin_id": n % 5 + 1,
            "position": 3,
            "timestamp": DAY,
            "surface": "related_ads",
            "source": np.where(n % 2, "shopping", "standard"),
            "predicted": np.float32(p),
        }
    )
    unpriced = rows.assign(request_id=n + 10_000, predicted=np.float32(np.nan))
    elsewhere = rows.assign(request_id=n + 20_000, surface="homefeed")
    done = rows.head(clicks)[["request_id", "user_id", "pin_id"]].assign(
        event_id=np.arange(clicks) + 1, action=2, timestamp=DAY + pd.Timedelta(minutes=1)
    )
    saves = done.assign(event_id=done["event_id"] + 100, action=4)
    twice = done.assign(event_id=done["event_id"] + 200)  # a second click on the same ad counts once
    return {
        "impressions": pd.concat([rows, unpriced, elsewhere], ignore_index=True),
        "actions": pd.concat([done, saves, twice], ignore_index=True),
    }


def test_the_error_is_what_was_promised_over_what_came(tmp_path: Path) -> None:
    table = served_calibration(write_lake(tmp_path, frames())).set_index("source")
    every = table.loc["all"]
    assert (every["shown"], every["clicks"]) == (200, 10)
    assert every["predicted"] == pytest.approx(20.0, rel=1e-5)
    assert every["error"] == pytest.approx(1.0, rel=1e-5)  # twice too many promised
    assert every["noise"] == pytest.approx(np.sqrt(200 * 0.1 * 0.9) / 20, rel=1e-5)
    assert table.loc["standard", "clicks"] + table.loc["shopping", "clicks"] == 10


def test_without_priced_ads_there_is_nothing_to_say(tmp_path: Path) -> None:
    made = frames()
    made["impressions"]["predicted"] = np.float32(np.nan)
    assert served_calibration(write_lake(tmp_path, made)).empty
    assert tuple(served_calibration(write_lake(tmp_path / "none", {})).columns) == COLUMNS


def test_no_click_is_no_number(tmp_path: Path) -> None:
    made = frames(clicks=1)
    made["actions"]["action"] = 4
    table = served_calibration(write_lake(tmp_path, made))
    assert table["error"].isna().all()
