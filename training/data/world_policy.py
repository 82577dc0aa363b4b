"""The logging policy: what was shown, drawn so that every impression's true propensity is known in closed form.

A page is `draws` independent draws from one mixture over sources, less the repeats and the pins the user
acted on lately. A pin that the mixture gives chance q is on the page with probability exactly
1 - (1 - q) ** draws; that is the `propensity` written with it. The order of a page is noise over popularity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.data.world_config import LoggingPolicy
from training.data.world_pins import Pins

INTEREST, FOLLOWED, POPULAR, EXPLORE, SEARCH = range(5)
SOURCE_NAMES = ("interest", "followed_topics", "popular_by_topic", "explore", "search")

SEARCH_RELEVANT = 0.85
"""Share of a search page's draws that come from the topic searched for; the rest explore."""

_FRESH_DAYS = 3.0
_PAST, _PAST_SPREAD = 0.5, 1.1


class Shelves:
    """The catalogue as the policy sees it on one day: pins by topic, weighted by popularity so far.

    Memory: 40 bytes a pin. Pins made after the day began have weight 0.
    """

    def __init__(self, pins: Pins, leaves: int, start_ms: int) -> None:
        self.pins = pins
        self.order = np.argsort(pins.leaf, kind="stable").astype(np.int32)
        self.bounds = np.searchsorted(pins.leaf[self.order], np.arange(leaves + 1))
        self.score = np.where(pins.created_ms < start_ms, _PAST * np.exp(_PAST_SPREAD * pins.quality), 0.0)
        """Decayed count of positive answers; pins older than the log begin with what their quality earned."""

    def open(self, day_start_ms: int) -> None:
        """Set the day's weights from what is known at `day_start_ms`."""
        age_days = (day_start_ms - self.pins.created_ms) / 86_400_000
        alive = age_days > 0
        fresh = 1 + 2 * np.exp(-np.maximum(age_days, 0) / _FRESH_DAYS)
        self.topic_weight = np.where(alive, (0.5 + self.score) ** 0.8 * fresh, 0.0)
        popular = np.where(alive, self.score, 0.0)
        self.popular_share = popular / max(popular.sum(), 1e-300)
        self.popular_cum = np.cumsum(self.popular_share)
        self.topic_cum = np.concatenate([[0.0], np.cumsum(self.topic_weight[self.order])])
        self.topic_total = np.diff(self.topic_cum[self.bounds])
        self.alive = np.flatnonzero(alive).astype(np.int32)

    def close(self, positives: np.ndarray) -> None:
        """Count the day's positive answers (pin rows) and let the older ones fade (half-life 7 days)."""
        self.score *= 0.5 ** (1 / 7)
        self.score += np.bincount(positives, minlength=len(self.score))

    def from_topic(self, leaf: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One pin row of each leaf by the day's topic weights; -1 where the leaf is -1 or has no pin yet."""
        held = np.maximum(leaf, 0)
        low = self.topic_cum[self.bounds[held]]
        spot = low + rng.random(len(leaf)) * self.topic_total[held]
        at = np.searchsorted(self.topic_cum, spot, side="right") - 1
        at = np.clip(at, self.bounds[held], np.maximum(self.bounds[held + 1] - 1, self.bounds[held]))
        empty = (leaf < 0) | (self.topic_total[held] <= 0)
        return np.where(empty, -1, self.order[np.minimum(at, len(self.order) - 1)])

    def from_popular(self, n: int, rng: np.random.Generator) -> np.ndarray:
        at = np.searchsorted(self.popular_cum, rng.random(n) * self.popular_cum[-1], side="right")
        return np.minimum(at, len(self.pins) - 1)

    def from_all(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return self.alive[rng.integers(0, len(self.alive), n)]

    def topic_chance(self, pin: np.ndarray) -> np.ndarray:
        """Chance of each pin row under `from_topic` of its own leaf."""
        return self.topic_weight[pin] / np.maximum(self.topic_total[self.pins.leaf[pin]], 1e-300)


@dataclass(frozen=True)
class Requests:
    """Requests of one block on one day; every array (R,)."""

    believed: np.ndarray
    """int16 (R, K) topics the policy believes in, -1 for none."""
    followed: np.ndarray
    """int16 (R, F)."""
    remembered: np.ndarray
    """int32 (R, M) pin rows acted on lately."""
    query_leaf: np.ndarray
    """int16 (R,): leaf of a search, -1 on the home feed."""


@dataclass(frozen=True)
class Page:
    """Impressions of a block of requests, in page order; every array (I,)."""

    request: np.ndarray
    """Row of the request."""
    pin: np.ndarray
    """Pin row."""
    position: np.ndarray
    """0-based, without gaps."""
    source: np.ndarray
    """Index into SOURCE_NAMES of the first draw that brought the pin."""
    propensity: np.ndarray
    """float64: probability that the pin was on this page."""


def mixture_chance(
    requests: Requests, row: np.ndarray, pin: np.ndarray, shelves: Shelves, policy: LoggingPolicy
) -> np.ndarray:
    """Chance float64 (n,) that one draw for request `row` is `pin`, over every source that could bring it."""
    leaf = shelves.pins.leaf[pin][:, None]
    own = shelves.topic_chance(pin)
    uniform = 1 / len(shelves.alive)
    interest, followed, popular, explore = _shares(requests, policy)
    chance = explore[row] * uniform + popular[row] * shelves.popular_share[pin]
    for share, topics in ((interest, requests.believed), (followed, requests.followed)):
        held = np.maximum((topics >= 0).sum(axis=1), 1)
        chance += share[row] * (topics[row] == leaf).sum(axis=1) / held[row] * own
    searched = (requests.query_leaf[row][:, None] == leaf)[:, 0]
    search = SEARCH_RELEVANT * searched * own + (1 - SEARCH_RELEVANT) * uniform
    return np.where(requests.query_leaf[row] >= 0, search, chance)


def _shares(requests: Requests, policy: LoggingPolicy) -> tuple[np.ndarray, ...]:
    """Shares (R,) of interest, followed, popular, explore; what a user lacks goes to popular."""
    believes = (requests.believed >= 0).any(axis=1)
    follows = (requests.followed >= 0).any(axis=1)
    interest, followed = policy.interest * believes, policy.followed_topics * follows
    return interest, followed, 1 - interest - followed - policy.explore, np.full(len(believes), policy.explore)


def draw_pages(requests: Requests, shelves: Shelves, policy: LoggingPolicy, rng: np.random.Generator) -> Page:
    """The pages of R requests."""
    n = len(requests.query_leaf)
    row = np.repeat(np.arange(n), policy.draws)
    source = _draw_sources(requests, row, policy, rng)
    pin = np.empty(len(row), dtype=np.int64)
    for code, topics in ((INTEREST, requests.believed), (FOLLOWED, requests.followed)):
        at = np.flatnonzero(source == code)
        pin[at] = shelves.from_topic(_one_of(topics[row[at]], rng), rng)
    at = np.flatnonzero(source == SEARCH)
    pin[at] = shelves.from_topic(requests.query_leaf[row[at]], rng)
    at = np.flatnonzero(source == POPULAR)
    pin[at] = shelves.from_popular(len(at), rng)
    at = np.flatnonzero(source == EXPLORE)
    pin[at] = shelves.from_all(len(at), rng)

    _, first = np.unique(row * (len(shelves.pins) + 1) + pin, return_index=True)
    seen = (requests.remembered[row[first]] == pin[first][:, None]).any(axis=1)
    kept = np.sort(first[(pin[first] >= 0) & ~seen])
    row, pin, source = row[kept], pin[kept], source[kept]

    chance = mixture_chance(requests, row, pin, shelves, policy)
    liking = np.log(shelves.topic_weight[pin]) + policy.page_noise * rng.standard_normal(len(pin))
    order = np.lexsort((-liking, row))
    row, pin, source, chance = row[order], pin[order], source[order], chance[order]
    lengths = np.bincount(row, minlength=n)
    position = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return Page(
        request=row, pin=pin, position=position, source=source, propensity=1 - (1 - chance) ** policy.draws
    )


def _draw_sources(
    requests: Requests, row: np.ndarray, policy: LoggingPolicy, rng: np.random.Generator
) -> np.ndarray:
    interest, followed, popular, _ = _shares(requests, policy)
    u = rng.random(len(row))
    steps = np.cumsum([interest, followed, popular], axis=0)[:, row]
    source = (u >= steps).sum(axis=0)
    search = np.where(u < SEARCH_RELEVANT, SEARCH, EXPLORE)
    return np.where(requests.query_leaf[row] >= 0, search, source)


def _one_of(topics: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One held topic of each row, uniformly."""
    held = topics >= 0
    nth = (rng.random(len(topics)) * held.sum(axis=1)).astype(np.int64)
    at = (np.cumsum(held, axis=1) == nth[:, None] + 1).argmax(axis=1)
    return topics[np.arange(len(topics)), at]
