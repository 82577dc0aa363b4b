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
from feast import FeatureView
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig, _write_data_source
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.ibis import (
    get_historical_features_ibis,
    pull_all_from_table_or_query_ibis,
    pull_latest_from_table_or_query_ibis,
)
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig
from ibis.expr.types import Table
from pydantic import StrictStr

from feature_repo.views import VIEWS


class HomeDuckDBOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """Store configuration: `root` is the features folder that relative sources lie in."""

    type: StrictStr = "feature_repo.offline.HomeDuckDBOfflineStore"
    root: StrictStr


class HomeDuckDBOfflineStore(DuckDBOfflineStore):
    """Feast's DuckDB store, with sources found below `root`."""

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
        return get_historical_features_ibis(
            config=config,
            feature_views=feature_views,
            feature_refs=feature_refs,
            entity_df=entity_df,
            registry=registry,
            project=project,
            full_feature_names=full_feature_names,
            data_source_reader=_reader(config),
            data_source_writer=_write_data_source,
            filter_by_created_timestamp=filter_by_created_timestamp,
        )


def _is_relative(source: DataSource) -> bool:
    return isinstance(source, FileSource) and "://" not in source.path and not Path(source.path).is_absolute()


def _reader(config: RepoConfig) -> Callable[[DataSource, str], Table]:
    return partial(_read, Path(config.offline_store.root))


def _read(root: Path, source: DataSource, repo_path: str) -> Table:
    if not isinstance(source, FileSource):
        raise TypeError(f"source {source.name} is a {type(source).__name__}; this store reads files")
    path = str(root / source.path) if _is_relative(source) else source.path
    if _is_relative(source) and next(root.glob(source.path), None) is None:
        view = VIEWS.get(Path(source.path).parts[0])
        if view is None:
            raise FileNotFoundError(f"source {source.name}: no file matches {path}")
        return ibis.memtable(view.schema.empty_table())
    return ibis.read_parquet(path)
