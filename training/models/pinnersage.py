"""PinnerSage: a user as several medoids (KDD 2020, arXiv 2007.03634), exact and fast.

The pins a user acted on are clustered by Ward's method (nearest-neighbour chain, Lance-Williams updates),
cut at `alpha`; each cluster is stood for by its medoid, a real pin, and weighs
`sum exp(-decay * age in days)` over its actions. Serving samples three medoids by that weight.

Distances are squared Euclidean throughout, as in the paper's recursion: a cut at `alpha` here is scipy's
`fcluster(linkage(x, "ward"), sqrt(alpha), "distance")`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

CONFIG = "pinnersage.json"
MS_PER_DAY = 86_400_000


class PinnerSageConfig(BaseModel):
    """Parameters of one PinnerSage version. The paper gives decay, window and samples; alpha it does not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: str | None = None
    """The space whose vectors are clustered, `content@7`; alpha means nothing in another."""
    alpha: float = Field(1.0, gt=0)
    """Largest Ward height (squared distance) of a merge that is kept; `choose_alpha` picks it."""
    decay_per_day: float = Field(0.01, ge=0)
    window_days: int = Field(90, ge=1)
    max_pins: int = Field(1000, ge=1)
    """Newest distinct pins clustered per user: memory is 8 * max_pins^2 bytes a thread."""
    max_interests: int = Field(50, ge=1)
    """Heaviest interests kept per user."""
    recent_actions: int = Field(20, ge=1)
    """Actions of the current day that the online run clusters."""
    sampled: int = Field(3, ge=1)
    """Medoids sampled per request; relevance tapers past three (paper, section 5)."""

    def save(self, folder: Path) -> None:
        """Write `pinnersage.json` into `folder`: PinnerSage has no weights, its parameters are the model."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(self.model_dump_json(indent=2))

    @classmethod
    def load(cls, folder: Path) -> PinnerSageConfig:
        """The parameters saved in `folder`. Raises FileNotFoundError where there are none."""
        return cls.model_validate_json((folder / CONFIG).read_text())


@dataclass(frozen=True)
class Interests:
    """Interests of one user, heaviest first; parallel arrays."""

    medoid_pin_ids: Ints  # (k,)
    importances: Floats  # (k,)
    sizes: Ints  # (k,) distinct pins in the cluster
    vectors: Floats  # (k, d) the medoids' vectors

    def __len__(self) -> int:
        return len(self.medoid_pin_ids)

    @classmethod
    def none(cls, dim: int) -> Interests:
        """No interests in a space of `dim` dimensions."""
        ids = np.empty(0, np.int64)
        return cls(ids, np.empty(0, np.float32), ids.copy(), np.empty((0, dim), np.float32))


@dataclass(frozen=True)
class History:
    """One user's positive actions on pins that have a vector, in any order; parallel arrays."""

    pin_ids: Ints  # (n,)
    vectors: Floats  # (n, d)
    times_ms: Ints  # (n,)


def ward_labels(vectors: Floats, alpha: float) -> Ints:
    """Cluster of each row after every merge of height <= `alpha`, (m,) int64 from 0 in order of appearance.

    `vectors` is (m, d); arithmetic is float64. The partition is the one scipy's `ward` gives, up to merges
    of exactly equal height, whose order neither defines. Time O(m^2), memory 8 m^2 bytes.
    """
    if len(vectors) < 2:
        return np.zeros(len(vectors), np.int64)
    return _ward_labels(squared_distances(vectors), float(alpha))


def squared_distances(vectors: Floats) -> NDArray[np.float64]:
    """Pairwise squared Euclidean distances, (m, m) float64, by one symmetric product."""
    x = np.ascontiguousarray(vectors, np.float64)
    gram = x @ x.T  # syrk: numpy sees that both sides are one array
    _gram_to_distances(gram)
    return gram


def medoids(vectors: Floats, labels: Ints) -> Ints:
    """Row of each cluster's medoid, (clusters,) int64: argmin of summed squared distances within the cluster.

    That argmin is the row nearest the centroid, so it costs O(m d); ties go to the earlier row.
    """
    clusters = int(labels.max()) + 1 if len(labels) else 0
    return _medoids(np.ascontiguousarray(vectors, np.float64), labels, clusters)


def importances(labels: Ints, times_ms: Ints, now_ms: int, decay_per_day: float) -> NDArray[np.float64]:
    """Summed `exp(-decay * age in days)` of each cluster's actions, (clusters,) float64."""
    ages = np.maximum(now_ms - times_ms, 0) / MS_PER_DAY
    return np.bincount(labels, weights=np.exp(-decay_per_day * ages))


def user_interests(history: History, now_ms: int, config: PinnerSageConfig) -> Interests:
    """Interests of a user from the actions in [now - window, now), heaviest first.

    A pin acted on several times is one point of the clustering and weighs with every action.
    """
    inside = (history.times_ms < now_ms) & (history.times_ms >= now_ms - config.window_days * MS_PER_DAY)
    order = np.argsort(-history.times_ms[inside], kind="stable")
    rows = np.flatnonzero(inside)[order]
    return _cluster(history, rows, now_ms, config)


def recent_interests(history: History, now_ms: int, config: PinnerSageConfig) -> Interests:
    """The online run: interests from the last `recent_actions` actions of the UTC day of `now_ms`."""
    midnight = now_ms - now_ms % MS_PER_DAY
    inside = (history.times_ms <= now_ms) & (history.times_ms >= midnight)
    order = np.argsort(-history.times_ms[inside], kind="stable")
    rows = np.flatnonzero(inside)[order][: config.recent_actions]
    return _cluster(history, rows, now_ms, config)


def merge_interests(
    batch: Interests, recent: Interests, batch_age_days: float, decay_per_day: float
) -> Interests:
    """Batch and online interests in one list, heaviest first.

    Batch importances decay by their age, so both sides weigh as of now. Batch covers whole days before
    today and the online run only today: a medoid in both adds up.
    """
    scale = np.exp(-decay_per_day * max(batch_age_days, 0.0))
    ids = np.concatenate([recent.medoid_pin_ids, batch.medoid_pin_ids])
    weights = np.concatenate([recent.importances, batch.importances * scale])
    sizes = np.concatenate([recent.sizes, batch.sizes])
    vectors = np.concatenate([recent.vectors, batch.vectors])
    unique, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    weights = np.bincount(inverse, weights=weights)
    sizes = np.bincount(inverse, weights=sizes).astype(np.int64)
    order = np.lexsort((unique, -weights))
    return Interests(unique[order], weights[order].astype(np.float32), sizes[order], vectors[first[order]])


def sample_medoids(interests: Interests, k: int = 3, *, seed: int) -> Ints:
    """Positions in `interests` of `k` medoids drawn without replacement by importance, (min(k, n),) int64.

    Exponential keys (Efraimidis and Spirakis 2006): equal seeds give equal draws. Order is the order drawn.
    """
    if len(interests) == 0:
        return np.empty(0, np.int64)
    weights = np.maximum(interests.importances.astype(np.float64), 1e-12)
    keys = np.random.default_rng(seed).exponential(size=len(weights)) / weights
    return np.argsort(keys, kind="stable")[:k].astype(np.int64)


@dataclass(frozen=True)
class AlphaChoice:
    """The alpha picked and why: held-out similarity of each alpha tried."""

    alpha: float
    similarity: dict[float, float]
    """Mean, over held-out pins, of the best cosine to the sampled medoids."""
    interests: dict[float, float]
    """Mean number of interests a user."""
    users: int


ALPHAS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def choose_alpha(
    histories: Sequence[History], config: PinnerSageConfig, *, alphas: Sequence[float] = ALPHAS, seed: int = 7
) -> AlphaChoice:
    """Alpha by walking one day forward: cluster all but each user's last active day, then ask how near that
    day's new pins lie to `config.sampled` medoids drawn by importance.

    Too small an alpha spends the draws on single pins, too large a one blurs interests together; both
    show. Where two alphas are within 0.001, the larger wins: fewer interests to keep and search.
    Raises ValueError when no history has two active days.
    """
    splits = [split for split in map(_last_day_out, histories) if split is not None]
    if not splits:
        raise ValueError("no user has actions on two different days; alpha cannot be chosen, set it instead")
    similarity: dict[float, float] = {}
    counts: dict[float, float] = {}
    for alpha in alphas:
        tried = config.model_copy(update={"alpha": alpha})
        best, found = [], []
        for user, (past, held, now_ms) in enumerate(splits):
            interests = user_interests(past, now_ms, tried)
            found.append(len(interests))
            drawn = sample_medoids(interests, tried.sampled, seed=seed + user)
            if len(drawn):
                best.append((held @ interests.vectors[drawn].T).max(axis=1).mean())
        similarity[alpha] = float(np.mean(best)) if best else 0.0
        counts[alpha] = float(np.mean(found))
    top = max(similarity.values())
    chosen = max(alpha for alpha, value in similarity.items() if value >= top - 1e-3)
    return AlphaChoice(chosen, similarity, counts, len(splits))


def _last_day_out(history: History) -> tuple[History, Floats, int] | None:
    """History before the last active day, vectors of that day's pins not met before, and its midnight."""
    if len(history.times_ms) == 0:
        return None
    midnight = int(history.times_ms.max()) // MS_PER_DAY * MS_PER_DAY
    before = history.times_ms < midnight
    new = ~before & ~np.isin(history.pin_ids, history.pin_ids[before])
    if not before.any() or not new.any():
        return None
    past = History(history.pin_ids[before], history.vectors[before], history.times_ms[before])
    return past, history.vectors[new], midnight


def _cluster(history: History, rows: Ints, now_ms: int, config: PinnerSageConfig) -> Interests:
    """Interests of the actions at `rows` (newest first)."""
    if len(rows) == 0:
        return Interests.none(history.vectors.shape[1])
    ids, first, inverse = np.unique(history.pin_ids[rows], return_index=True, return_inverse=True)
    newest = np.argsort(first, kind="stable")[: config.max_pins]  # distinct pins, newest action first
    place = np.full(len(ids), -1, np.int64)
    place[newest] = np.arange(len(newest))
    points = rows[first[newest]]
    vectors = np.ascontiguousarray(history.vectors[points], np.float32)
    labels = ward_labels(vectors, config.alpha)
    point_of_action = place[inverse]
    kept = point_of_action >= 0
    weights = importances(
        labels[point_of_action[kept]], history.times_ms[rows[kept]], now_ms, config.decay_per_day
    )
    centres = medoids(vectors, labels)
    sizes = np.bincount(labels)
    pin_ids = history.pin_ids[points[centres]]
    heaviest = np.lexsort((pin_ids, -weights))[: config.max_interests]
    return Interests(
        medoid_pin_ids=pin_ids[heaviest],
        importances=weights[heaviest].astype(np.float32),
        sizes=sizes[heaviest].astype(np.int64),
        vectors=vectors[centres[heaviest]],
    )


@numba.njit(cache=True, nogil=True)
def _gram_to_distances(gram: NDArray[np.float64]) -> None:
    """In place: Gram matrix -> squared distances, the diagonal +inf (a point is not its own neighbour)."""
    m = gram.shape[0]
    squares = np.empty(m)
    for i in range(m):
        squares[i] = gram[i, i]
    for i in range(m):
        for j in range(m):
            gram[i, j] = max(squares[i] + squares[j] - 2.0 * gram[i, j], 0.0)
        gram[i, i] = np.inf


@numba.njit(cache=True, nogil=True)
def _ward_labels(distance: NDArray[np.float64], alpha: float) -> NDArray[np.int64]:
    """Nearest-neighbour chain over `distance` (overwritten): labels after all merges of height <= alpha.

    Ward is reducible: merging two reciprocal neighbours never brings a third nearer than it was to the nearer
    of them. So the order of merges does not matter, and a cluster with no neighbour within alpha is final.
    """
    m = distance.shape[0]
    parent = np.arange(m)
    size = np.ones(m)
    alive = np.arange(m)  # ids of clusters still open; the first `open_count` places hold
    place = np.arange(m)
    open_count = m
    chain = np.empty(m, np.int64)
    length = 0
    while open_count > 0:
        if length == 0:
            chain[0] = alive[0]
            length = 1
        top = chain[length - 1]
        before = chain[length - 2] if length > 1 else -1
        # Starting from the one before makes it win ties, without which equal distances could cycle.
        nearest, height = before, (distance[top, before] if before >= 0 else np.inf)
        row = distance[top]
        for p in range(open_count):
            other = alive[p]
            if row[other] < height:
                nearest, height = other, row[other]
        if height > alpha or nearest < 0:
            open_count -= 1
            _close(alive, place, top, open_count)
            length -= 1
        elif nearest == before:
            length -= 2
            parent[top] = before
            open_count -= 1
            _close(alive, place, top, open_count)
            merged = size[top] + size[before]
            for p in range(open_count):
                k = alive[p]
                if k != before:
                    value = (
                        (size[top] + size[k]) * distance[top, k]
                        + (size[before] + size[k]) * distance[before, k]
                        - size[k] * height
                    ) / (merged + size[k])
                    distance[before, k] = value
                    distance[k, before] = value
            size[before] = merged
        else:
            chain[length] = nearest
            length += 1
    return _numbered(parent)


@numba.njit(cache=True, nogil=True)
def _numbered(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Clusters of a merge forest, numbered in order of their first member."""
    m = parent.shape[0]
    labels = np.empty(m, np.int64)
    names = np.full(m, -1, np.int64)
    count = 0
    for i in range(m):
        root = i
        while parent[root] != root:
            parent[root] = parent[parent[root]]  # path halving: long merge trails are walked once
            root = parent[root]
        if names[root] < 0:
            names[root] = count
            count += 1
        labels[i] = names[root]
    return labels


@numba.njit(cache=True, nogil=True)
def _close(alive: NDArray[np.int64], place: NDArray[np.int64], cluster: int, last: int) -> None:
    """Take `cluster` out of the open places by moving the one at `last` into its place."""
    hole = place[cluster]
    moved = alive[last]
    alive[hole] = moved
    place[moved] = hole
    alive[last] = cluster
    place[cluster] = last


@numba.njit(cache=True, nogil=True)
def _medoids(vectors: NDArray[np.float64], labels: NDArray[np.int64], clusters: int) -> NDArray[np.int64]:
    m, d = vectors.shape
    centroid = np.zeros((clusters, d))
    count = np.zeros(clusters)
    for i in range(m):
        count[labels[i]] += 1
        for j in range(d):
            centroid[labels[i], j] += vectors[i, j]
    best = np.full(clusters, np.inf)
    medoid = np.zeros(clusters, np.int64)
    for i in range(m):
        c = labels[i]
        total = 0.0
        for j in range(d):
            gap = vectors[i, j] - centroid[c, j] / count[c]
            total += gap * gap
        if total < best[c]:
            best[c] = total
            medoid[c] = i
    return medoid
