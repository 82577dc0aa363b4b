"""What each learned retriever would have brought its users at the cut of a held-out set.

The services' own functions on what they would have known at that midnight: users from their newest actions, one
search an embedding for its share of the results, pins made before the cut that the user had not acted on. The
search is exact, so that models are compared and not indexes.
"""

from __future__ import annotations

from dataclasses import dataclass
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

    def nearest(self, queries: Floats, owner: Ints, vectors: Floats, candidates: Ints) -> Ints:
        """Ids of each query's K nearest candidates that user `owner` (row) had not acted on, (n, K)."""
        rows = top_pins(queries, vectors, candidates, [self.known[user] for user in owner.tolist()], K)
        return np.where(rows >= 0, self.content.ids[rows], 0)


def pinnerformer_serves(network: PinnerFormer, at: AtCut) -> Served:
    """Nearest pins to each user's vector as of the cut; a user without actions gets none."""
    lines = read_timelines(at.lake, at.content.ids, at.cut, only=at.users)
    users = pinnerformer_users(network, lines.arrays, lines.offsets[:-1], lines.offsets[1:], at.content.vectors)
    vectors = embed_pins(network, at.content.vectors)
    vectors[without_content(at.content.vectors)] = 0
    owner = np.searchsorted(at.users, lines.users)
    out = np.zeros((len(at.users), K), np.int64)
    out[owner] = at.nearest(users, owner, vectors, at.candidates(vectors))
    return Served(at.past.held, out)


def dcm_serves(network: InterestNetwork, at: AtCut) -> Served:
    """Every implicit interest's nearest pins, the results shared out by weight, in turns."""
    vectors = pin_vectors(network, at.features(network.topics))
    found = embed_users(network, at.histories(vectors, network.config.length))
    mask, weights = found.mask.numpy(), found.weights.numpy()
    owner, slot = np.nonzero(mask)
    nearest = at.nearest(found.vectors.numpy()[owner, slot], owner, vectors, at.candidates(vectors))
    out = np.zeros((len(at.users), K), np.int64)
    for user in range(len(at.users)):
        shares = weights[user, mask[user]]
        heaviest = np.argsort(-shares, kind="stable")
        out[user] = _in_turns(nearest[owner == user][heaviest], weighted_budgets(shares[heaviest], K))
    return Served(at.past.held, out)


def conditional_serves(network: InterestNetwork, at: AtCut, seed: int) -> Served:
    """Nearest pins under a sample of the followed topics, each of pins that carry its topic, in equal shares.

    Only users who followed a topic before the cut are served.
    """
    followed = followed_topics(at.lake, at.cut)
    mine = np.flatnonzero([user in followed for user in at.users.tolist()])
    held = at.past.held.take(mine)
    topics = [sample_followed(followed[user], (seed, user)) for user in held.users.tolist()]
    features = at.features(network.topics)
    vectors = pin_vectors(network, features)
    places = topic_places(_padded(topics), network.topics)  # (U, FOLLOWED)
    row, slot = np.nonzero(places)
    queries = np.zeros((len(held), *places.shape[1:], network.config.dim), np.float32)
    if len(row):
        with torch.inference_mode():
            fields = network.user.fields(at.histories(vectors, network.config.length))
            found = network.users_given_topics(fields[torch.from_numpy(mine)], torch.from_numpy(places))
        queries = found.vectors.numpy()
    candidates = at.candidates(vectors)
    nearest = np.zeros((len(row), K), np.int64)
    for place in np.unique(places[row, slot]).tolist():
        asked = np.flatnonzero(places[row, slot] == place)
        carrying = candidates[(features.topics[candidates] == place).any(axis=1)]
        nearest[asked] = at.nearest(queries[row[asked], slot[asked]], mine[row[asked]], vectors, carrying)
    out = np.zeros((len(held), K), np.int64)
    for user in range(len(held)):
        lists = nearest[row == user]
        out[user] = _in_turns(lists, weighted_budgets(np.ones(len(lists)), K))
    return Served(held, out)


def two_tower_serves(network: TwoTower, at: AtCut) -> Served:
    """Nearest pins, as they performed until the cut, to each user's vector."""
    vectors = two_tower_pins_of(network, at.features(network.topics))
    users = user_vectors(network, at.histories(at.content.vectors, network.config.length))
    everyone = np.arange(len(at.users))
    return Served(at.past.held, at.nearest(users, everyone, vectors, at.candidates(vectors)))


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


def _in_turns(lists: Ints, budgets: Ints) -> Ints:
    """Each list's first pins, as many as its budget, best of all first, zero-padded, (K,)."""
    pins, _ = round_robin([found[:budget] for found, budget in zip(lists, budgets, strict=True)])
    return np.pad(pins[:K], (0, K - len(pins[:K])))


def _padded(topics: list[Ints]) -> Ints:
    """(U, most topics of a user) ids, zero-padded."""
    out = np.zeros((len(topics), max((len(found) for found in topics), default=0)), np.int64)
    for row, found in zip(out, topics, strict=True):
        row[: len(found)] = found
    return out
