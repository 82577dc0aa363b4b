"""PinnerSage's offline table (KDD 2020, section 5): ways to stand for a user, walking forward day by day.

Each of the last days is predicted from what happened before its midnight. Retrieval is measured as
`pinnersage_protocol` says. Ranking: the day's action pins against up to 20 of the user's
other impressions of that day per action, by the largest cosine to an embedding; R-Precision is the share of
action pins within the first R places, R their number, reciprocal rank the mean of 1 / rank over action pins.

Where clusters are sampled, every method draws with the same seeds, and several draws are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from training.evaluation.pinnersage_alpha import choose_alpha
from training.evaluation.pinnersage_protocol import METRICS, Day, Sums, TableConfig, days_to_predict, retrieved
from training.evaluation.user_embeddings import (
    Clustering,
    Points,
    complete_clusters,
    decay_average,
    interests_of,
    kmeans_clusters,
    last_pin,
    points_of,
)
from training.models.interactions import Pins
from training.models.interest_clusters import ward_labels
from training.models.pinnersage import (
    MS_PER_DAY,
    Histories,
    History,
    Interests,
    PinnerSageConfig,
    sample_medoids,
)
from training.pipelines.user_actions import UserActions

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

LAST_PIN = "last pin"
DECAY_AVERAGE = "decay average"
WARD, CENTROID, SAMPLE_1 = "ward + medoid", "ward + centroid", "ward + medoid, 1 sampled"
KMEANS, COMPLETE = "k-means, k = 5", "complete linkage"
NO_DECAY, FAST_DECAY = "ward + medoid, decay 0", "ward + medoid, decay 0.1"
WIDEST = (0.05, 0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 2.0, 2.6)
"""Squared diameters tried for complete linkage; of unit vectors it is at most 4."""


@dataclass(frozen=True)
class Table(Sums):
    """The sums of the paper's table, and what was chosen for it."""

    alpha: float
    widest: float
    interests: float
    """Mean number of Ward clusters of a user."""
    impressions: float
    """Mean number of impressions ranked against an action."""

    def lifts(self) -> tuple[Doubles, Doubles, Doubles]:
        """Lift over the last pin of each method and metric, and the ends of its 95 % interval over users."""
        base = self.methods.index(LAST_PIN)
        values, drawn = self.values(), self.resampled()
        with np.errstate(invalid="ignore", divide="ignore"):
            lift, drawn = values / values[base] - 1, drawn / drawn[:, base : base + 1] - 1
        low, high = np.nanpercentile(drawn, (2.5, 97.5), axis=0)
        return lift, low, high


def pinnersage_table(
    pins: Pins, actions: UserActions, impressions: UserActions | None, end_ms: int, config: TableConfig
) -> Table:
    """The table over the `config.days` days before `end_ms`, a UTC midnight.

    `impressions` are rows of what was shown, read like actions; without them the ranking half is NaN. alpha and
    complete linkage's diameter are chosen by `choose_alpha`'s procedure on days before the first one predicted.
    Raises ValueError where no user acts in these days on a pin that existed before.
    """
    first = end_ms - config.days * MS_PER_DAY
    base, seed = PinnerSageConfig(), config.seed
    alpha = choose_alpha(actions, first, base, search=config.tuned, seed=seed).alpha
    wide = config.tuned.model_copy(update={"alphas": WIDEST})
    widest = choose_alpha(actions, first, base, search=wide, seed=seed, cluster=_complete).alpha
    clusterings: dict[str, Clustering] = {
        WARD: lambda vectors, seed: ward_labels(vectors, alpha),
        COMPLETE: complete_clusters(widest),
        KMEANS: kmeans_clusters(5),
    }
    methods = (
        LAST_PIN,
        DECAY_AVERAGE,
        SAMPLE_1,
        KMEANS,
        COMPLETE,
        CENTROID,
        NO_DECAY,
        FAST_DECAY,
        WARD,
    )
    hits = np.zeros((len(methods), len(METRICS), len(actions)))
    counts = np.zeros((len(METRICS), len(actions)))
    clusters, ranked = [], [0, 0]
    for day in days_to_predict(pins, actions, impressions, end_ms, config):
        points = points_of(day.past, day.midnight_ms, base)
        if len(points.pin_ids) == 0:
            continue
        seed = config.seed + 7919 * day.user + day.midnight_ms // MS_PER_DAY
        labels = {name: cluster(points.vectors, seed) for name, cluster in clusterings.items()}
        clusters.append(labels[WARD].max() + 1)
        sampled = _embeddings(points, labels, base, seed, config.draws)
        found = retrieved(pins, day, [sampled[method] for method in methods], config)
        hits[:, :2, day.user] += found
        counts[:2, day.user] += len(day.held)
        if len(day.shown):
            candidates = _candidates(day, config, seed)
            hits[:, 2:, day.user] += _ranking(pins, day, candidates, [sampled[m] for m in methods], seed)
            counts[2:, day.user] += len(day.held)
            ranked[0] += len(candidates) - len(day.held)
            ranked[1] += len(day.held)
    kept = counts[0] > 0
    if not kept.any():
        raise ValueError("no user acts in the days to predict on a pin older than the day; take more days")
    return Table(
        methods=methods,
        users=actions.users[kept],
        hits=hits[:, :, kept],
        counts=counts[:, kept],
        alpha=alpha,
        widest=widest,
        interests=float(np.mean(clusters)),
        impressions=ranked[0] / max(ranked[1], 1),
        resamples=config.resamples,
        seed=config.seed,
    )


def _complete(histories: Histories, now_ms: int, config: PinnerSageConfig) -> list[Interests]:
    """Interests by complete linkage, `config.alpha` its squared diameter."""
    found = []
    for start, stop in pairwise(histories.offsets.tolist()):
        rows = histories.rows[start:stop]
        past = History(histories.pin_ids[start:stop], histories.vectors[rows], histories.times_ms[start:stop])
        points = points_of(past, now_ms, config)
        if len(points.pin_ids):
            labels = complete_clusters(config.alpha)(points.vectors, 0)
            found.append(interests_of(points, labels, config.decay_per_day))
        else:
            found.append(Interests.none(histories.vectors.shape[1]))
    return found


def _embeddings(
    points: Points, labels: Mapping[str, Ints], config: PinnerSageConfig, seed: int, draws: int
) -> dict[str, list[Floats]]:
    """Each method's embeddings, (e, d) a draw; one draw where nothing is drawn."""
    decay, k = config.decay_per_day, config.sampled
    drawn: dict[str, tuple[Interests, int]] = {
        SAMPLE_1: (interests_of(points, labels[WARD], decay), 1),
        KMEANS: (interests_of(points, labels[KMEANS], decay), k),
        COMPLETE: (interests_of(points, labels[COMPLETE], decay), k),
        CENTROID: (interests_of(points, labels[WARD], decay, centroid=True), k),
        NO_DECAY: (interests_of(points, labels[WARD], 0.0), k),
        FAST_DECAY: (interests_of(points, labels[WARD], 0.1), k),
        WARD: (interests_of(points, labels[WARD], decay), k),
    }
    out = {LAST_PIN: [last_pin(points)], DECAY_AVERAGE: [decay_average(points, decay)]}
    for method, (interests, count) in drawn.items():
        out[method] = [
            interests.vectors[sample_medoids(interests, count, seed=1_000_003 * draw + seed)]
            for draw in range(draws)
        ]
    return out


def _candidates(day: Day, config: TableConfig, seed: int) -> Ints:
    """The action pins, then impressions drawn for them."""
    count = min(config.impressions_per_action * len(day.held), len(day.shown))
    return np.concatenate([day.held, np.random.default_rng(seed).choice(day.shown, count, replace=False)])


def _ranking(pins: Pins, day: Day, candidates: Ints, sampled: list[list[Floats]], seed: int) -> Doubles:
    """Action pins in the first R places, and sums of their reciprocal ranks, by method, (methods, 2)."""
    r = len(day.held)
    mixed = np.random.default_rng(seed + 1).permutation(len(candidates))  # ties fall by chance
    vectors = pins.vectors[candidates[mixed]]
    out = np.zeros((len(sampled), 2))
    for method, draws in enumerate(sampled):
        for embeddings in draws:
            score = (vectors @ embeddings.T).max(axis=1)
            is_action = mixed[np.argsort(-score, kind="stable")] < r
            out[method, 0] += is_action[:r].sum() / len(draws)
            out[method, 1] += (1 / (np.flatnonzero(is_action) + 1)).sum() / len(draws)
    return out


Direction = tuple[str, Mapping[str, float]]

DIRECTIONS: tuple[Direction, ...] = (
    ("several embeddings beat the decay average", {WARD: 1, DECAY_AVERAGE: -1}),
    ("3 sampled beat 1 sampled", {WARD: 1, SAMPLE_1: -1}),
    ("the decay average beats the last pin", {DECAY_AVERAGE: 1, LAST_PIN: -1}),
    ("Ward beats k-means", {WARD: 1, KMEANS: -1}),
    ("Ward beats complete linkage", {WARD: 1, COMPLETE: -1}),
    ("a medoid is no worse than a centroid", {WARD: 1, CENTROID: -1}),
    ("clusters matter more than medoids", {CENTROID: 2, WARD: -1, DECAY_AVERAGE: -1}),
    ("decay 0.01 beats none", {WARD: 1, NO_DECAY: -1}),
    ("decay 0.01 beats 0.1", {WARD: 1, FAST_DECAY: -1}),
)
"""The paper's directions as weighted sums of metrics, positive where the direction holds. Clusters against
medoids: what clusters add to the decay average, less what medoids add to the clusters' centroids."""
