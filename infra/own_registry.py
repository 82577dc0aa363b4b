"""A home's own MLflow database, read without MLflow, whose import takes seconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from infra.home import Home
from validation.file_uri import sqlite_file


class RegistryUnreadable(RuntimeError):
    """The home's MLflow database is locked, may not be opened, or is no database."""


@contextmanager
def own_database(home: Home) -> Iterator[sqlite3.Connection | None]:
    """The database in one transaction; None where there is none yet, or the registry is elsewhere.

    Raises RegistryUnreadable while another process holds it for seconds, and where it is no database or may
    not be opened.
    """
    database = sqlite_file(home.mlflow_uri)
    if database is None or not database.exists():
        yield None
        return
    try:
        with closing(sqlite3.connect(database)) as db, db:
            yield db
    except sqlite3.DatabaseError as error:
        raise RegistryUnreadable(
            f"{database}: {error}; if it is locked, wait for the process that writes it, else put a backup back"
        ) from error


def tables_of(db: sqlite3.Connection) -> set[str]:
    """Tables that there are; none before MLflow has made them."""
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def own_aliases(home: Home, model: str) -> dict[str, int]:
    """Every alias of a registered model and its version. Raises RegistryUnreadable."""
    with own_database(home) as db:
        if db is None or "registered_model_aliases" not in tables_of(db):
            return {}
        found = db.execute("SELECT alias, version FROM registered_model_aliases WHERE name = ?", (model,))
        return {alias: int(version) for alias, version in found}
