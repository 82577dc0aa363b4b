"""What training hands to the feature store: vectors and interests, each in its space.

Every write replaces the space's file: a space is one model version, written by one training run. Materialize
the view afterwards (`feature_repo.store.materialize`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_repo.jobs.files import in_pieces, lists, times, write
from feature_repo.views import PIN_EMBEDDING, SPACE, USER_EMBEDDING, USER_INTERESTS, View


@dataclass(frozen=True, eq=False)
class UserInterests:
    """One user's interests, to be stored in this order."""

    user_id: int
    medoid_pin_ids: np.ndarray  # (k,) int64
    importances: np.ndarray  # (k,) float32
    cluster_sizes: np.ndarray  # (k,) int64
    vectors: np.ndarray  # (k, d) float32


def write_pin_embeddings(
    out: Path, space: str, pin_ids: np.ndarray, vectors: np.ndarray, event_time: datetime
) -> int:
    """Writes the vectors (n, d) of pins (n,) int64 in `space`, true from `event_time` on; returns n.

    Raises ValueError for a shape that does not match, a repeated or padding id, NaN or infinity.
    """
    return _write_vectors(out, PIN_EMBEDDING, "pin_id", space, pin_ids, vectors, event_time)


def write_user_embeddings(
    out: Path, space: str, user_ids: np.ndarray, vectors: np.ndarray, event_time: datetime
) -> int:
    """Writes the vectors (n, d) of users (n,) int64 in `space`, as `write_pin_embeddings` does."""
    return _write_vectors(out, USER_EMBEDDING, "user_id", space, user_ids, vectors, event_time)


def write_user_interests(out: Path, space: str, rows: Iterable[UserInterests], event_time: datetime) -> int:
    """Writes users' interests in `space`, true from `event_time` on; returns the number of users.

    Raises ValueError where a user's arrays are not parallel, repeat a user, or hold NaN.
    """
    users = list(rows)
    for row in users:
        k = len(row.medoid_pin_ids)
        if row.vectors.ndim != 2 or {len(row.importances), len(row.cluster_sizes), len(row.vectors)} != {k}:
            raise ValueError(f"user {row.user_id}: interests must be parallel, one vector each ({k} medoids)")
        if not np.isfinite(row.vectors).all():
            raise ValueError(f"user {row.user_id}: an interest's vector holds NaN or infinity")
    ids = np.array([row.user_id for row in users], np.int64)
    _check_ids("user_id", ids)

    def table(some: slice) -> pa.Table:
        here = users[some]
        return pa.table(
            {
                "user_id": ids[some],
                SPACE: pa.repeat(pa.scalar(space), len(here)),
                "medoid_pin_ids": _lists([row.medoid_pin_ids for row in here], np.int64),
                "importances": _lists([row.importances for row in here], np.float32),
                "cluster_sizes": _lists([row.cluster_sizes for row in here], np.int64),
                "medoid_vectors": _lists([row.vectors.reshape(-1) for row in here], np.float32),
                **times(event_time, len(here)),
            }
        )

    return write(out, USER_INTERESTS, space, in_pieces(len(users), table))


def _write_vectors(
    out: Path, view: View, key: str, space: str, ids: np.ndarray, vectors: np.ndarray, event_time: datetime
) -> int:
    ids = np.ascontiguousarray(ids, np.int64)
    vectors = np.ascontiguousarray(vectors, np.float32)
    if vectors.ndim != 2 or len(vectors) != len(ids):
        raise ValueError(f"{space}: {len(ids)} ids need ({len(ids)}, d) vectors; they are {vectors.shape}")
    _check_ids(key, ids)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{space}: {(~finite).sum()} vectors hold NaN or infinity, first {key} {ids[~finite][0]}"
        )
    width = vectors.shape[1]

    def table(some: slice) -> pa.Table:
        count = len(ids[some])
        return pa.table(
            {
                key: ids[some],
                SPACE: pa.repeat(pa.scalar(space), count),
                "vector": lists(width * np.arange(count + 1), vectors[some].reshape(-1)),
                **times(event_time, count),
            }
        )

    return write(out, view, space, in_pieces(len(ids), table))


def _check_ids(key: str, ids: np.ndarray) -> None:
    if (ids <= 0).any():
        raise ValueError(f"{key} {ids[ids <= 0][0]}: ids are positive, 0 is padding")
    distinct, counts = np.unique(ids, return_counts=True)
    if len(distinct) != len(ids):
        raise ValueError(f"{key} {distinct[counts > 1][0]} appears {counts.max()} times; give each once")


def _lists(arrays: list[np.ndarray], dtype: type) -> pa.ListArray:
    return lists(np.cumsum([0, *map(len, arrays)]), np.concatenate(arrays).astype(dtype))
