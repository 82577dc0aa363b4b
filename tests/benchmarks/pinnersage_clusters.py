"""What PinnerSage's clusters hold, by the pins' own topics: why a table comes out as it does.

Of users drawn on the last day: the share of a cluster's pins that carry its commonest first topic, and of the
pins nearest to its medoid, and to its centroid, the share that carry it too. Clusters of one pin are left out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.evaluation.user_embeddings import Points, points_of
from training.models.interactions import Pins
from training.models.interest_clusters import medoids, ward_labels
from training.models.pinnersage import PinnerSageConfig
from training.pipelines.user_actions import UserActions

NEAREST = 100


class Held(NamedTuple):
    """Shares, clusters weighed by their pins, and how many clusters they are of."""

    of_one_topic: float
    near_medoid: float
    near_centroid: float
    clusters: int

    def __str__(self) -> str:
        return (
            f"{self.clusters:,} clusters of several pins; {self.of_one_topic:.3f} of their pins are of a topic,"
            f" {self.near_medoid:.3f} of the {NEAREST} pins nearest to their medoids and"
            f" {self.near_centroid:.3f} of those nearest to their centroids are of it too"
        )


def clusters_hold(
    pins: Pins, actions: UserActions, alpha: float, now_ms: int, *, users: int, seed: int
) -> Held:
    """The shares, over users drawn by `seed`. `pins.topics[:, 0]` is a pin's first topic, 0 for none."""
    rows = []
    for user in actions.sample(users, seed):
        points = points_of(actions.history(user, now_ms), now_ms, PinnerSageConfig())
        if len(points.pin_ids) > 1:
            rows += _of_user(pins, points, ward_labels(points.vectors, alpha))
    shares, sizes = np.array([row[:3] for row in rows]), np.array([row[3] for row in rows])
    return Held(*np.average(shares, axis=0, weights=sizes).tolist(), clusters=len(rows))


def _of_user(pins: Pins, points: Points, labels: NDArray[np.int64]) -> list[tuple[float, float, float, int]]:
    first = pins.topics[:, 0]
    own = first[np.searchsorted(pins.ids, points.pin_ids)]
    centres = medoids(points.vectors, labels)
    out = []
    for cluster, medoid in enumerate(centres.tolist()):
        inside = labels == cluster
        topics, counts = np.unique(own[inside & (own > 0)], return_counts=True)
        if inside.sum() < 2 or not len(topics):
            continue
        topic = topics[counts.argmax()]
        near = [
            float((first[np.argpartition(-(pins.vectors @ at), NEAREST)[:NEAREST]] == topic).mean())
            for at in (points.vectors[medoid], points.vectors[inside].mean(axis=0))
        ]
        out.append((float(counts.max() / inside.sum()), *near, int(inside.sum())))
    return out
