"""Conditional retrieval: the user under each of a few followed topics (arXiv 2506.23060 and 2508.16793)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bentos.candidates import Candidates
from bentos.networks import Learned
from bentos.turns import in_turns
from bentos.user_inputs import histories
from feature_repo.vectors.index import Filter, Hits

if TYPE_CHECKING:
    from bentos.feed import Feed
    from training.models.interests import UserEmbeddings

NAME = Learned.CONDITIONAL.value
CANDIDATES = 300
"""Pins of all topics together: what a single embedding would be searched for."""


def candidates(feed: Feed) -> Candidates:
    """For each drawn topic, the pins that carry it nearest to the user under it: equal shares, in turns.

    Scores are cosines in the model's space; anchors are topics. Nothing for a user who follows no topic that
    the model knows.
    """
    index = feed.release.index_of(NAME)
    found = under_topics(feed)
    if index is None or found is None or len(found) == 0:
        return Candidates.none()
    from training.models.interests import equal_budgets

    shares = equal_budgets(len(found), CANDIDATES)
    most = min(int(shares.max()), max(index.rows, 1))
    lists = [
        index.search(vector[None], most, flt=Filter(topics=(topic,)))
        for vector, topic in zip(found.vectors, found.topics.tolist(), strict=True)
    ]
    hits = Hits(np.concatenate([h.ids for h in lists]), np.concatenate([h.scores for h in lists]))
    dealt = in_turns(hits, shares)
    return Candidates.of(NAME, dealt.pin_ids, dealt.scores, found.topics[dealt.owners], "topic")


def under_topics(feed: Feed) -> UserEmbeddings | None:
    """The user under at most five followed topics, drawn by the request; None without any to draw from."""
    network = feed.release.networks.conditional
    if network is None:
        return None
    from training.models.interests import sample_followed, topic_embeddings, topic_places

    followed = feed.user.followed_topics
    followed = followed[topic_places(followed, network.topics) > 0]
    if len(followed) == 0:
        return None
    drawn = sample_followed(followed, (feed.user_id, feed.seed))
    seen = histories(feed, feed.release.space_of(NAME), network.config.length)
    return topic_embeddings(network, seen, drawn)
