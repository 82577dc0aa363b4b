"""The embedded online store: packed rows in one SQLite file, read beside writers (WAL)."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from feast import Entity, FeatureView, RepoConfig
from feast.infra.infra_object import InfraObject
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.core.Registry_pb2 import Registry
from pydantic import StrictStr

from feature_repo.online.layout import stamp
from feature_repo.online.packed import PackedOnlineStore

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for another process's write to end before it fails."""

_VARIABLES = 16_000
"""Keys a statement; SQLite allows 32,766 variables."""


class PackedSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """Store configuration: `type` is this store's full name, `path` the database file."""

    type: StrictStr = "feature_repo.online.sqlite.PackedSqliteOnlineStore"  # type: ignore[assignment]


class PackedSqliteOnlineStore(PackedOnlineStore, SqliteOnlineStore):
    """One table a view: entity key -> packed row, with its two times for the order of writes.

    Each thread has a connection of its own: readers never wait for the writer, nor see half of its batch.
    """

    _threads: threading.local | None = None

    def read_rows(self, config: RepoConfig, view: FeatureView, keys: Sequence[bytes]) -> list[bytes | None]:
        connection, table = self._get_conn(config), _table(config, view)
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _VARIABLES):
            some = keys[start : start + _VARIABLES]
            marks = ",".join("?" * len(some))
            query = f"SELECT entity_key, row FROM {table} WHERE entity_key IN ({marks})"
            found.update(connection.execute(query, some).fetchall())
        get = found.get
        return [get(key) for key in keys]

    def write_rows(
        self, config: RepoConfig, view: FeatureView, keys: Sequence[bytes], rows: Sequence[bytes]
    ) -> None:
        connection, table = self._get_conn(config), _table(config, view)
        statement = (
            f"INSERT INTO {table} (entity_key, event_us, created_us, row) VALUES (?, ?, ?, ?) "
            f"ON CONFLICT (entity_key) DO UPDATE SET event_us = excluded.event_us, "
            f"created_us = excluded.created_us, row = excluded.row "
            f"WHERE (excluded.event_us, excluded.created_us) >= ({table}.event_us, {table}.created_us)"
        )
        with connection:
            connection.executemany(
                statement, ((key, *stamp(row), row) for key, row in zip(keys, rows, strict=True))
            )

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        connection = self._get_conn(config)
        with connection:
            for view in tables_to_keep:
                self.layout(view)  # a view that cannot be packed is refused at apply, not at the first write
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {_table(config, view)} (entity_key BLOB PRIMARY KEY, "
                    "event_us INTEGER NOT NULL, created_us INTEGER NOT NULL, row BLOB NOT NULL) WITHOUT ROWID"
                )
            for view in tables_to_delete:
                connection.execute(f"DROP TABLE IF EXISTS {_table(config, view)}")

    def plan(self, config: RepoConfig, desired_registry_proto: Registry) -> list[InfraObject]:
        """Nothing to plan: `update` makes the tables."""
        return []

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        self._threads = None
        path = Path(self._get_db_path(config))
        for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            file.unlink(missing_ok=True)

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        if self._threads is None:
            self._threads = threading.local()
        connection: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if connection is None:
            path = Path(self._get_db_path(config))
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            self._threads.connection = connection
        return connection


def _table(config: RepoConfig, view: FeatureView) -> str:
    return '"' + f"{config.project}_{view.name}".replace('"', '""') + '"'
