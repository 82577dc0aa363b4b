"""A small clean data set, and the door opened on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from validation.ingest import ingest
from validation.lake import Lake
from validation.outcome import IngestReport

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
TIME = pa.timestamp("us", tz="UTC")


def at(**ago: float) -> datetime:
    """A time before NOW."""
    return NOW - timedelta(**ago)


def times(*values: datetime | None, type: pa.DataType = TIME) -> pa.Array:
    return pa.array(values, type)


def pins(**columns: Any) -> dict[str, Any]:
    """Three pins; any column can be replaced."""
    return {
        "pin_id": [1, 2, 3],
        "created_at": times(at(days=9), at(days=8), at(days=7)),
        "title": ["red chair", "blue lamp", "green rug"],
        "topics": pa.array([[10], [10, 11], []], pa.list_(pa.int64())),
        "visual_embedding": pa.array([[1, 0], [0, 1], None], pa.list_(pa.float32())),
    } | columns


def actions(**columns: Any) -> dict[str, Any]:
    """Four actions over two UTC days, out of order."""
    return {
        "user_id": [7, 7, 8, 9],
        "pin_id": [1, 2, 1, 3],
        "action": ["save", "hide", "click", "closeup"],
        "timestamp": times(at(hours=1), at(hours=30), at(hours=2), at(hours=3)),
    } | columns


def impressions(**columns: Any) -> dict[str, Any]:
    return {
        "request_id": [100, 100, 101],
        "user_id": [7, 7, 8],
        "pin_id": [1, 2, 1],
        "position": [0, 1, 0],
        "timestamp": times(at(hours=1), at(hours=1), at(hours=2)),
    } | columns


def ads(**columns: Any) -> dict[str, Any]:
    """Three campaigns: one runs, one is over, one is booked and has a budget."""
    return {
        "ad_id": [1, 2, 3],
        "pin_id": [1, 2, 3],
        "source": ["standard", "shopping", "standard"],
        "bid": [400_000.0, 250_000.0, 0.0],
        "starts_at": times(at(days=3), at(days=9), at(days=-1)),
        "ends_at": times(at(days=-3), at(days=5), at(days=-9)),
        "daily_budget": [None, None, 5e6],
    } | columns


def judgements(**columns: Any) -> dict[str, Any]:
    return {
        "query": ["Red  chair", "red\u00a0CHAIR", "lamp"],
        "pin_id": [1, 2, 2],
        "relevance": [2, 0.5, 1],
    } | columns


@dataclass(frozen=True)
class Door:
    """A source folder, and the home that it is ingested into."""

    source: Path
    home: Path

    def write(self, **tables: Mapping[str, Any] | pa.Table) -> None:
        """Replaces tables of the source."""
        self.source.mkdir(exist_ok=True)
        for name, columns in tables.items():
            table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
            pq.write_table(table, self.source / f"{name}.parquet")

    def remove(self, *tables: str) -> None:
        for name in tables:
            (self.source / f"{name}.parquet").unlink()

    def open(self, *, checkpoint: bool = False, now: datetime = NOW) -> IngestReport:
        return ingest(
            self.source,
            self.home / "lake",
            self.home / "quarantine",
            self.home / "reports",
            now=now,
            checkpoint=checkpoint,
        )

    @property
    def lake(self) -> Lake:
        return Lake(self.home / "lake")

    def refused(self, report: IngestReport, table: str) -> list[dict[str, Any]]:
        """Rows of the quarantine file of `table`."""
        path = report.tables[table].quarantine
        return [] if path is None else pq.read_table(path).to_pylist()

    def files(self) -> dict[str, bytes]:
        """Every Parquet file of the lake."""
        return {str(p.relative_to(self.home)): p.read_bytes() for p in (self.home / "lake").rglob("*.parquet")}


@pytest.fixture
def door(tmp_path: Path) -> Door:
    """The clean data set, not ingested yet."""
    made = Door(tmp_path / "source", tmp_path / "home")
    made.write(pins=pins(), actions=actions())
    return made


@pytest.fixture
def new_door(tmp_path: Path) -> Callable[[str], Door]:
    """Makes further clean data sets, each with its own home."""

    def make(name: str) -> Door:
        made = Door(tmp_path / f"source-{name}", tmp_path / f"home-{name}")
        made.write(pins=pins(), actions=actions())
        return made

    return make
