"""Ward clusters of a user's pins, their medoids and importances: one set of vectors, or a slice of users.

`ward_labels` and `medoids` are the algorithm on its own; `cluster_users` is a day's batch, which releases the
GIL. The compiled part, and why float32 gives the partitions of float64, is `interest_kernels.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.models import interest_kernels as kernels

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Workspace:
    """Memory of one thread for users of up to `points` points, reused from user to user."""

    points: Floats  # (points, d)
    centroids: Doubles  # (points, d)
    distances: Floats  # (points * stride(points),)

    @classmethod
    def of(cls, points: int, dim: int) -> Workspace:
        """About 4 points^2 + 12 points * dim bytes, of which a user touches what its own pins need."""
        return cls(
            np.empty((points, dim), np.float32),
            np.empty((points, dim), np.float64),
            np.empty(points * stride(points), np.float32),
        )


def stride(points: int) -> int:
    """Floats from one row of distances to the next: whole blocks and one cache line, so that the rows of one
    column do not all fall into the same set of the cache."""
    return -(-points // kernels.BLOCK) * kernels.BLOCK + 16


def ward_labels(vectors: Floats, alpha: float) -> Ints:
    """Cluster of each row after every merge of height <= `alpha`, (m,) int64 from 0 in order of appearance.

    `vectors` is (m, d), read as float32; heights are squared distances, scipy's Ward heights squared. The
    partition is the one scipy's `ward` gives, up to merges of equal height, whose order neither defines.
    Time O(m^2), memory about 4 m^2 + 8 m d bytes. Raises ValueError for a vector that is not finite.
    """
    x = np.ascontiguousarray(vectors, np.float32)
    m, d = x.shape
    if m < 2:
        return np.zeros(m, np.int64)
    labels, _ = kernels.ward(
        x, float(alpha), np.empty((m, stride(m)), np.float32), np.empty((m, d)), kernels.SSYRK
    )
    if labels[0] < 0:
        raise ValueError(f"vector {int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])} is not finite")
    return labels


def squared_distances(vectors: Floats) -> Floats:
    """Pairwise squared Euclidean distances, (m, m) float32, the diagonal +inf; as `ward_labels` starts from.

    By one symmetric BLAS product, so the error of an entry is some 1e-6 of the largest squared norm.
    """
    x = np.ascontiguousarray(vectors, np.float32)
    out = np.empty((len(x), stride(len(x))), np.float32)
    if len(x):
        kernels.distances(x, out, kernels.SSYRK)
    return out[:, : len(x)]


def medoids(vectors: Floats, labels: Ints) -> Ints:
    """Row of each cluster's medoid, (clusters,) int64: argmin of summed squared distances within the cluster.

    That argmin is the row nearest the centroid, so it costs O(m d); ties go to the earlier row. Sums are
    float64.
    """
    x, sizes = np.ascontiguousarray(vectors, np.float32), np.bincount(labels)
    means = kernels.means_of(x, labels, len(sizes))
    return kernels.medoids_of(x, labels, sizes, means, np.arange(len(sizes)))


@dataclass(frozen=True)
class Limits:
    """What of a user's actions counts, and how."""

    start_ms: int
    """First moment that counts."""
    end_ms: int
    """First moment that no longer counts."""
    now_ms: int
    """Moment that ages are measured from."""
    decay_per_day: float
    alpha: float
    actions: int
    """Newest actions read."""
    pins: int
    """Newest distinct pins clustered; actions on older ones do not count."""
    interests: int
    """Heaviest clusters kept."""


@dataclass(frozen=True)
class Medoids:
    """Clusters of many users, heaviest first; row u holds `counts[u]` of them, then zeros."""

    counts: Ints  # (u,)
    actions: Ints  # (u, interests) position of the newest action on the medoid
    importances: Doubles  # (u, interests) sum of exp(-decay * age in days) over the cluster's actions
    sizes: Ints  # (u, interests) distinct pins


def cluster_users(
    pin_ids: Ints,
    vectors: Floats,
    rows: Ints,
    times_ms: Ints,
    offsets: Ints,
    limits: Limits,
    workspace: Workspace | None = None,
) -> Medoids:
    """Clusters of the users whose actions are `offsets[u]:offsets[u + 1]`, each user's in ascending time.

    Action a is on pin `pin_ids[a]` with vector `vectors[rows[a]]`, (p, d) float32 C-ordered. A pin acted on
    several times is one point and weighs with every action. A pin whose vector is zero or not finite is one
    that the space does not know: its actions do not count. Releases the GIL, so threads scale. `workspace`
    must hold the lesser of `limits.pins` and the longest user; by default it is made. Time O(m^2) a user of m
    pins, memory 4 m^2 bytes beside 16 bytes an action. Give BLAS one thread.
    """
    users = len(offsets) - 1
    kept = limits.interests
    out = Medoids(
        np.zeros(users, np.int64),
        np.zeros((users, kept), np.int64),
        np.zeros((users, kept)),
        np.zeros((users, kept), np.int64),
    )
    longest = int(np.diff(offsets).max(initial=0))
    if longest:
        space = workspace or Workspace.of(min(longest, limits.pins), vectors.shape[1])
        kernels.cluster_slice(
            np.ascontiguousarray(pin_ids, np.int64),
            np.ascontiguousarray(vectors, np.float32),
            np.ascontiguousarray(rows, np.int64),
            np.ascontiguousarray(times_ms, np.int64),
            np.ascontiguousarray(offsets, np.int64),
            (limits.start_ms, limits.end_ms, limits.now_ms, limits.actions, limits.pins),
            (limits.decay_per_day, limits.alpha),
            (space.points, space.centroids, space.distances),
            (out.counts, out.actions, out.importances, out.sizes),
            kernels.SSYRK,
        )
    return out
