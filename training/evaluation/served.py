"""What each learned retriever would have brought its users at the cut of a held-out set.

The services' own functions on what they would have known at that midnight: users from their newest actions, one
search an embedding for its share of the results, pins made before the cut that the user had not acted on. The
search is exact, so that models are compared and not indexes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from training.evaluation.histories import Histories
from training.evaluation.measured import K
from training.evaluation.retrieval import HeldOut
from training.interests.engagements import ActionLog, Catalogue, followed_topics
from training.models.content import without_content
from training.models.interactions import Pins
from training.models.interests import (
    InterestNetwork,
    PinFeatures,
    embed_users,
    pin_vectors,
    round_robin,
    sample_followed,
    topic_places,
    weighted_budgets,
)
from training.models.interests.features import Histories as SeenHistories
from training.models.pinnerformer import PinnerFormer, embed_pins
from training.models.pinnerformer import embed_users as pinnerformer_users
from training.models.two_tower import TwoTower, user_vectors
from training.models.two_tower import pin_vectors as two_tower_pins
from training.pinnerformer.evaluation import top_pins
from training.pinnerformer.timelines import read_timelines
from validation.lake import Lake

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_NOBODY: Ints = np.empty(0, np.int64)
"""Nothing known."""


@dataclass(frozen=True)
class Served:
    """K pins for each held-out user that the retriever serves at all."""

    held: HeldOut
    recommended: Ints  # (U, K) pin ids, best first, zero-padded


@dataclass(frozen=True)
class AtCut:
    """What was known at the cut, read once for every model that reads the same content space."""

    lake: Lake
    past: Histories
    content: Pins
    """The whole catalogue in the content space; pins that came later are never candidates."""
    actions: ActionLog
    """Every action before the cut."""

    @classmethod
    def read(cls, lake: Lake, content: Pins, past: Histories) -> AtCut:
        """The actions before the cut of `past`, by the catalogue `content`."""
        return cls(lake, past, content, ActionLog.read(lake, Catalogue.of(content), past.held.cut))

    @property
    def cut(self) -> datetime:
        return self.past.held.cut

    @property
    def users(self) -> Ints:
        """Ids of the held-out users, ascending."""
        return self.past.held.users

    @cached_property
    def known(self) -> list[Ints]:
        """Catalogue rows of the pins that each held-out user had acted on positively."""
        ids = self.content.ids
        found = [self.past.known(user) for user in self.users.tolist()]
        at = [np.minimum(np.searchsorted(ids, pins), len(ids) - 1) for pins in found]
        return [rows[ids[rows] == pins] for rows, pins in zip(at, found, strict=True)]

    def features(self, topics: tuple[int, ...]) -> PinFeatures:
        """The catalogue as a network with that vocabulary of topics sees it at the cut."""
        return features_at(self.content, topics, self.actions, self.past.cut_ms)

    def histories(self, vectors: Floats, length: int) -> SeenHistories:
        """Held-out users' newest actions, their pins as rows of `vectors` (p, d)."""
        return self.actions.histories(self.users, np.full(len(self.users), self.past.cut_ms), vectors, length)

    def candidates(self, vectors: Floats) -> Ints:
        """Catalogue rows that could be found at the cut: made before it, with a vector."""
        return np.flatnonzero((self.content.created_at_ms < self.past.cut_ms) & vectors.any(axis=1))


@dataclass(frozen=True)
class Queries:
    """What a retriever searches for the held-out users, and in what."""

    vectors: Floats  # (p, d) of the whole catalogue
    queries: Floats  # (q, d)
    owner: Ints  # (q,) row of the user of each, those of a user in the order of their turns
    weights: Floats  # (q,) each one's share of its user's results
    topics: Ints  # (q,) place of the topic that its pins must carry; 0: any pin
    pin_topics: Ints  # (p, t) places of the topics of each pin

    @classmethod
    def one_each(cls, vectors: Floats, queries: Floats, owner: Ints) -> Queries:
        """One search a user, in all pins."""
        any_topic = np.zeros(len(owner), np.int64)
        return cls(
            vectors, queries, owner, np.ones(len(owner)), any_topic, np.zeros((len(vectors), 0), np.int64)
        )


def pinnerformer_queries(network: PinnerFormer, at: AtCut) -> Queries:
    """Each user's vector as of the cut; none for a user without actions."""
    lines = read_timelines(at.lake, at.content.ids, at.cut, only=at.users)
    users = pinnerformer_users(network, lines.arrays, lines.offsets[:-1], lines.offsets[1:], at.content.vectors)
    vectors = embed_pins(network, at.content.vectors)
    vectors[without_content(at.content.vectors)] = 0
    return Queries.one_each(vectors, users, np.searchsorted(at.users, lines.users))


def dcm_queries(network: InterestNetwork, at: AtCut) -> Queries:
    """Every implicit interest, heaviest first, with the share that it weighs."""
    vectors = pin_vectors(network, at.features(network.topics))
    found = embed_users(network, at.histories(vectors, network.config.length))
    owner, slot = np.nonzero(found.mask.numpy())
    weights = found.weights.numpy()[owner, slot]
    turns = np.lexsort((-weights, owner))
    queries = Queries.one_each(vectors, found.vectors.numpy()[owner, slot][turns], owner[turns])
    return replace(queries, weights=weights[turns])


def conditional_queries(network: InterestNetwork, at: AtCut, seed: int) -> Queries:
    """The users who followed topics before the cut, under each of a sample of these, in equal shares."""
    followed = followed_topics(at.lake, at.cut)
    mine = np.flatnonzero([user in followed for user in at.users.tolist()])
    topics = [sample_followed(followed[user], (seed, user)) for user in at.users[mine].tolist()]
    features = at.features(network.topics)
    vectors = pin_vectors(network, features)
    places = topic_places(_padded(topics), network.topics)  # (U, FOLLOWED)
    row, slot = np.nonzero(places)
    queries = np.zeros((len(mine), *places.shape[1:], network.config.dim), np.float32)
    if len(row):
        with torch.inference_mode():
            fields = network.user.fields(at.histories(vectors, network.config.length))
            found = network.users_given_topics(fields[torch.from_numpy(mine)], torch.from_numpy(places))
        queries = found.vectors.numpy()
    each = Queries.one_each(vectors, queries[row, slot], mine[row])
    return replace(each, topics=places[row, slot], pin_topics=features.topics)


def two_tower_queries(network: TwoTower, at: AtCut) -> Queries:
    """Each user's vector, in pins as they performed until the cut."""
    vectors = two_tower_pins_of(network, at.features(network.topics))
    users = user_vectors(network, at.histories(at.content.vectors, network.config.length))
    return Queries.one_each(vectors, users, np.arange(len(at.users)))


def listed(found: Queries, at: AtCut, total: int, *, novel: bool = True) -> list[tuple[Ints, Floats]]:
    """At most `total` pins of each held-out user, all searches' best first, with what each was found with.

    Every search brings its share; `novel` leaves out the pins that a user had acted on.
    """
    ids = np.zeros((len(found.owner), total), np.int64)
    scores = np.zeros(ids.shape, np.float32)
    candidates = at.candidates(found.vectors)
    for topic in np.unique(found.topics).tolist():
        asked = np.flatnonzero(found.topics == topic)
        carrying = candidates[(found.pin_topics[candidates] == topic).any(axis=1)] if topic else candidates
        known = [at.known[user] if novel else _NOBODY for user in found.owner[asked].tolist()]
        rows = top_pins(found.queries[asked], found.vectors, carrying, known, total)
        ids[asked] = np.where(rows >= 0, at.content.ids[rows], 0)
        for place, query in enumerate(asked.tolist()):
            scores[query] = found.vectors[rows[place]] @ found.queries[query]
    return [_dealt(found, np.flatnonzero(found.owner == user), ids, scores) for user in range(len(at.users))]


def _dealt(found: Queries, mine: Ints, ids: Ints, scores: Floats) -> tuple[Ints, Floats]:
    """One user's searches, each with its share, in turns."""
    shares = weighted_budgets(found.weights[mine], ids.shape[1])
    pins, turns = round_robin([ids[q][:share] for q, share in zip(mine.tolist(), shares.tolist(), strict=True)])
    if not len(pins):
        return pins, np.empty(0, np.float32)
    place = (ids[mine][turns] == pins[:, None]).argmax(axis=1)
    return pins, scores[mine][turns, place]


def pinnerformer_serves(network: PinnerFormer, at: AtCut) -> Served:
    """Nearest pins to each user's vector as of the cut; a user without actions gets none."""
    return _serves(pinnerformer_queries(network, at), at)


def dcm_serves(network: InterestNetwork, at: AtCut) -> Served:
    """Every implicit interest's nearest pins, the results shared out by weight, in turns."""
    return _serves(dcm_queries(network, at), at)


def conditional_serves(network: InterestNetwork, at: AtCut, seed: int) -> Served:
    """Nearest pins under a sample of the followed topics, each of pins that carry its topic, in equal shares.

    Only users who followed a topic before the cut are served.
    """
    served = _serves(conditional_queries(network, at, seed), at)
    followed = followed_topics(at.lake, at.cut)
    mine = np.flatnonzero([user in followed for user in at.users.tolist()])
    return Served(served.held.take(mine), served.recommended[mine])


def two_tower_serves(network: TwoTower, at: AtCut) -> Served:
    """Nearest pins, as they performed until the cut, to each user's vector."""
    return _serves(two_tower_queries(network, at), at)


def _serves(found: Queries, at: AtCut) -> Served:
    out = np.zeros((len(at.users), K), np.int64)
    for row, (pins, _) in zip(out, listed(found, at, K), strict=True):
        row[: len(pins)] = pins
    return Served(at.past.held, out)


def two_tower_pins_of(network: TwoTower, features: PinFeatures) -> Floats:
    """Vectors of the catalogue as of a midnight, (p, dim); a pin of neither content nor topics has the zero
    vector. Raises ValueError without performance."""
    if features.performance is None:
        raise ValueError("the two-tower reads pins' performance as of a midnight, and was given none")
    vectors = two_tower_pins(network, features, features.performance)
    vectors[~features.known()] = 0
    return vectors


def features_at(content: Pins, topics: tuple[int, ...], actions: ActionLog, now_ms: int) -> PinFeatures:
    """The catalogue `content` as a network with that vocabulary of topics sees it at a midnight.

    `actions` are read by the same catalogue; those from `now_ms` on are left out.
    """
    performed = actions.performance(content.created_at_ms, np.array([now_ms]))[now_ms]
    return PinFeatures(content.vectors, topic_places(content.topics, topics), performed)


def _padded(topics: list[Ints]) -> Ints:
    """(U, most topics of a user) ids, zero-padded."""
    out = np.zeros((len(topics), max((len(found) for found in topics), default=0)), np.int64)
    for row, found in zip(out, topics, strict=True):
        row[: len(found)] = found
    return out
