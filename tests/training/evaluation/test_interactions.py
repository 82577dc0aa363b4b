"""Interactions from a lake and from files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from tests.training.data.lakes import write_lake
from training.evaluation.interactions import InteractionsError, from_file, from_lake

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_positive_actions_of_a_lake_in_time_order(tmp_path: Path) -> None:
    rows = [(1, 5, 4, 30), (2, 6, 6, 20), (1, 7, 1, 10)]  # 6 is hide
    actions = pd.DataFrame(rows, columns=["user_id", "pin_id", "action", "hour"])
    actions["timestamp"] = [START + timedelta(hours=h) for h in actions.pop("hour")]
    actions["event_id"] = [1, 2, 3]
    pins = pd.DataFrame({"pin_id": [5, 6, 7], "created_at": [START] * 3})
    found = from_lake(write_lake(tmp_path, {"pins": pins, "actions": actions}))
    assert found[["user_id", "pin_id"]].to_numpy().tolist() == [[1, 7], [1, 5]]


def test_a_file_of_ratings_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "u.data"
    path.write_text("196\t242\t3\t881250949\n186\t302\t1\t891717742\n")
    found = from_file(path, ("user_id", "pin_id", "", "timestamp"))
    assert found.to_dict("list") == {
        "user_id": [196, 186],
        "pin_id": [242, 302],
        "timestamp": [881250949, 891717742],
    }


@pytest.mark.parametrize("name", ["r.parquet", "r.csv", "r.tsv", "r.data"])
def test_files_that_name_their_columns(tmp_path: Path, name: str) -> None:
    rows = {"user_id": ["a", "b"], "rating": [5, 1], "pin_id": [1, 2], "timestamp": [9, 8], "board_id": [3, 3]}
    frame, path = pd.DataFrame(rows), tmp_path / name
    if name.endswith("parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="," if name.endswith("csv") else "\t")
    found = from_file(path)
    assert list(found) == ["user_id", "pin_id", "timestamp", "board_id"]
    assert found["user_id"].tolist() == ["a", "b"]


def test_dates_are_times(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("user_id,pin_id,timestamp\n1,2,2026-02-01\n1,3,2026-01-05\n")
    times = from_file(path)["timestamp"]
    assert times[1] < times[0]


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InteractionsError, match="no such file"):
        from_file(tmp_path / "absent.csv")
    path = tmp_path / "r.csv"
    path.write_text("1,2,3\n")
    with pytest.raises(InteractionsError, match="no column user_id, pin_id, timestamp; it has 1, 2, 3"):
        from_file(path)
    with pytest.raises(InteractionsError, match="has 3 columns, --columns names 2"):
        from_file(path, ("user_id", "pin_id"))
    path.write_text("user_id,pin_id,timestamp\n1,2,soon\n")
    with pytest.raises(InteractionsError, match="neither a number nor a date"):
        from_file(path)
    path.write_text("")
    with pytest.raises(InteractionsError, match="not a table"):
        from_file(path)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "r.parquet")
    with pytest.raises(InteractionsError, match="leave --columns out"):
        from_file(tmp_path / "r.parquet", ("a",))
