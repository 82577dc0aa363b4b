"""What was known of the pairs of a user and a pin at the time of a request: the features of a ranker's row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from feature_repo.schema import PIN_SCALARS, PIN_TOPICS, USER_SCALARS
from feature_repo.sequence import SequenceLog
from training.data.point_in_time import PointInTime
from training.data.training_set_facts import PinVectors
from training.models.interactions import (
    INTERACTION_FEATURES,
    ActionRows,
    Pins,
    RequestRows,
    interactions,
)
from training.models.pinnability import PIN_PREFIX, USER_PREFIX
from training.models.query_features import QUERY_FEATURES, row_query_features
from validation.lake import Lake
from validation.tables import PIN_ID, QUERY, SURFACE, TIMESTAMP, USER_ID

if TYPE_CHECKING:
    from training.models.lexical import LexicalIndex


@dataclass(frozen=True)
class Catalogue:
    """Every pin of the lake as the interaction kernel takes it, by ascending id."""

    pins: Pins
    created_at: pd.Series

    @classmethod
    def of(cls, lake: Lake, vectors: PinVectors | None) -> Catalogue:
        frame = lake.read("pins", ["pin_id", "created_at", "topics"]).sort_values("pin_id", ignore_index=True)
        ids = frame["pin_id"].to_numpy(dtype=np.int64)
        topics = np.zeros((len(ids), PIN_TOPICS), dtype=np.int64)
        for row, own in enumerate(frame["topics"]):
            if own is not None:
                topics[row, : min(len(own), PIN_TOPICS)] = own[:PIN_TOPICS]
        matrix = np.zeros((len(ids), 1 if vectors is None else vectors.vectors.shape[1]), dtype=np.float32)
        if vectors is not None:
            at = np.searchsorted(ids, vectors.pin_ids)
            here = (at < len(ids)) & (ids[np.minimum(at, len(ids) - 1)] == vectors.pin_ids)
            matrix[at[here]] = vectors.vectors[here]
        created = frame["created_at"]
        return cls(Pins(ids, matrix, topics, unix_ms(created)), created)

    def rows(self, pin_ids: np.ndarray) -> np.ndarray:
        """Row of each pin id, -1 where the lake has no such pin."""
        ids = self.pins.ids
        at = np.minimum(np.searchsorted(ids, pin_ids), len(ids) - 1)
        return np.where(ids[at] == pin_ids, at, -1)


def unix_ms(times: pd.Series) -> np.ndarray:
    """Unix ms, int64, of zoned times."""
    return times.to_numpy(dtype="datetime64[ms]").astype(np.int64)


@dataclass(frozen=True)
class RowFeatures:
    """Features of n rows, float32, NaN where nothing was known."""

    user_scalars: np.ndarray  # (n, len(USER_SCALARS))
    pin_scalars: np.ndarray  # (n, len(PIN_SCALARS))
    interactions: np.ndarray  # (n, len(INTERACTION_FEATURES))
    query: np.ndarray  # (n, len(QUERY_FEATURES))

    def groups(self) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        """Each block with the names of its columns in a training set."""
        yield tuple(USER_PREFIX + name for name in USER_SCALARS), self.user_scalars
        yield tuple(PIN_PREFIX + name for name in PIN_SCALARS), self.pin_scalars
        yield INTERACTION_FEATURES, self.interactions
        yield QUERY_FEATURES, self.query


@dataclass(frozen=True)
class FeatureJoin:
    """Everything that rows are joined with."""

    features: PointInTime
    catalogue: Catalogue
    history: SequenceLog
    """Everyone's actions; each row reads its user's before its time."""
    signs: np.ndarray
    """int8, the sign of each action code."""
    words: Callable[[], LexicalIndex | None]
    """The index of what pins say; called where a row has a query."""

    def of(self, rows: pd.DataFrame, known: pd.Series) -> RowFeatures:
        """Features of `rows` (user_id, pin_id, timestamp, surface; optional query), from what happened before
        `known`, a zoned time a row."""
        users = rows[USER_ID].to_numpy(dtype=np.int64)
        pin_ids = rows[PIN_ID].to_numpy(dtype=np.int64)
        profiles = self.features.profiles(users, known)
        starts, ends = self.history.slice(users, unix_ms(known))
        meetings = interactions(
            self.catalogue.pins,
            self._history_rows,
            RequestRows(
                pin_rows=self.catalogue.rows(pin_ids),
                pin_ids=pin_ids,
                times_ms=unix_ms(rows[TIMESTAMP]),
                starts=starts,
                ends=ends,
                followed_starts=profiles.followed_starts,
                followed_ends=profiles.followed_ends,
            ),
            profiles.followed,
            self.signs,
        )
        pins = self.features.pin_scalars(pin_ids, known)
        return RowFeatures(profiles.scalars, pins, meetings, self._asked(rows, pin_ids))

    @cached_property
    def _history_rows(self) -> ActionRows:
        return ActionRows(
            pin_rows=self.catalogue.rows(self.history.pin_ids),
            actions=self.history.actions.astype(np.int32),
            times_ms=self.history.timestamps_ms,
        )

    def _asked(self, rows: pd.DataFrame, pin_ids: np.ndarray) -> np.ndarray:
        """QUERY_FEATURES of the rows; drawn rows were never searched for."""
        if QUERY not in rows:
            return np.zeros((len(rows), len(QUERY_FEATURES)), np.float32)
        return row_query_features(self.words, rows[QUERY].tolist(), rows[SURFACE].tolist(), pin_ids)
