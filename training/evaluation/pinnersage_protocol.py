"""PinnerSage's next-day protocol (KDD 2020, section 5): the days to predict, and what embeddings fetch of them.

e embeddings fetch their floor(400 / e) nearest pins each; relevance is the share of the day's action pins with
cosine >= 0.8 to a pin fetched, recall the share fetched themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.evaluation.pinnersage_alpha import AlphaConfig
from training.models.interactions import Pins
from training.models.pinnersage import MS_PER_DAY, History, PinnerSageConfig
from training.pipelines.user_actions import UserActions

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

METRICS = ("relevance", "recall", "r_precision", "reciprocal_rank")


class TableConfig(BaseModel):
    """The protocol's parameters; the paper's where it gives them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: int = Field(5, ge=1)
    """Last days predicted, one after the other."""
    users: int = Field(400, ge=1)
    """Users drawn for each day, of those who act in it."""
    draws: int = Field(3, ge=1)
    """Times that clusters are sampled; the mean counts."""
    recommended: int = Field(400, ge=1)
    relevant: float = 0.8
    impressions_per_action: int = Field(20, ge=1)
    novel: bool = False
    """Leave out pins acted on in the window: neither fetched nor to be found. The paper does not."""
    tuned: AlphaConfig = AlphaConfig()
    """How alpha, and complete linkage's diameter, are chosen."""
    resamples: int = Field(2000, ge=1)
    """Bootstrap resamples of users."""
    seed: int = 7


@dataclass(frozen=True)
class Day:
    """One user's day to predict: rows in the catalogue, and what was known at its midnight."""

    user: int
    midnight_ms: int
    past: History
    known: Ints
    """Rows acted on in the window."""
    held: Ints
    """Distinct rows acted on in the day, of pins that existed before."""
    shown: Ints
    """Distinct rows shown in the day and not acted on."""
    there: NDArray[np.bool_]
    """Which pins existed before the day and have a vector."""


@dataclass(frozen=True)
class Sums:
    """Sums by method, metric and user: a metric is the sum of `hits` over that of `counts`."""

    methods: tuple[str, ...]
    users: Ints  # (u,) ids
    hits: Doubles  # (methods, metrics, u)
    counts: Doubles  # (metrics, u)
    resamples: int
    seed: int

    def values(self) -> Doubles:
        """Every method's metrics, (methods, metrics); NaN where nothing was held out."""
        with np.errstate(invalid="ignore"):
            return self.hits.sum(-1) / self.counts.sum(-1)

    def resampled(self) -> Doubles:
        """`values` of each resample of users, (resamples, methods, metrics); every method on the same users."""
        rng = np.random.default_rng(self.seed)
        n = len(self.users)
        times = rng.multinomial(n, np.full(n, 1 / n), self.resamples).astype(np.float64)  # (b, u)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.einsum("bu,mku->bmk", times, self.hits) / (times @ self.counts.T)[:, None]

    def difference(self, weights: Mapping[str, float], metric: str) -> tuple[float, float, float]:
        """A weighted sum of methods' values of one metric, and its 95 % interval over users."""
        k = METRICS.index(metric)
        row = np.array([weights.get(method, 0.0) for method in self.methods])
        low, high = np.nanpercentile(self.resampled()[:, :, k] @ row, (2.5, 97.5))
        return float(self.values()[:, k] @ row), float(low), float(high)


def days_to_predict(
    pins: Pins, actions: UserActions, impressions: UserActions | None, end_ms: int, config: TableConfig
) -> Iterator[Day]:
    """Days of `config.users` users of each of the last `config.days` days who act on a pin that existed before,
    and had acted in the window."""
    window = PinnerSageConfig().window_days * MS_PER_DAY
    known_vectors = pins.vectors.any(axis=1)
    for back in range(config.days, 0, -1):
        midnight = end_ms - back * MS_PER_DAY
        there = known_vectors & (pins.created_at_ms < midnight)
        active = actions.active(midnight, midnight + MS_PER_DAY)
        rng = np.random.default_rng(config.seed + back)
        for user in np.sort(rng.permutation(active)[: config.users]).tolist():
            past = actions.history(user, midnight)
            known = actions.between(user, midnight - window, midnight)
            held = actions.between(user, midnight, midnight + MS_PER_DAY)
            held = held[there[held]]
            if config.novel:
                held = np.setdiff1d(held, known)
            if len(held) == 0 or len(known) == 0:
                continue
            shown = np.empty(0, np.int64)
            if impressions is not None:
                shown = _shown(impressions, int(actions.users[user]), midnight)
                shown = np.setdiff1d(shown[there[shown]], held)
            yield Day(user, midnight, past, known, held, shown, there)


def _shown(impressions: UserActions, user_id: int, midnight: int) -> Ints:
    place = int(np.searchsorted(impressions.users, user_id))
    if place == len(impressions) or impressions.users[place] != user_id:
        return np.empty(0, np.int64)
    return impressions.between(place, midnight, midnight + MS_PER_DAY)


def retrieved(pins: Pins, day: Day, sampled: Sequence[Sequence[Floats]], config: TableConfig) -> Doubles:
    """Relevant and recalled action pins of each method, the mean over its draws, (methods, 2).

    `sampled` are each method's draws, embeddings (e, d) each.
    """
    queries, place = np.unique(
        np.concatenate([e for draws in sampled for e in draws]), axis=0, return_inverse=True
    )
    place = place.ravel()
    likeness = queries @ pins.vectors.T  # (q, p)
    likeness[:, ~day.there] = -np.inf
    if config.novel:
        likeness[:, day.known] = -np.inf
    count = min(config.recommended, len(pins.ids))
    top = np.argpartition(likeness, len(pins.ids) - count, axis=1)[:, -count:]
    order = np.argsort(-np.take_along_axis(likeness, top, axis=1), axis=1, kind="stable")
    top = np.take_along_axis(top, order, axis=1)  # (q, count) nearest first
    near = pins.vectors[day.held] @ pins.vectors.T >= config.relevant  # (h, p)
    out = np.zeros((len(sampled), 2))
    at = 0
    for method, draws in enumerate(sampled):
        for embeddings in draws:
            share = config.recommended // len(embeddings)
            mine = place[at : at + len(embeddings)]
            at += len(embeddings)
            rows = np.unique(top[mine, :share])
            rows = rows[np.isfinite(likeness[mine][:, rows]).any(axis=0)]
            out[method, 0] += near[:, rows].any(axis=1).sum() / len(draws)
            out[method, 1] += np.isin(day.held, rows).sum() / len(draws)
    return out
