"""The offline store: DuckDB over the Parquet files of one home's features folder.

Definitions name their files relative to that folder (`pin_stats/*.parquet`), so that one set of definitions
serves every home and a home can be moved; the store configuration says where the folder is (`root`). A view
whose job has not run yet is an empty table, not an error.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

import ibis
import pandas as pd
import pyarrow as pa
from feast import FeatureView
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig, _write_data_source
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.ibis import (
    pull_all_from_table_or_query_ibis,
    pull_latest_from_table_or_query_ibis,
)
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from ibis.expr.types import Table
from pydantic import StrictStr

from feature_repo.point_in_time import Side, join
from feature_repo.views import VIEWS


class HomeDuckDBOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """Store configuration: `root` is the features folder that relative sources lie in."""

    type: StrictStr = "feature_repo.offline.HomeDuckDBOfflineStore"
    root: StrictStr


class HomeDuckDBOfflineStore(DuckDBOfflineStore):
    """Feast's DuckDB store, with sources found below `root` and the point-in-time join as an ASOF join."""

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """A relative source is valid before its files exist; any other is checked as Feast does."""
        if not _is_relative(data_source):
            super().validate_data_source(config, data_source)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        return pull_latest_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=_reader(config),
            data_source_writer=_write_data_source,
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        return pull_all_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=_reader(config),
            data_source_writer=_write_data_source,
        )

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        if not isinstance(entity_df, pd.DataFrame):
            raise TypeError("rows to join are given as a DataFrame; this store takes no SQL")
        time = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
        rows = entity_df.assign(**{time: pd.to_datetime(entity_df[time], utc=True)})
        root = Path(config.offline_store.root)
        return PointInTimeJob(
            rows=rows,
            time=time,
            sides=[_side(root, view, feature_refs, full_feature_names) for view in feature_views],
            by_created=filter_by_created_timestamp,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            full_feature_names=full_feature_names,
            feature_refs=feature_refs,
        )


class PointInTimeJob(RetrievalJob):
    """Feast's handle of one point-in-time join, run when its answer is asked for."""

    def __init__(
        self,
        rows: pd.DataFrame,
        time: str,
        sides: list[Side],
        by_created: bool,
        on_demand_feature_views: list[OnDemandFeatureView],
        full_feature_names: bool,
        feature_refs: list[str],
    ) -> None:
        super().__init__()
        self._rows, self._time, self._sides, self._by_created = rows, time, sides, by_created
        self._on_demand, self._full_names = on_demand_feature_views, full_feature_names
        self._metadata = RetrievalMetadata(
            features=feature_refs,
            keys=[column for column in rows.columns if column != time],
            min_event_timestamp=rows[time].min(),
            max_event_timestamp=rows[time].max(),
        )

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        table = pa.Table.from_pandas(self._rows, preserve_index=False)
        return join(table, self._time, self._sides, by_created=self._by_created)

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    @property
    def full_feature_names(self) -> bool:
        return self._full_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata:
        return self._metadata

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None
    ) -> None:
        table = ibis.memtable(self.to_arrow())
        _write_data_source(table, storage.to_data_source(), "", "overwrite", allow_overwrite)


def _side(root: Path, view: FeatureView, feature_refs: list[str], full_names: bool) -> Side:
    source = view.batch_source
    shown = view.projection.name_to_use()
    prefix = view.projection.name_alias or view.name
    features = [ref.split(":")[1] for ref in feature_refs if ref.split(":")[0] == shown]
    return Side(
        relation=_relation(root, source),
        keys=view.projection.join_key_map or {entity.name: entity.name for entity in view.entity_columns},
        columns={name: f"{prefix}__{name}" if full_names else name for name in features},
        event=source.timestamp_field,
        created=source.created_timestamp_column or None,
        ttl=view.ttl or None,
    )


def _is_relative(source: DataSource) -> bool:
    return isinstance(source, FileSource) and "://" not in source.path and not Path(source.path).is_absolute()


def _reader(config: RepoConfig) -> Callable[[DataSource, str], Table]:
    return partial(_read, Path(config.offline_store.root))


def _read(root: Path, source: DataSource, repo_path: str) -> Table:
    relation = _relation(root, source)
    return ibis.read_parquet(relation) if isinstance(relation, str) else ibis.memtable(relation)


def _relation(root: Path, source: DataSource) -> str | pa.Table:
    """Path or glob of a source's Parquet files; no rows for a view that has no file yet."""
    if not isinstance(source, FileSource):
        raise TypeError(f"source {source.name} is a {type(source).__name__}; this store reads Parquet files")
    if not _is_relative(source):
        return source.path
    if next(root.glob(source.path), None) is not None:
        return str(root / source.path)
    view = VIEWS.get(Path(source.path).parts[0])
    if view is None:
        raise FileNotFoundError(f"source {source.name}: no file matches {root / source.path}")
    return view.schema.empty_table()
