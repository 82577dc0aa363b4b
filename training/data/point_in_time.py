"""What was known of users and pins at the time of a request, from the feature store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from feature_repo.schema import PIN_SCALARS, PIN_STATS, USER_PROFILE, USER_SCALARS
from feature_repo.views import EVENT_TIMESTAMP

if TYPE_CHECKING:
    from feast import FeatureStore

_FOLLOWED = "followed_topics"


@dataclass(frozen=True)
class Profiles:
    """What was known of n users, each at a time of its own."""

    scalars: np.ndarray
    """float32 (n, len(USER_SCALARS)), NaN where nothing was known."""
    followed_starts: np.ndarray
    """int64 (n,): user i followed `followed[followed_starts[i]:followed_ends[i]]`."""
    followed_ends: np.ndarray
    followed: np.ndarray
    """int64, topic ids."""


class PointInTime(Protocol):
    """Features as they were known at given times: rows with an event time after it are never used."""

    def profiles(self, user_ids: np.ndarray, times: pd.Series) -> Profiles:
        """Of user i at time i (zoned)."""
        ...

    def pin_scalars(self, pin_ids: np.ndarray, times: pd.Series) -> np.ndarray:
        """float32 (n, len(PIN_SCALARS)) of pin i at time i, NaN where nothing was known."""
        ...


@dataclass(frozen=True)
class FeastPointInTime:
    """`PointInTime` by Feast's historical retrieval. Rows with equal key and time are asked for once."""

    store: FeatureStore

    def profiles(self, user_ids: np.ndarray, times: pd.Series) -> Profiles:
        rows, inverse = self._join("user_id", user_ids, times, USER_PROFILE, (*USER_SCALARS, _FOLLOWED))
        lists = [() if topics is None else topics for topics in rows[_FOLLOWED].map(_listed)]
        ends = np.cumsum([len(topics) for topics in lists])
        starts = np.concatenate([[0], ends[:-1]]) if len(lists) else ends
        flat = (
            np.concatenate([np.asarray(t, dtype=np.int64) for t in lists]) if lists else np.zeros(0, np.int64)
        )
        return Profiles(
            scalars=rows[list(USER_SCALARS)].to_numpy(dtype=np.float32)[inverse],
            followed_starts=starts.astype(np.int64)[inverse],
            followed_ends=ends.astype(np.int64)[inverse],
            followed=flat.astype(np.int64),
        )

    def pin_scalars(self, pin_ids: np.ndarray, times: pd.Series) -> np.ndarray:
        rows, inverse = self._join("pin_id", pin_ids, times, PIN_STATS, PIN_SCALARS)
        return rows.to_numpy(dtype=np.float32)[inverse]

    def _join(
        self, key: str, ids: np.ndarray, times: pd.Series, view: str, features: tuple[str, ...]
    ) -> tuple[pd.DataFrame, np.ndarray]:
        """The features of the distinct (id, time) pairs, and each row's place among them."""
        from feature_repo.historical import join

        asked = pd.DataFrame({key: np.asarray(ids, dtype=np.int64)})
        asked[EVENT_TIMESTAMP] = times.dt.as_unit("us").reset_index(drop=True)
        inverse = asked.groupby([key, EVENT_TIMESTAMP], sort=False).ngroup().to_numpy()
        distinct = asked.drop_duplicates(ignore_index=True)
        known = join(self.store, distinct, [f"{view}:{feature}" for feature in features])
        return known[list(features)], inverse


def _listed(topics: object) -> object:
    """A list as it came, None for what stands for a missing list."""
    return None if topics is None or isinstance(topics, float) else topics
