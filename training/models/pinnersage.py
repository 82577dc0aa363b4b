"""PinnerSage: a user as several medoids (KDD 2020, arXiv 2007.03634), exact and fast.

The pins a user acted on are clustered by Ward's method (nearest-neighbour chain, Lance-Williams updates),
cut at `alpha`; each cluster is stood for by its medoid, a real pin, and weighs
`sum exp(-decay * age in days)` over its actions. Serving samples three medoids by that weight.

Distances are squared Euclidean throughout, as in the paper's recursion: a cut at `alpha` here is scipy's
`fcluster(linkage(x, "ward"), sqrt(alpha), "distance")`. How they are clustered is
`interest_clusters.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from threadpoolctl import ThreadpoolController

from training.models.interest_clusters import Limits, Medoids, Workspace, cluster_users

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

CONFIG = "pinnersage.json"
MS_PER_DAY = 86_400_000
EVERY = 2**62
"""More actions than anybody has."""


class PinnerSageConfig(BaseModel):
    """Parameters of one PinnerSage version. The paper gives decay, window and samples; alpha it does not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: str | None = None
    """The space whose vectors are clustered, `content@7`; alpha means nothing in another."""
    alpha: float = Field(1.0, gt=0)
    """Largest Ward height (squared distance) of a merge that is kept; `training.evaluation.pinnersage_alpha`
    picks it."""
    decay_per_day: float = Field(0.01, ge=0)
    window_days: int = Field(90, ge=1)
    max_pins: int = Field(1000, ge=1, le=20_000)
    """Newest distinct pins clustered per user, however long the history: memory is 4 * max_pins^2 bytes a
    thread. The paper names no cap; 1000 pins in 90 days is past its heavy users' 75 to 100 clusters."""
    max_interests: int = Field(50, ge=1)
    """Heaviest interests kept per user."""
    recent_actions: int = Field(20, ge=1)
    """Actions of the current day that the online run clusters."""
    sampled: int = Field(3, ge=1)
    """Medoids sampled per request; relevance tapers past three (paper, section 5)."""
    query_rewards: bool = True
    """Whether published importances are multiplied by what came of each medoid's pins. Only impressions that
    name their medoid count, so without any nothing changes."""

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
    """One user's positive actions, in any order; parallel arrays.

    A pin that the space does not know has a zero vector: its actions are passed over, and so are those on a
    pin whose vector is not finite.
    """

    pin_ids: Ints  # (n,)
    vectors: Floats  # (n, d)
    times_ms: Ints  # (n,)


@dataclass(frozen=True)
class Histories:
    """Positive actions of many users on pins of one table of vectors; parallel arrays."""

    offsets: Ints  # (u + 1,) user u has actions offsets[u]:offsets[u + 1], in ascending time
    pin_ids: Ints  # (a,)
    rows: Ints  # (a,) row of the pin in `vectors`
    times_ms: Ints  # (a,)
    vectors: Floats  # (p, d)

    def __len__(self) -> int:
        return len(self.offsets) - 1


def user_interests(history: History, now_ms: int, config: PinnerSageConfig) -> Interests:
    """Interests of a user from the actions in [now - window, now), heaviest first.

    A pin acted on several times is one point of the clustering and weighs with every action.
    """
    return _one_user(history, _batch_limits(now_ms, config))


def recent_interests(history: History, now_ms: int, config: PinnerSageConfig) -> Interests:
    """The online run: interests from the last `recent_actions` actions of the UTC day of `now_ms`."""
    midnight = now_ms - now_ms % MS_PER_DAY
    return _one_user(history, _limits(midnight, now_ms + 1, now_ms, config.recent_actions, config))


def users_interests(
    histories: Histories, now_ms: int, config: PinnerSageConfig, *, threads: int = 1
) -> list[Interests]:
    """`user_interests` of every user, in order; the same to the bit, whatever the number of threads.

    Each thread keeps 4 max_pins^2 bytes; BLAS has one thread meanwhile.
    """
    limits = _batch_limits(now_ms, config)
    longest = int(np.diff(histories.offsets).max(initial=0))
    points = max(min(longest, config.max_pins), 1)
    vectors = np.ascontiguousarray(histories.vectors, np.float32)

    def run(bounds: Sequence[tuple[int, int]]) -> list[tuple[int, Medoids]]:
        space = Workspace.of(points, vectors.shape[1])
        return [(low, _slice(histories, vectors, low, high, limits, space)) for low, high in bounds]

    slices = _slices(histories.offsets, config.max_pins)
    with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        parts = [
            part for parts in pool.map(run, [slices[t::threads] for t in range(threads)]) for part in parts
        ]
    out: list[Interests] = []
    for low, found in sorted(parts, key=lambda part: part[0]):
        first = histories.offsets[low]
        for u in range(len(found.counts)):
            out.append(_interests(found, u, histories.pin_ids, vectors, histories.rows, first))
    return out


def merge_interests(
    batch: Interests, recent: Interests, batch_age_days: float, decay_per_day: float
) -> Interests:
    """Batch and online interests in one list, heaviest first.

    Batch importances decay by their age, so both sides weigh as of now. Batch covers whole days before
    today and the online run only today: a medoid in both adds up.
    """
    scale = np.exp(-decay_per_day * max(batch_age_days, 0.0))
    if len(recent) == 0:
        return _heaviest_first(batch.medoid_pin_ids, batch.importances * scale, batch.sizes, batch.vectors)
    ids = np.concatenate([recent.medoid_pin_ids, batch.medoid_pin_ids])
    weights = np.concatenate([recent.importances, batch.importances * scale])
    sizes = np.concatenate([recent.sizes, batch.sizes])
    vectors = np.concatenate([recent.vectors, batch.vectors])
    unique, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    weights = np.bincount(inverse, weights=weights)
    sizes = np.bincount(inverse, weights=sizes).astype(np.int64)
    return _heaviest_first(unique, weights, sizes, vectors[first])


def _heaviest_first(medoids: Ints, weights: NDArray[np.float64], sizes: Ints, vectors: Floats) -> Interests:
    order = np.lexsort((medoids, -weights))
    return Interests(medoids[order], weights[order].astype(np.float32), sizes[order], vectors[order])


def sample_medoids(interests: Interests, k: int = 3, *, seed: int) -> Ints:
    """Positions in `interests` of `k` medoids drawn without replacement by importance, (min(k, n),) int64.

    Exponential keys (Efraimidis and Spirakis 2006): equal seeds give equal draws. Order is the order drawn.
    """
    if len(interests) == 0:
        return np.empty(0, np.int64)
    weights = np.maximum(interests.importances.astype(np.float64), 1e-12)
    keys = np.random.default_rng(seed).exponential(size=len(weights)) / weights
    return np.argsort(keys, kind="stable")[:k].astype(np.int64)


@cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries of this process, which take a millisecond to find."""
    return ThreadpoolController()


def _batch_limits(now_ms: int, config: PinnerSageConfig) -> Limits:
    return _limits(now_ms - config.window_days * MS_PER_DAY, now_ms, now_ms, EVERY, config)


def _limits(start_ms: int, end_ms: int, now_ms: int, actions: int, config: PinnerSageConfig) -> Limits:
    return Limits(
        start_ms=start_ms,
        end_ms=end_ms,
        now_ms=now_ms,
        decay_per_day=config.decay_per_day,
        alpha=config.alpha,
        actions=actions,
        pins=config.max_pins,
        interests=config.max_interests,
    )


def _one_user(history: History, limits: Limits) -> Interests:
    order = np.argsort(history.times_ms, kind="stable")
    pin_ids, offsets = history.pin_ids[order], np.array([0, len(order)])
    found = cluster_users(pin_ids, history.vectors, order, history.times_ms[order], offsets, limits)
    return _interests(found, 0, pin_ids, history.vectors, order, 0)


def _slices(offsets: Ints, most_pins: int) -> list[tuple[int, int]]:
    """Runs of users of about equal cost, which is quadratic in the pins clustered."""
    counts = np.minimum(np.diff(offsets), most_pins).astype(np.float64)
    cost = np.concatenate([[0.0], np.cumsum(counts**2 + 200.0 * counts + 1000.0)])
    runs = min(len(counts), 64)
    edges = np.searchsorted(cost, np.linspace(0.0, cost[-1], runs + 1)[1:-1])
    edges = np.unique(np.concatenate([[0], edges, [len(counts)]])).tolist()
    return list(pairwise(edges))


def _slice(
    histories: Histories, vectors: Floats, low: int, high: int, limits: Limits, space: Workspace
) -> Medoids:
    offsets = histories.offsets[low : high + 1]
    actions = slice(offsets[0], offsets[-1])
    return cluster_users(
        histories.pin_ids[actions],
        vectors,
        histories.rows[actions],
        histories.times_ms[actions],
        offsets - offsets[0],
        limits,
        space,
    )


def _interests(found: Medoids, user: int, pin_ids: Ints, vectors: Floats, rows: Ints, first: int) -> Interests:
    count = found.counts[user]
    actions = found.actions[user, :count] + first
    return Interests(
        medoid_pin_ids=pin_ids[actions],
        importances=found.importances[user, :count].astype(np.float32),
        sizes=found.sizes[user, :count].copy(),
        vectors=np.asarray(vectors[rows[actions]], np.float32),
    )
