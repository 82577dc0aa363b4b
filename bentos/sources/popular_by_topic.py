"""Popular pins: of the topics the user acted on lately, or, of a stranger, across the catalogue's topics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bentos.candidates import Candidates
from bentos.features import rising

if TYPE_CHECKING:
    from bentos.features import Features
    from bentos.feed import Feed

NAME = "popular_by_topic"
OWN_TOPICS = 5
STRANGER_TOPICS = 8
PER_TOPIC = 60
RECENT = 30
"""Newest positive actions whose pins' topics count as the user's own."""
WHOLE_CATALOGUE = 0
"""Topic 0 holds the popular pins of the whole catalogue."""


def candidates(feed: Feed) -> Candidates:
    """Popular pins of each topic in turns, the whole catalogue among them. Scores are popularity."""
    topics = own_topics(feed) or stranger_topics(feed)
    return from_topics(NAME, feed, [WHOLE_CATALOGUE, *topics], "popular")


def of_catalogue(feed: Feed) -> Candidates:
    """All that is popular in the whole catalogue, most popular first."""
    return kept(feed.release.features)


def kept(features: Features) -> Candidates:
    """`of_catalogue` of no request, for a release to keep."""
    ids, scores = features.popular([WHOLE_CATALOGUE]).get(WHOLE_CATALOGUE, ((), ()))
    return Candidates.of(NAME, ids, scores, WHOLE_CATALOGUE, "popular")


def own_topics(feed: Feed) -> list[int]:
    """Topics of the pins of the newest positive actions, most frequent first."""
    ids = feed.user.sequence.pin_ids[feed.positive_rows()[:RECENT]]
    if len(ids) == 0:
        return []
    topics = feed.release.features.pins(rising(ids)).topics
    values, counts = np.unique(topics[topics > 0], return_counts=True)
    return values[np.argsort(-counts, kind="stable")][:OWN_TOPICS].tolist()


def stranger_topics(feed: Feed) -> list[int]:
    """A seeded draw of top-level topics (of all topics where there are no levels)."""
    topics = feed.release.topics.values()
    roots = sorted(t.topic_id for t in topics if t.parent_id == 0) or sorted(t.topic_id for t in topics)
    return feed.drawn(4, np.array(roots, np.int64), STRANGER_TOPICS)


def from_topics(name: str, feed: Feed, topics: Sequence[int], kind: str) -> Candidates:
    """The popular pins of each of `topics`, in turns, anchored to their topic."""
    popular, none = feed.release.features.popular(topics), (np.empty(0, np.int64), np.empty(0, np.float32))
    lists = [popular.get(topic, none) for topic in topics]
    first = [(ids[:PER_TOPIC], scores[:PER_TOPIC]) for ids, scores in lists]
    return Candidates.dealt(name, first, topics, kind)
