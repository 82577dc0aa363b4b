"""Ways to stand for a user by pins or points of a pin space: PinnerSage's, and those it is compared with.

All start from the same points: the newest distinct pins of the window, as PinnerSage clusters them (KDD 2020,
section 5: last pin, decay average, k-means, complete linkage, centroid instead of medoid).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.cluster.vq import kmeans2

from training.models.interest_clusters import medoids
from training.models.pinnersage import MS_PER_DAY, History, Interests, PinnerSageConfig

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

Clustering = Callable[[Floats, int], Ints]
"""Labels from 0, none left out, of points (m, d); the number seeds what is drawn."""


@dataclass(frozen=True)
class Points:
    """The distinct pins of a user's window, newest first, and the actions on them."""

    pin_ids: Ints  # (m,)
    vectors: Floats  # (m, d)
    owner: Ints  # (n,) point of each action
    ages_days: NDArray[np.float64]  # (n,)

    def weights(self, decay_per_day: float) -> NDArray[np.float64]:
        """`exp(-decay * age)` of each action, (n,)."""
        return np.exp(-decay_per_day * self.ages_days)


def points_of(history: History, now_ms: int, config: PinnerSageConfig) -> Points:
    """The newest `max_pins` distinct pins acted on in [now - window, now), and every action on them."""
    inside = (history.times_ms < now_ms) & (history.times_ms >= now_ms - config.window_days * MS_PER_DAY)
    rows = np.flatnonzero(inside)
    rows = rows[np.argsort(-history.times_ms[rows], kind="stable")]
    ids, first, inverse = np.unique(history.pin_ids[rows], return_index=True, return_inverse=True)
    newest = np.argsort(first, kind="stable")[: config.max_pins]
    place = np.full(len(ids), -1, np.int64)
    place[newest] = np.arange(len(newest))
    owner = place[inverse]
    kept = owner >= 0
    chosen = rows[first[newest]]
    ages = (now_ms - history.times_ms[rows[kept]]) / MS_PER_DAY
    return Points(history.pin_ids[chosen], history.vectors[chosen], owner[kept], ages)


def last_pin(points: Points) -> Floats:
    """The newest pin alone, (1, d)."""
    return points.vectors[:1]


def decay_average(points: Points, decay_per_day: float) -> Floats:
    """The mean of all actions' pins weighed by age, as a unit vector, (1, d)."""
    mean = points.weights(decay_per_day) @ points.vectors[points.owner]
    return unit(mean[None].astype(np.float32))


def interests_of(points: Points, labels: Ints, decay_per_day: float, *, centroid: bool = False) -> Interests:
    """Clusters as interests, heaviest first; `centroid` puts their unit centroids in place of the medoids."""
    weights = np.bincount(labels[points.owner], weights=points.weights(decay_per_day))
    middle = medoids(points.vectors, labels)
    sizes = np.bincount(labels)
    vectors = points.vectors[middle]
    if centroid:
        sums = np.zeros((len(middle), points.vectors.shape[1]))
        np.add.at(sums, labels, points.vectors)
        vectors = unit(sums.astype(np.float32))
    order = np.lexsort((points.pin_ids[middle], -weights))
    return Interests(
        points.pin_ids[middle][order], weights[order].astype(np.float32), sizes[order], vectors[order]
    )


def kmeans_clusters(k: int) -> Clustering:
    """k-means with k-means++ starts; fewer clusters where fewer points are or one stays empty."""

    def labels(vectors: Floats, seed: int) -> Ints:
        if len(vectors) <= k:
            return np.arange(len(vectors))
        _, found = kmeans2(vectors.astype(np.float64), k, minit="++", seed=seed, missing="warn")
        return _from_zero(found)

    return labels


def complete_clusters(widest: float) -> Clustering:
    """Complete linkage: clusters whose squared diameter is at most `widest`."""

    def labels(vectors: Floats, seed: int) -> Ints:
        if len(vectors) < 2:
            return np.zeros(len(vectors), np.int64)
        tree = linkage(vectors.astype(np.float64), "complete", "sqeuclidean")
        return _from_zero(fcluster(tree, widest, "distance"))

    return labels


def unit(vectors: Floats) -> Floats:
    """Rows at length 1; a zero row stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def _from_zero(labels: NDArray[np.integer]) -> Ints:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
