"""Conditional retrieval: the user under each of a few followed topics (arXiv 2506.23060 and 2508.16793)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bentos.candidates import Candidates
from bentos.features import Ints
from bentos.networks import Learned
from bentos.turns import in_turns
from bentos.user_inputs import histories
from feature_repo.vectors.index import Filter, Hits

if TYPE_CHECKING:
    from bentos.feed import Feed
    from training.models.interests import UserEmbeddings

NAME = Learned.CONDITIONAL.value
CANDIDATES = 600
"""Pins of all topics together: what a single embedding would be searched for."""


def candidates(feed: Feed) -> Candidates:
    """For each drawn topic, the pins that carry it nearest to the user under it: equal shares, in turns.

    Scores are cosines in the model's space; anchors are topics. Nothing for a user who follows no topic that
    the model knows.
    """
    index = feed.release.index_of(NAME)
    found = under_topics(feed) if index is not None else None
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
    """The user under each drawn topic; None without any."""
    network = feed.release.networks.conditional
    drawn = sampled_topics(feed)
    if network is None or len(drawn) == 0:
        return None
    from training.models.interests import topic_embeddings

    seen = histories(feed, feed.release.space_of(NAME), network.config.length)
    return topic_embeddings(network, seen, drawn)


def sampled_topics(feed: Feed) -> Ints:
    """At most five of the followed topics that the model knows, drawn evenly, by the request."""
    network, followed = feed.release.networks.conditional, feed.user.followed_topics
    if network is None or len(followed) == 0:
        return np.empty(0, np.int64)
    from training.models.interests import sample_followed, topic_places

    known = followed[topic_places(followed, network.topics) > 0]
    return sample_followed(known, (feed.user_id, feed.seed))
