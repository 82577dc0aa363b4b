"""Why PinnerSage's table comes out as it does: clusterings at equal numbers of clusters, and what lies near.

    make bench NAME=pinnersage_clusters ARGS='--home H'

The table's days and retrieval. Every user's history is cut into the same numbers of clusters by Ward, complete
linkage and k-means, of which three are drawn by importance; beside them, one embedding: the decay average, and
the mean of all pins, which knows nothing of the user. Then how near a day's pins lie to the nearest medoid and
centroid of all of a user's clusters, over how many clusters they spread, and how old the pin of the history is
that each is nearest to. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from threadpoolctl import threadpool_limits

from tests.benchmarks.pinnersage_table import add_reader, last_days
from training.evaluation.pinnersage_protocol import Day, Sums, TableConfig, days_to_predict, retrieved
from training.evaluation.user_embeddings import (
    Points,
    decay_average,
    interests_of,
    kmeans_clusters,
    points_of,
    unit,
)
from training.models.interactions import Pins
from training.models.pinnersage import MS_PER_DAY, Interests, PinnerSageConfig, sample_medoids

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

WARD, COMPLETE, KMEANS, CENTROID = "Ward", "complete linkage", "k-means", "Ward, centroids"
WAYS = (WARD, CENTROID, COMPLETE, KMEANS)
AVERAGE, EVERYBODY = "decay average", "mean of all pins"
NEAR = ("to a medoid", "to a centroid", "clusters of a day's pins", "of the day's pins in its largest")


@dataclass(frozen=True, eq=False)
class Trees:
    """A user's points, and the trees of their clusterings."""

    points: Points
    _made: dict[str, Doubles] = field(default_factory=dict)

    def cut(self, method: str, count: int) -> Ints:
        """Labels from 0 of at most `count` clusters."""
        vectors = self.points.vectors
        if len(vectors) <= count:
            return np.arange(len(vectors))
        if method not in self._made:
            self._made[method] = linkage(vectors.astype(np.float64), method)
        labels = fcluster(self._made[method], count, "maxclust")
        return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[2, 3, 5, 10, 20, 40])
    parser.add_argument("--days", type=int, default=TableConfig().days)
    parser.add_argument("--users", type=int, default=TableConfig().users)
    parser.add_argument("--draws", type=int, default=TableConfig().draws)
    parser.add_argument("--seed", type=int, default=TableConfig().seed)
    add_reader(parser)
    options = parser.parse_args()
    config = TableConfig(days=options.days, users=options.users, draws=options.draws, seed=options.seed)
    with threadpool_limits(1):
        pins, known, _, end = last_days(options.home, config, options.text_encoder)
        days = list(days_to_predict(pins, known, None, int(end.timestamp() * 1000), config))
        trees = [Trees(points_of(day.past, day.midnight_ms, PinnerSageConfig())) for day in days]
        sums = at_equal_counts(pins, days, trees, known.users, options.counts, config)
        near = np.array([nearness(pins, day, of, options.counts) for day, of in zip(days, trees, strict=True)])
        ages = np.array([ages_of(pins, day, of.points) for day, of in zip(days, trees, strict=True)])
    found = show(sums, options.counts) | {
        "near": show_near(near, options.counts),
        "ages": ages.mean(0).tolist(),
    }
    print(f"\nthe past pin nearest to a day's pin is {ages[:, 0].mean():.1f} days old, ", end="")
    print(f"the past's pins are {ages[:, 1].mean():.1f}\n")
    print(json.dumps({"home": options.home.name, "user_days": len(days), **found}))


def at_equal_counts(
    pins: Pins,
    days: Sequence[Day],
    trees: Sequence[Trees],
    users: Ints,
    counts: Sequence[int],
    config: TableConfig,
) -> Sums:
    """Relevance and recall of every way at every count, and of the two single embeddings."""
    methods = (*(f"{way} {count}" for count in counts for way in WAYS), AVERAGE, EVERYBODY)
    hits, held = np.zeros((len(methods), 2, len(users))), np.zeros((2, len(users)))
    middle = unit(pins.vectors[pins.vectors.any(axis=1)].mean(axis=0, keepdims=True))
    for day, of in zip(days, trees, strict=True):
        seed = config.seed + 7919 * day.user + day.midnight_ms // MS_PER_DAY
        sampled = [
            [
                interests.vectors[sample_medoids(interests, 3, seed=1_000_003 * draw + seed)]
                for draw in range(config.draws)
            ]
            for count in counts
            for interests in interests_by_way(of, count, seed)
        ]
        alone = [[decay_average(of.points, PinnerSageConfig().decay_per_day)], [middle]]
        hits[:, :, day.user] += retrieved(pins, day, [*sampled, *alone], config)
        held[:, day.user] += len(day.held)
    kept = held[0] > 0
    return Sums(methods, users[kept], hits[:, :, kept], held[:, kept], config.resamples, config.seed)


def interests_by_way(trees: Trees, count: int, seed: int) -> list[Interests]:
    """The clusters of `WAYS`, at most `count` each."""
    points, decay = trees.points, PinnerSageConfig().decay_per_day
    ward, complete = trees.cut("ward", count), trees.cut("complete", count)
    return [
        interests_of(points, ward, decay),
        interests_of(points, ward, decay, centroid=True),
        interests_of(points, complete, decay),
        interests_of(points, kmeans_clusters(count)(points.vectors, seed), decay),
    ]


def nearness(pins: Pins, day: Day, trees: Trees, counts: Sequence[int]) -> Doubles:
    """`NEAR` of one user's day at every count, (counts, 4): mean cosine of the day's pins to the nearest medoid
    and centroid of all clusters, over how many clusters they spread, and the share in the most frequent."""
    held, out = pins.vectors[day.held], np.zeros((len(counts), len(NEAR)))
    for row, count in zip(out, counts, strict=True):
        ward = trees.cut("ward", count)
        medoid, centroid = (
            held @ interests_of(trees.points, ward, 0.0, centroid=centre).vectors.T for centre in (False, True)
        )
        spread = np.bincount(medoid.argmax(axis=1))
        row[:] = medoid.max(1).mean(), centroid.max(1).mean(), (spread > 0).sum(), spread.max() / len(held)
    return out


def ages_of(pins: Pins, day: Day, points: Points) -> tuple[float, float]:
    """Mean days since the past pins nearest to a day's pins were acted on, and since all past pins were."""
    newest = np.full(len(points.pin_ids), np.inf)
    np.minimum.at(newest, points.owner, points.ages_days)
    nearest = (pins.vectors[day.held] @ points.vectors.T).argmax(axis=1)
    return float(newest[nearest].mean()), float(newest.mean())


def show(sums: Sums, counts: Sequence[int]) -> dict[str, object]:
    """Print the values and what Ward has over the others; both as JSON."""
    values = dict(zip(sums.methods, sums.values().tolist(), strict=True))
    print("\n| relevance, recall | " + " | ".join(map(str, counts)) + " |\n" + "|---" * (len(counts) + 1) + "|")
    for way in WAYS:
        cells = (f"{values[f'{way} {m}'][0]:.4f}, {values[f'{way} {m}'][1]:.4f}" for m in counts)
        print(f"| {way} | " + " | ".join(cells) + " |")
    for alone in (AVERAGE, EVERYBODY):
        print(f"{alone}: {values[alone][0]:.4f}, {values[alone][1]:.4f}")
    differences: dict[str, list[list[float]]] = {}
    for way in (*WAYS[1:], AVERAGE):
        print(f"\nWard less {way}, [95 % interval]")
        for m in counts:
            lower = way if way == AVERAGE else f"{way} {m}"
            of = [sums.difference({f"{WARD} {m}": 1, lower: -1}, x) for x in ("relevance", "recall")]
            differences[f"{way} {m}"] = [list(x) for x in of]
            print(f"{m:>4}  " + "   ".join(f"{v:+.4f} [{low:+.4f}, {high:+.4f}]" for v, low, high in of))
    return {"values": values, "ward_less": differences}


def show_near(near: Doubles, counts: Sequence[int]) -> dict[str, list[float]]:
    """Print means over user days of (user days, counts, 4), with intervals for medoids less centroids."""
    print("\n| Ward | " + " | ".join(map(str, counts)) + " |\n" + "|---" * (len(counts) + 1) + "|")
    means = near.mean(axis=0).T
    for name, row in zip(NEAR, means, strict=True):
        print(f"| {name} | " + " | ".join(f"{x:.3f}" for x in row) + " |")
    less = near[:, :, 0] - near[:, :, 1]
    error = 1.96 * less.std(axis=0, ddof=1) / len(less) ** 0.5
    cells = (f"{x:+.4f} ± {e:.4f}" for x, e in zip(less.mean(0), error, strict=True))
    print("| medoid less centroid | " + " | ".join(cells) + " |")
    return {name: row.tolist() for name, row in zip(NEAR, means, strict=True)}


if __name__ == "__main__":
    main()
