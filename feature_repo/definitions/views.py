"""Feast's feature views, made from the plain tables of `feature_repo.views`: one wide view an entity."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
from feast import FeatureView, Field, FileSource, PushSource
from feast.data_format import ParquetFormat
from feast.types import Array, FeastType, Float32, Int32, Int64, String

from feature_repo import views as tables
from feature_repo.definitions import entities
from feature_repo.online.layout import WIDTH_TAG

UNBOUNDED = timedelta(days=36_500)
"""How far back a view's rows count. A row stays true until the next one; freshness is enforced by the reader,
and `feast materialize-incremental` starts its first run this far back instead of leaving out older rows.
"""

_TYPES: dict[pa.DataType, FeastType] = {
    pa.float32(): Float32,
    pa.int64(): Int64,
    pa.string(): String,
    pa.list_(pa.int64()): Array(Int64),
    pa.list_(pa.int32()): Array(Int32),
    pa.list_(pa.float32()): Array(Float32),
}


def _source(view: tables.View) -> FileSource:
    return FileSource(
        name=f"{view.name}_files",
        path=view.files,
        file_format=ParquetFormat(),
        timestamp_field=tables.EVENT_TIMESTAMP,
        created_timestamp_column=tables.CREATED,
        description=view.description,
    )


def _view(view: tables.View, source: FileSource | PushSource) -> FeatureView:
    keys = [Field(name=key, dtype=String if key == tables.SPACE else Int64) for key in view.keys]
    features = [
        Field(
            name=column.name,
            dtype=_TYPES[column.type],
            tags={WIDTH_TAG: str(view.widths[column.name])} if column.name in view.widths else {},
        )
        for column in view.features
    ]
    return FeatureView(
        name=view.name,
        entities=[entities.BY_KEY[key] for key in view.keys],
        schema=[*keys, *features],
        source=source,
        ttl=UNBOUNDED,
        description=view.description,
    )


user_sequence_files = _source(tables.USER_SEQUENCE)
user_sequence_push = PushSource(name="user_sequence_push", batch_source=user_sequence_files)

user_sequence = _view(tables.USER_SEQUENCE, user_sequence_push)
user_history = _view(tables.USER_HISTORY, _source(tables.USER_HISTORY))
user_profile = _view(tables.USER_PROFILE, _source(tables.USER_PROFILE))
pin_content = _view(tables.PIN_CONTENT, _source(tables.PIN_CONTENT))
pin_stats = _view(tables.PIN_STATS, _source(tables.PIN_STATS))
pin_embedding = _view(tables.PIN_EMBEDDING, _source(tables.PIN_EMBEDDING))
topic_features = _view(tables.TOPIC_FEATURES, _source(tables.TOPIC_FEATURES))
board_features = _view(tables.BOARD_FEATURES, _source(tables.BOARD_FEATURES))
user_embedding = _view(tables.USER_EMBEDDING, _source(tables.USER_EMBEDDING))
user_interests = _view(tables.USER_INTERESTS, _source(tables.USER_INTERESTS))
