"""The feature views as plain tables: one schema a view, read by the jobs that write it, by Feast's definitions
and by the offline store.

Free of any feast import. Every view's Parquet files lie in `<features>/<view>/*.parquet` and hold the join
keys, the features below and two times:

* `event_timestamp`: from when on the row is true (what a point-in-time join compares);
* `created`: when it was written, which settles ties of `event_timestamp` and can never be after the moment a
  row is read at, so that a backfill does not leak into the past.

Row 0 (id 0 is padding) of a daily view is its watermark: every run writes it at the midnight it ends at, so
that the age of row 0 is the age of the view, however long ago a quiet pin last changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from feature_repo import schema as names

EVENT_TIMESTAMP = "event_timestamp"
CREATED = "created"
SPACE = "space"

_TIME = pa.timestamp("us", tz="UTC")
_IDS = pa.list_(pa.int64())
_FLOATS = pa.list_(pa.float32())
_INTS = pa.list_(pa.int32())


@dataclass(frozen=True)
class View:
    """One feature view: its join keys, its features and the fixed widths of short arrays."""

    name: str
    keys: tuple[str, ...]
    """Join keys: int64 ids and, for vectors, the string `space`."""
    features: pa.Schema
    description: str
    widths: dict[str, int] = field(default_factory=dict)
    """Array features that always hold exactly this many values (zero-padded)."""
    daily: bool = False
    """True where a daily job writes changed rows and the watermark row 0."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of the view's Parquet files."""
        keys = [pa.field(key, pa.string() if key == SPACE else pa.int64(), nullable=False) for key in self.keys]
        times = [pa.field(name, _TIME, nullable=False) for name in (EVENT_TIMESTAMP, CREATED)]
        return pa.schema([*keys, *self.features, *times])

    @property
    def files(self) -> str:
        """Glob of the view's files below the features folder."""
        return f"{self.name}/*.parquet"


def _scalars(columns: tuple[str, ...]) -> list[tuple[str, pa.DataType]]:
    return [(column, pa.float32()) for column in columns]


USER_SEQUENCE = View(
    name=names.USER_SEQUENCE,
    keys=("user_id",),
    features=pa.schema(
        [
            ("event_ids", _IDS),
            ("pin_ids", _IDS),
            ("actions", _INTS),
            ("surfaces", _INTS),
            ("timestamps_ms", _IDS),
            ("durations_s", _FLOATS),
        ]
    ),
    description="The user's last 100 actions as parallel arrays, newest first",
)

USER_HISTORY = View(
    name=names.USER_HISTORY,
    keys=("user_id",),
    features=pa.schema(
        [
            ("pin_ids", _IDS),
            ("kinds", _INTS),
            ("ages_s", _INTS),
            ("shown_pin_ids", _IDS),
            ("shown_ages_s", _INTS),
        ]
    ),
    description="The user's actions before a midnight and pins shown in vain, newest first (history.py)",
    daily=True,
)

USER_PROFILE = View(
    name=names.USER_PROFILE,
    keys=("user_id",),
    features=pa.schema(
        [
            *_scalars(names.USER_SCALARS),
            ("country", pa.string()),
            ("language", pa.string()),
            ("state", pa.string()),
            ("created_at_ms", pa.int64()),
            ("followed_topics", _IDS),
            ("followed_boards", _IDS),
        ]
    ),
    description="What the user did over whole UTC days, who they are and what they follow",
    daily=True,
)

PIN_CONTENT = View(
    name=names.PIN_CONTENT,
    keys=("pin_id",),
    features=pa.schema(
        [
            ("title", pa.string()),
            ("description", pa.string()),
            ("link_domain", pa.string()),
            ("image", pa.string()),
            ("topics", _IDS),
        ]
    ),
    description="What the pin says and shows",
)

PIN_STATS = View(
    name=names.PIN_STATS,
    keys=("pin_id",),
    features=pa.schema([*_scalars(names.PIN_SCALARS), ("created_at_ms", pa.int64()), ("topics", _IDS)]),
    description="Engagement with the pin over whole UTC days, and what the ranker needs beside it",
    widths={"topics": names.PIN_TOPICS},
    daily=True,
)

PIN_EMBEDDING = View(
    name=names.PIN_EMBEDDING,
    keys=("pin_id", SPACE),
    features=pa.schema([("vector", _FLOATS)]),
    description="The pin's vector in one space",
)

TOPIC_FEATURES = View(
    name=names.TOPIC_FEATURES,
    keys=("topic_id",),
    features=pa.schema(
        [
            ("pin_count", pa.int64()),
            ("parent_id", pa.int64()),
            ("popular_pin_ids", _IDS),
            ("popular_scores", _FLOATS),
        ]
    ),
    description="The topic's size, its parent (0: none) and its popular pins, best first; topic 0 is all pins",
    daily=True,
)

BOARD_FEATURES = View(
    name=names.BOARD_FEATURES,
    keys=("board_id",),
    features=pa.schema([("owner_id", pa.int64()), ("pin_count", pa.int64()), ("recent_pin_ids", _IDS)]),
    description="Whose the board is and its newest pins, newest first",
    daily=True,
)

USER_EMBEDDING = View(
    name=names.USER_EMBEDDING,
    keys=("user_id", SPACE),
    features=pa.schema([("vector", _FLOATS)]),
    description="The user's vector in one space",
)

USER_INTERESTS = View(
    name=names.USER_INTERESTS,
    keys=("user_id", SPACE),
    features=pa.schema(
        [
            ("medoid_pin_ids", _IDS),
            ("importances", _FLOATS),
            ("cluster_sizes", _IDS),
            ("medoid_vectors", _FLOATS),
        ]
    ),
    description="The user's interests in one space: medoid pins, weights, and vectors flattened row by row",
)

VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        USER_SEQUENCE,
        USER_HISTORY,
        USER_PROFILE,
        PIN_CONTENT,
        PIN_STATS,
        PIN_EMBEDDING,
        TOPIC_FEATURES,
        BOARD_FEATURES,
        USER_EMBEDDING,
        USER_INTERESTS,
    )
}
"""Every view by name."""
