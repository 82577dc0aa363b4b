"""HR@K on a later day (arXiv 2506.23060, section 5), in two readings.

`best`    an item's score is the largest over its user's embeddings: the published metric
`served`  every embedding is searched for its share of the k results: what the service answers

The unit is an engagement: one (user, pin) of the held-out day that is new to the user. Candidates are the pins
that existed at the midnight before, less those the user had acted on positively.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.interests.engagements import Catalogue, Engagements, UserDays
from training.models.interests.features import PinFeatures, topic_places
from training.models.interests.inference import embed_users, pin_vectors
from training.models.interests.network import InterestNetwork
from training.models.two_tower import TwoTower, user_vectors
from training.models.two_tower import pin_vectors as two_tower_pins

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

HIT_AT = (100, 1000)
BLOCK = 64
"""User-days scored at once."""
NEVER = 2**40
"""Rank of a pin that no list can retrieve."""


class Lists(NamedTuple):
    """S ordered lists a user-day, and the share of the results that each one may fill."""

    scores: Floats  # (b, S, p) of every pin of the catalogue, -inf where it cannot be retrieved
    shares: Floats  # (b, S), 0 for a list that is not there


Scores = Callable[[UserDays], Lists]


def one_list(scores: Floats) -> Lists:
    """(b, p) scores as a single list that fills all results."""
    return Lists(scores[:, None], np.ones((len(scores), 1), np.float32))


@dataclass(frozen=True)
class Ranks:
    """Rank, from 1, of every held-out engagement."""

    ranks: Ints  # (t,)
    interests: Ints  # (t,) interests its user has
    users: Ints  # (t,)

    def hit_rate(self, k: int, at_least: int = 0, at_most: int | None = None) -> float:
        """Share of engagements within the first k, of users with that many interests; NaN without any."""
        kept = self._kept(at_least, at_most)
        return float((self.ranks[kept] <= k).mean()) if kept.any() else float("nan")

    def error(self, k: int, at_least: int = 0, at_most: int | None = None) -> float:
        """Standard error of `hit_rate`, engagements of one user taken together."""
        kept = self._kept(at_least, at_most)
        users, owner = np.unique(self.users[kept], return_inverse=True)
        if len(users) < 2:
            return float("nan")
        residual = (self.ranks[kept] <= k) - (self.ranks[kept] <= k).mean()
        by_user = np.bincount(owner, weights=residual)
        return float(np.sqrt(len(users) / (len(users) - 1) * (by_user**2).sum()) / kept.sum())

    def count(self, at_least: int = 0, at_most: int | None = None) -> int:
        return int(self._kept(at_least, at_most).sum())

    def _kept(self, at_least: int, at_most: int | None) -> NDArray[np.bool_]:
        return (self.interests >= at_least) & (self.interests <= (at_most if at_most is not None else 2**31))

    def named(self, prefix: str = "") -> dict[str, float]:
        """Flat metrics for the registry: HR over all, and over users of at least three interests."""
        out = {f"{prefix}hr_at_{k}": self.hit_rate(k) for k in HIT_AT}
        if self.count(at_least=3):
            out |= {f"{prefix}hr_at_{k}_3_interests": self.hit_rate(k, 3) for k in HIT_AT}
        return out


def ranks(data: Engagements, days: UserDays, scores: Scores, interests: Ints | None = None) -> Ranks:
    """Rank every engagement of `days` on a pin that existed at its midnight.

    The rank among several lists is the least number of results at which one of them, filling its share, has
    the pin. `interests` (r,) is how many each row's user has (0 where nobody says). A candidate that ties with
    the engagement counts as before it, so a model that collapsed to one point gains nothing.
    """
    catalogue = data.catalogue
    interests = np.zeros(len(days), np.int64) if interests is None else interests
    out: list[Ints] = []
    counted: list[Ints] = []
    users: list[Ints] = []
    for start in range(0, len(days), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(days)))
        part = days.take(rows)
        lists = scores(part)
        for local, (seen, pins) in enumerate(_known_and_new(data, part)):
            new = pins[catalogue.created_at_ms[pins] < part.times_ms[local]]
            if not len(new):
                continue
            unborn = catalogue.created_at_ms >= part.times_ms[local]
            place = np.full(len(new), np.inf)
            for line, share in zip(lists.scores[local], lists.shares[local], strict=True):
                if share > 0:
                    line[seen] = -np.inf
                    line[unborn] = -np.inf
                    right = line[new]
                    ahead = (line >= right[:, None]).sum(axis=1)
                    place = np.minimum(place, np.where(np.isfinite(right), ahead / share, np.inf))
            place = np.ceil(np.minimum(place, NEVER) - 1e-6).astype(np.int64)
            out.append(place)
            counted.append(np.full(len(new), interests[rows[local]]))
            users.append(np.full(len(new), part.users[local]))
    if not out:
        empty = np.empty(0, np.int64)
        return Ranks(empty, empty, empty)
    return Ranks(np.concatenate(out), np.concatenate(counted), np.concatenate(users))


def _known_and_new(data: Engagements, days: UserDays) -> Iterator[tuple[Ints, Ints]]:
    """Rows of pins each user had acted on positively before, and of the day's new ones."""
    actions = data.actions
    start, end = actions.log.slice(days.users, days.times_ms, limit=2**31)
    for row, (low, high) in enumerate(zip(start, end, strict=True)):
        before = actions.pin_rows[low:high][actions.signs[low:high] > 0]
        yield np.unique(before[before >= 0]), days.pins[days.offsets[row] : days.offsets[row + 1]]


def implicit_scores(network: InterestNetwork, data: Engagements, *, served: bool = False) -> Scores:
    """A user's implicit interests: the best product over them, or a list each that fills its weight."""
    clusters = network.clusters(data.catalogue.features)

    def scores(days: UserDays, vectors: Floats) -> Lists:
        histories = data.actions.histories(days.users, days.times_ms, vectors, network.config.length, clusters)
        found = embed_users(network, histories)
        embeddings = found.vectors.numpy()
        products = embeddings.reshape(-1, embeddings.shape[2]) @ vectors.T  # one product, not one a user
        table = products.reshape(*embeddings.shape[:2], -1)  # (b, K, p)
        table[:, :, ~vectors.any(axis=1)] = -np.inf
        table[~found.mask.numpy()] = -np.inf
        return Lists(table, found.weights.numpy()) if served else one_list(table.max(axis=1))

    return day_by_day(network, data, scores)


def day_by_day(
    network: InterestNetwork, data: Engagements, scores: Callable[[UserDays, Floats], Lists]
) -> Scores:
    """`scores` by the catalogue's vectors (p, d) as of each row's midnight: one set of them for all days, where
    the network does not know how pins performed."""
    features, by_day = data.catalogue.features, network.config.by_day
    made: dict[int, Floats] = {}

    def vectors(now: int) -> Floats:
        now = now if by_day else 0
        if now not in made:
            seen = features.performing(data.performance(np.array([now]))[now]) if by_day else features
            made[now] = pin_vectors(network, seen)
        return made[now]

    def by_midnight(days: UserDays) -> Lists:
        midnights, of = np.unique(days.times_ms, return_inverse=True)
        parts = [np.flatnonzero(of == i) for i in range(len(midnights))]
        found = [
            scores(days.take(rows), vectors(now)) for rows, now in zip(parts, midnights.tolist(), strict=True)
        ]
        order = np.argsort(np.concatenate(parts), kind="stable")
        return Lists(*(np.concatenate([getattr(x, name) for x in found])[order] for name in Lists._fields))

    return by_midnight


def conditional_scores(
    network: InterestNetwork, data: Engagements, topics: dict[int, Ints], *, filtered: bool
) -> Scores:
    """Best product over the topics of each user (`topics`: user id -> topic ids).

    With `filtered` a topic retrieves only pins that carry it. A user without topics retrieves nothing.
    """
    import torch

    carries = _carriers(data.catalogue.features, len(network.topics))

    def scores(days: UserDays, vectors: Floats) -> Lists:
        out = np.full((len(days), len(vectors)), -np.inf, np.float32)
        histories = data.actions.histories(days.users, days.times_ms, vectors, network.config.length)
        with torch.inference_mode():
            fields = network.user.fields(histories)
            for row, user in enumerate(days.users.tolist()):
                places = topic_places(topics.get(user, np.empty(0, np.int64)), network.topics)
                places = places[places > 0]
                if len(places):
                    found = network.users_given_topics(fields[row : row + 1], torch.from_numpy(places)[None])
                    products = found.vectors[0].numpy() @ vectors.T
                    if filtered:
                        products[~carries[places]] = -np.inf
                    out[row] = products.max(axis=0)
        return one_list(out)

    return day_by_day(network, data, scores)


def two_tower_scores(network: TwoTower, data: Engagements) -> Scores:
    """Products of the two towers, pins as of each row's midnight."""
    features = data.catalogue.features
    content = features.tensors()[0].numpy()
    made: dict[int, Floats] = {}

    def scores(days: UserDays) -> Lists:
        for now in np.unique(days.times_ms).tolist():
            if now not in made:
                made[now] = two_tower_pins(network, features, data.performance(np.array([now]))[now])
        histories = data.actions.histories(days.users, days.times_ms, content, network.config.length)
        users = user_vectors(network, histories)
        lines = [made[now] @ user for now, user in zip(days.times_ms.tolist(), users, strict=True)]
        return one_list(np.stack(lines))

    return scores


def popular_scores(data: Engagements, days: int = 7) -> Scores:
    """The same order for everybody: positive actions of the last `days` days before the midnight."""
    day, pin, count = data.actions.positives_by_day(len(data.catalogue.ids))

    def scores(rows: UserDays) -> Lists:
        out = np.zeros((len(rows), len(data.catalogue.ids)), np.float32)
        for now in np.unique(rows.times_ms).tolist():
            today = now // 86_400_000
            inside = (day >= today - days) & (day < today)
            line = np.bincount(pin[inside], weights=count[inside], minlength=out.shape[1])
            out[rows.times_ms == now] = line - 1e-6 * np.arange(out.shape[1])  # an order has no ties
        return one_list(out)

    return scores


def engaged_interests(data: Engagements, days: UserDays, *, at_least: int = 2, window_days: int = 14) -> Ints:
    """(r,) first topics with at least `at_least` positive actions in the window before each midnight."""
    actions, topics = data.actions, data.catalogue.features.topics
    first = topics[:, 0] if topics.shape[1] else np.zeros(len(topics), np.int64)
    start, end = actions.log.slice(days.users, days.times_ms, limit=2**31)
    out = np.zeros(len(days), np.int64)
    for row, (low, high) in enumerate(zip(start, end, strict=True)):
        recent = actions.log.timestamps_ms[low:high] >= days.times_ms[row] - window_days * 86_400_000
        kept = (actions.signs[low:high] > 0) & (actions.pin_rows[low:high] >= 0) & recent
        counts = np.bincount(first[actions.pin_rows[low:high][kept]])
        out[row] = (counts[1:] >= at_least).sum()
    return out


def overlap(first: Scores, second: Scores, data: Engagements, days: UserDays, k: int = 100) -> float:
    """Mean share of one source's k candidates that the other's k hold too, over users that both serve."""
    shares = []
    for start in range(0, len(days), BLOCK):
        part = days.take(np.arange(start, min(start + BLOCK, len(days))))
        for left, right in zip(first(part).scores, second(part).scores, strict=True):
            a, b = _top(left.max(axis=0), k), _top(right.max(axis=0), k)
            if len(a) and len(b):
                shares.append(len(np.intersect1d(a, b)) / min(len(a), len(b)))
    return float(np.mean(shares)) if shares else float("nan")


def existing(catalogue: Catalogue, now_ms: int) -> Ints:
    """Rows of the pins that have features and existed before a time."""
    return np.flatnonzero((catalogue.created_at_ms < now_ms) & catalogue.features.known())


def _top(line: Floats, k: int) -> Ints:
    k = min(k, len(line))
    best = np.argpartition(-line, k - 1)[:k]
    return best[np.isfinite(line[best])]


def _carriers(features: PinFeatures, topics: int) -> NDArray[np.bool_]:
    """(topics + 1, p) which pins carry each topic of the vocabulary."""
    out = np.zeros((topics + 1, len(features)), bool)
    for column in features.topics.T:
        out[column, np.arange(len(features))] = True
    out[0] = False
    return out
