"""A home that was moved or copied: MLflow writes down where artifacts lie, and that must be this home.

A copy that went on with the paths of its original would write into it, and clear its files away.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlparse

from infra.console import say
from infra.home import Home
from infra.own_registry import own_database, tables_of
from validation.kept_release import notes

PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's database that say where artifacts lie."""


def settle(home: Home) -> bool:
    """Make the home's own registry name files of this home; True where it named another folder's.

    One transaction. A registry elsewhere, and artifacts that are no home's (a bucket), are left as they are.
    Raises RegistryUnreadable while another process holds the database for seconds, and where it is none.
    """
    with own_database(home) as db:
        there = None if db is None else _moved(db, home.mlflow_artifacts.as_uri())
    if there is None:
        return False
    for note in notes(home.root):  # of files that lie there
        note.unlink()
    origin = Path(unquote(urlparse(there).path)).parents[1]
    say(f"this home came from {origin}; its models are read and written here from now on")
    return True


def _moved(db: sqlite3.Connection, here: str) -> str | None:
    """Name `here` wherever another home's artifacts are named; which these were, None for none."""
    there = _elsewhere(db, here)
    if there is None:
        return None
    for table, column in PLACES:
        moved = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?"
        db.execute(moved, (here, len(there) + 1, len(there), there))
    return there


def _elsewhere(db: sqlite3.Connection, here: str) -> str | None:
    """The artifact folder of another home that the registry names; None where it names this one's."""
    if not tables_of(db) >= {table for table, _ in PLACES}:
        return None
    tail = here.rsplit("/", 2)
    named = [place for (place,) in db.execute("SELECT DISTINCT artifact_location FROM experiments")]
    homes = [p for p in named if p != here and p.startswith("file://") and p.rsplit("/", 2)[1:] == tail[1:]]
    return homes[0] if homes else None
