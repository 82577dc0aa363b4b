"""Materialization into packed stores: newest row a key from DuckDB, packed column by column, written in bulk.

Feast's local engine makes a protobuf of every value (1-2k wide rows a second); this one makes none. It runs
wherever Feast runs it, `feast materialize` included, and holds one piece of the view in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine, LocalComputeEngineConfig
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry
from ibis.expr.types import Table
from pydantic import StrictStr

from feature_repo.online.packed import PackedOnlineStore
from feature_repo.views import SPACE

_log = logging.getLogger(__name__)

_BATCH_ROWS = 5_000
"""Rows a write where the configuration says nothing."""

_PIECE_ROWS = 250_000
"""Rows in memory at once: about 300 MB of 256-d vectors."""


class PackedComputeEngineConfig(LocalComputeEngineConfig):
    """Engine configuration: `type` is this engine's full name."""

    type: StrictStr = "feature_repo.online.engine.PackedComputeEngine"  # type: ignore[assignment]
    backend: Literal["pandas", "polars"] | None = None


class PackedComputeEngine(LocalComputeEngine):
    """Feast's local engine, with a column-wise path for stores that keep packed rows."""

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> LocalMaterializationJob:
        if not isinstance(self.online_store, PackedOnlineStore) or not task.feature_view.online:
            return super()._materialize_one(registry, task, **kwargs)
        job_id = f"{task.feature_view.name}-{task.start_time}-{task.end_time}"
        try:
            rows = self._write_latest(task)
        except Exception as error:  # Feast raises the job's error itself; a job must not.
            return LocalMaterializationJob(job_id=job_id, status=MaterializationJobStatus.ERROR, error=error)
        _log.info("%s: %d rows materialized", task.feature_view.name, rows)
        return LocalMaterializationJob(job_id=job_id, status=MaterializationJobStatus.SUCCEEDED)

    def _write_latest(self, task: MaterializationTask) -> int:
        view, config = task.feature_view, self.repo_config
        source = view.batch_source
        keys = [entity.name for entity in view.entity_columns]
        job = self.offline_store.pull_latest_from_table_or_query(
            config=config,
            data_source=source,
            join_key_columns=keys,
            feature_name_columns=[feature.name for feature in view.features],
            timestamp_field=source.timestamp_field,
            created_timestamp_column=source.created_timestamp_column,
            start_date=task.start_time,
            end_date=task.end_time,
        )
        store: PackedOnlineStore = self.online_store
        layout = store.layout(view)
        size = config.materialization_config.online_write_batch_size or _BATCH_ROWS
        written = 0
        for latest in _pieces(job.table, keys):
            for batch in latest.to_batches(max_chunksize=size):
                for space, part in _by_space(batch):
                    ids = part.column(_id_key(keys)).to_pylist()
                    rows = layout.pack_batch(part, source.timestamp_field, source.created_timestamp_column)
                    store.write_rows(config, view, ids, rows, space)
                    written += len(rows)
        return written


def _pieces(table: Table, keys: list[str]) -> Iterator[pa.Table]:
    """The rows of a query in pieces of about `_PIECE_ROWS`, cut by id: one is in memory at once."""
    pieces = max(1, -(-int(table.count().execute()) // _PIECE_ROWS))
    for piece in range(pieces):
        some = table if pieces == 1 else table.filter(table[_id_key(keys)] % pieces == piece)
        yield some.to_pyarrow()


def _id_key(keys: list[str]) -> str:
    (key,) = [key for key in keys if key != SPACE]
    return key


def _by_space(batch: pa.RecordBatch) -> Iterator[tuple[str | None, pa.RecordBatch]]:
    """The batch by space, or whole for a view without spaces."""
    if SPACE not in batch.schema.names:
        yield None, batch
        return
    spaces = batch.column(SPACE).dictionary_encode()
    codes = spaces.indices.to_numpy(zero_copy_only=False)
    for code, space in enumerate(spaces.dictionary.to_pylist()):
        yield space, batch.take(pa.array(np.flatnonzero(codes == code)))
