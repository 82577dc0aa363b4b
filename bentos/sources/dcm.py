"""DCM: neighbours of the user's implicit interests, each with its share of one budget (arXiv 2506.23060)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bentos.candidates import KINDS, Candidates
from bentos.features import Floats, Ints
from bentos.networks import Learned
from bentos.sources.pinnersage import NEAR
from bentos.turns import in_turns
from bentos.user_inputs import histories, liked

if TYPE_CHECKING:
    from bentos.feed import Feed
    from training.models.interests import UserEmbeddings

NAME = Learned.DCM.value
CANDIDATES = 600
"""Pins of all interests together: what a single embedding would be searched for."""


def candidates(feed: Feed) -> Candidates:
    """Neighbours of every interest, as many as it weighs, in turns; scores are cosines in the model's space.

    The anchor is the pin of the user's history nearest to the interest; what lies far from the interest has
    none, and the kind `taste`. A user without positive actions has one interest, of the profile alone, without
    an anchor; a stranger has none.
    """
    index = feed.release.index_of(NAME)
    found = user_interests(feed) if index is not None else None
    if index is None or found is None:
        return Candidates.none()
    from training.models.interests import weighted_budgets

    shares = weighted_budgets(found.weights, CANDIDATES)
    hits = index.search(found.vectors, min(int(shares.max()), max(index.rows, 1)))
    dealt = in_turns(hits, shares)
    anchors = nearest_liked(feed, found.vectors)[dealt.owners]
    anchors[dealt.scores < NEAR * hits.scores[dealt.owners, 0]] = 0
    kinds = np.where(anchors > 0, KINDS.code("interest"), KINDS.code("taste"))
    return Candidates.of(NAME, dealt.pin_ids, dealt.scores, anchors, kinds)


def user_interests(feed: Feed) -> UserEmbeddings | None:
    """The user's interests as of now, heaviest first; None for a stranger and in a process without DCM."""
    network = feed.release.networks.dcm
    if network is None or not feed.user.known:
        return None
    from training.models.interests import user_embeddings

    return user_embeddings(network, histories(feed, feed.release.space_of(NAME), network.config.length))


def nearest_liked(feed: Feed, vectors: Floats) -> Ints:
    """The liked pin nearest to each of `vectors` (K, d), (K,); 0 without any."""
    pins, known = liked(feed, feed.release.space_of(NAME))
    if len(pins) == 0:
        return np.zeros(len(vectors), np.int64)
    return pins[(vectors @ known.T).argmax(axis=1)]
