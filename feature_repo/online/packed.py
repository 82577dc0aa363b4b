"""What the packed online stores share: Feast's own calls on top of two bulk ones, `read_rows` and `write_rows`.

Every view is stored packed (`layout`). A row is replaced only by one that is not older, ordered by event time
and then by created time, so that a late push or a re-run of yesterday's job can never undo newer features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from feast import FeatureView, RepoConfig
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType

from feature_repo.online.layout import RowLayout, stamp

Written = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
Read = tuple[datetime | None, dict[str, Value] | None]

_MARK = 0x7E57_C0DE_0DDB_A11E


class KeyLayout:
    """Feast's serialized entity key of one view, as the bytes around its int64 id.

    Building 500 keys through protobuf costs more than reading their rows.
    """

    def __init__(self, view: FeatureView, config: RepoConfig, space: str | None = None) -> None:
        keys = [entity.name for entity in view.entity_columns]
        ids = [key for key in keys if key != "space"]
        if len(ids) != 1 or (space is None) != ("space" not in keys):
            raise ValueError(
                f"view {view.name} is keyed by {', '.join(keys)}: "
                + ("name its space" if space is None else f"it has no space, {space!r} was given")
            )
        values = [Value(string_val=space) if key == "space" else Value(int64_val=_MARK) for key in keys]
        whole = serialize_entity_key(
            EntityKey(join_keys=keys, entity_values=values),
            entity_key_serialization_version=config.entity_key_serialization_version,
        )
        self._head, self._tail = whole.split(_MARK.to_bytes(8, "little"))

    def keys(self, ids: np.ndarray) -> list[bytes]:
        """Serialized keys of (n,) int64 ids, in order."""
        raw = np.ascontiguousarray(ids, dtype="<i8").tobytes()
        head, tail = self._head, self._tail
        if tail:
            return [head + raw[i : i + 8] + tail for i in range(0, len(raw), 8)]
        return [head + raw[i : i + 8] for i in range(0, len(raw), 8)]


class PackedOnlineStore(OnlineStore):
    """A Feast online store that keeps one packed row a key. Subclasses say where the bytes lie."""

    _layouts: dict[str, tuple[tuple[str, ...], RowLayout]] | None = None

    @abstractmethod
    def read_rows(self, config: RepoConfig, view: FeatureView, keys: Sequence[bytes]) -> list[bytes | None]:
        """Packed rows of serialized entity keys, in order; None where there is none. One round trip."""

    def read_views(
        self, config: RepoConfig, questions: Sequence[tuple[FeatureView, Sequence[bytes]]]
    ) -> list[list[bytes | None]]:
        """`read_rows` of several views; one round trip where the store has one to save."""
        return [self.read_rows(config, view, keys) for view, keys in questions]

    @abstractmethod
    def write_rows(
        self, config: RepoConfig, view: FeatureView, keys: Sequence[bytes], rows: Sequence[bytes]
    ) -> None:
        """Store packed rows, each unless the stored one is newer (`layout.stamp`), atomically a row."""

    def layout(self, view: FeatureView) -> RowLayout:
        """The view's row layout, built once for each schema."""
        schema = tuple(f"{f.name}:{f.dtype}" for f in view.features)
        if self._layouts is None:
            self._layouts = {}
        known = self._layouts.get(view.name)
        if known is None or known[0] != schema:
            known = self._layouts[view.name] = (schema, RowLayout.of(view))
        return known[1]

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        return SupportedAsyncMethods(read=False, write=False)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Written],
        progress: Callable[[int], Any] | None,
    ) -> None:
        layout = self.layout(table)
        keys, rows = [], []
        for entity_key, values, event, created in data:
            event_us = _micros(event)
            keys.append(self._key(config, entity_key))
            rows.append(layout.pack_values(values, event_us, event_us if created is None else _micros(created)))
        self.write_rows(config, table, keys, rows)
        if progress:
            progress(len(rows))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Read]:
        layout = self.layout(table)
        rows = self.read_rows(config, table, [self._key(config, key) for key in entity_keys])
        result: list[Read] = []
        for row in rows:
            if row is None:
                result.append((None, None))
                continue
            event = datetime.fromtimestamp(stamp(row)[0] / 1e6, tz=UTC)
            result.append((event, layout.unpack_values(row, requested_features)))
        return result

    def read_matrix(
        self, config: RepoConfig, view: FeatureView, keys: Sequence[bytes]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fixed parts of many rows at once.

        Returns (fixed, present): a structured array (n,) of the layout's `dtype`, zeros where a key has no
        row, and (n,) bool.
        """
        layout = self.layout(view)
        rows = self.read_rows(config, view, keys)
        present = np.fromiter((row is not None for row in rows), dtype=bool, count=len(rows))
        found = layout.unpack_fixed([row for row in rows if row is not None])
        if len(found) == len(rows):
            return found, present
        fixed = np.zeros(len(rows), layout.dtype)
        fixed[present] = found
        return fixed, present

    # Feast's Redis store batches its hash reads here; a packed row is one read already.
    _read_features_per_fv = OnlineStore._read_features_per_fv

    @staticmethod
    def _key(config: RepoConfig, entity_key: EntityKey) -> bytes:
        return serialize_entity_key(
            entity_key, entity_key_serialization_version=config.entity_key_serialization_version
        )


def key_types(view: FeatureView) -> dict[str, ValueType]:
    """The view's join keys with their Feast types."""
    return {entity.name: entity.dtype.to_value_type() for entity in view.entity_columns}


def _micros(time: datetime) -> int:
    """Unix us of a time; naive times are UTC, as Feast hands them on."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    seconds = int(aware.replace(microsecond=0).timestamp())
    return seconds * 1_000_000 + aware.microsecond
