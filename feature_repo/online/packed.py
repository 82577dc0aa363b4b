"""What the packed online stores share: Feast's own calls on top of two bulk ones, `read_rows` and `write_rows`.

Every view is stored packed (`layout`). A row is replaced only by one that is not older, ordered by event time
and then by created time, so that a late push or a re-run of yesterday's job can never undo newer features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from feast import FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType

from feature_repo.online.layout import LayoutError, RowLayout, stamp
from feature_repo.views import SPACE

Written = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
Read = tuple[datetime | None, dict[str, Value] | None]


@dataclass(frozen=True)
class Question:
    """Rows asked of a store: ids of one view and, where the view has spaces, of one space."""

    view: FeatureView
    ids: Sequence[int]
    space: str | None = None


class PackedOnlineStore(OnlineStore):
    """A Feast online store that keeps one packed row a key. Subclasses say where the bytes lie."""

    _layouts: dict[str, tuple[FeatureView, RowLayout]] | None = None

    @abstractmethod
    def read_rows(self, config: RepoConfig, questions: Sequence[Question]) -> list[list[bytes | None]]:
        """Packed rows of each question's ids, in order; None where there is none. One round trip."""

    @abstractmethod
    def write_rows(
        self,
        config: RepoConfig,
        view: FeatureView,
        ids: Sequence[int],
        rows: Sequence[bytes],
        space: str | None = None,
    ) -> None:
        """Store packed rows, each unless the stored one is newer (`layout.stamp`), atomically a row."""

    @abstractmethod
    def spaces(self, config: RepoConfig, view: FeatureView) -> dict[str, int]:
        """Spaces of a view that have rows, and the bytes of those."""

    @abstractmethod
    def drop_space(self, config: RepoConfig, view: FeatureView, space: str) -> None:
        """Remove every row of one space of a view; a space that has none is left so."""

    @abstractmethod
    def delete_rows(
        self, config: RepoConfig, view: FeatureView, ids: Sequence[int], space: str | None = None
    ) -> None:
        """Remove rows so that nothing of them stays in the store's files; ids without one are left so."""

    def layout(self, view: FeatureView) -> RowLayout:
        """The view's row layout, built once for each view object: readers keep theirs."""
        if self._layouts is None:
            self._layouts = {}
        known = self._layouts.get(view.name)
        if known is None or known[0] is not view:
            known = self._layouts[view.name] = (view, RowLayout.of(view))
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
        by_space: dict[str | None, tuple[list[int], list[bytes]]] = {}
        for entity_key, values, event, created in data:
            id_, space = _place(table, entity_key)
            ids, rows = by_space.setdefault(space, ([], []))
            event_us = _micros(event)
            ids.append(id_)
            rows.append(layout.pack_values(values, event_us, event_us if created is None else _micros(created)))
        for space, (ids, rows) in by_space.items():
            self.write_rows(config, table, ids, rows, space)
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Read]:
        layout = self.layout(table)
        by_space: dict[str | None, list[tuple[int, int]]] = {}
        for place, entity_key in enumerate(entity_keys):
            id_, space = _place(table, entity_key)
            by_space.setdefault(space, []).append((place, id_))
        questions = [Question(table, [i for _, i in asked], space) for space, asked in by_space.items()]
        result: list[Read] = [(None, None)] * len(entity_keys)
        for asked, rows in zip(by_space.values(), self.read_rows(config, questions), strict=True):
            for (place, _), row in zip(asked, rows, strict=True):
                if row is not None:
                    event = datetime.fromtimestamp(stamp(row)[0] / 1e6, tz=UTC)
                    result[place] = (event, layout.unpack_values(row, requested_features))
        return result

    def read_matrix(self, config: RepoConfig, question: Question) -> tuple[np.ndarray, np.ndarray]:
        """Fixed parts of many rows at once.

        Returns (fixed, present): a structured array (n,) of the layout's `dtype`, zeros where an id has no
        row, and (n,) bool.
        """
        layout = self.layout(question.view)
        (rows,) = self.read_rows(config, [question])
        if None not in rows:
            return layout.unpack_fixed(rows), np.ones(len(rows), bool)
        present = np.fromiter((row is not None for row in rows), dtype=bool, count=len(rows))
        fixed = np.zeros(len(rows), layout.dtype)
        fixed[present] = layout.unpack_fixed([row for row in rows if row is not None])
        return fixed, present

    def check(self, view: FeatureView) -> None:
        """Raises LayoutError for a view that cannot be stored: at apply, not at the first write."""
        self.layout(view)
        kinds = [(e.name == SPACE, e.dtype.to_value_type()) for e in view.entity_columns]
        if sorted(kinds) not in (
            [(False, ValueType.INT64)],
            [(False, ValueType.INT64), (True, ValueType.STRING)],
        ):
            raise LayoutError(
                f"view {view.name} is keyed by {', '.join(e.name for e in view.entity_columns)}; packed rows "
                f"are keyed by one int64 id and, for vectors, the string {SPACE}"
            )

    # Feast's Redis store batches its hash reads here; a packed row is one read already.
    _read_features_per_fv = OnlineStore._read_features_per_fv


def _place(view: FeatureView, key: EntityKey) -> tuple[int, str | None]:
    """The (id, space) that Feast's entity key of `view` names."""
    id_, space = None, None
    for name, value in zip(key.join_keys, key.entity_values, strict=True):
        if name == SPACE:
            space = value.string_val
        else:
            id_ = value.int64_val
    if id_ is None:
        raise ValueError(f"an entity key of view {view.name} has no id: {list(key.join_keys)}")
    return id_, space


def _micros(time: datetime) -> int:
    """Unix us of a time; naive times are UTC, as Feast hands them on."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    seconds = int(aware.replace(microsecond=0).timestamp())
    return seconds * 1_000_000 + aware.microsecond
