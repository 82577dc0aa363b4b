"""What the last build saw of the lake, so that the next one does only what changed."""

from __future__ import annotations

import json
import os
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import duckdb

    from validation.lake import Lake

VERSION = 3
"""Raised when a job computes something else from the same lake: everything is then built again."""

ENTITY_TABLES = ("pins", "users", "boards", "topics", "follows")
EVENT_TABLES = ("actions", "impressions")

_PAST = {
    "pin_base": (
        "created_at",
        ("pin_id", "created_at", "all_topics", "title_words", "description_words", "has_image"),
    ),
    "users": ("created_at", ("user_id", "country", "language", "state", "created_at")),
    "follows": ("timestamp", ("user_id", "timestamp", "topic_id", "board_id")),
}
"""What snapshots read of the entities: when a row begins to count, and its columns."""


class BuildState(BaseModel):
    """The lake as it was at the last build, file by file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    as_of: datetime
    first: datetime
    entities: dict[str, str]
    """Digest by entity table, and of the contract."""
    days: dict[str, str]
    """Digest of the events of each UTC day, by ISO date."""
    past: dict[str, str] = {}
    """Digest of what `past` found before `as_of`; filled in when the build is done."""


def observe(lake: Lake, as_of: datetime) -> BuildState:
    """The state of the lake now, of events before `as_of`."""
    days: dict[str, str] = {}
    for table in EVENT_TABLES:
        for day in lake.days(table):
            if day < as_of.date():
                days[day.isoformat()] = days.get(day.isoformat(), "") + _identity(lake.file(table, day))
    entities = {table: "".join(map(_identity, lake.files(table))) for table in ENTITY_TABLES}
    entities["contract"] = lake.contract().model_dump_json(include={"vocabulary"})
    return BuildState(version=VERSION, as_of=as_of, first=lake.interval()[0], entities=entities, days=days)


def same(before: BuildState | None, now: BuildState) -> bool:
    """True where the lake's files, and the midnight, are those of the last build."""
    return before is not None and before == now.model_copy(update={"past": before.past})


def past(db: duckdb.DuckDBPyConnection, at: datetime) -> dict[str, str]:
    """Digest of the pins, users and follows dated before `at` (those without a date always count).

    Reads tables `pin_base`, `users` and `follows`: their columns that snapshots copy, in any order of the rows.
    """
    digests = {}
    for table, (dated, columns) in _PAST.items():
        digest = f"count(*), sum(hash({', '.join(columns)}))"
        found = db.execute(f"SELECT {digest} FROM {table} WHERE coalesce({dated} < ?, true)", [at]).fetchone()
        digests[table] = repr(found)
    return digests


def changed_since(before: BuildState | None, now: BuildState, past: dict[str, str]) -> date | None:
    """The first UTC day whose events are new or different; None where all must be built.

    `past` is the digest, from the lake as it is now, of the pins, users and follows before `before.as_of`.
    Where it differs (a follow that came late, a pin's topics changed), snapshots of any age may, and all are
    built.
    New rows dated after the last build change no snapshot and keep the build incremental; new users without a
    joining time have no date, so they cost a full build. Topics and boards are in no snapshot: their views are
    written whole by every build.
    A day that no longer has events counts as changed. Equal states give the day of `now.as_of`.
    """
    if before is None or before.version != now.version or before.first != now.first:
        return None
    if before.entities["contract"] != now.entities["contract"] or before.past != past:
        return None
    differing = [
        day for day in before.days.keys() | now.days.keys() if before.days.get(day) != now.days.get(day)
    ]
    # Midnights between two builds have snapshots to write even where no events came.
    return min([*map(date.fromisoformat, differing), before.as_of.date(), now.as_of.date()])


def load(out: Path) -> BuildState | None:
    """The last build's state, None before the first or where it cannot be understood any more."""
    path = _path(out)
    if not path.exists():
        return None
    raw = json.loads(path.read_text())
    return BuildState.model_validate(raw) if raw.get("version") == VERSION else None


def save(out: Path, state: BuildState) -> None:
    """Replaces the state atomically."""
    path = _path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(f".{os.getpid()}.tmp")
    staged.write_text(state.model_dump_json(indent=1))
    staged.replace(path)


def _path(out: Path) -> Path:
    return out / "state.json"


def _identity(file: Path) -> str:
    """Changes when the file is replaced; ingests replace files whole."""
    if not file.exists():
        return ""
    status = file.stat()
    return f"{status.st_size:x}.{status.st_mtime_ns:x};"
