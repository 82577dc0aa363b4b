"""Pins near one pin in the content space: related pins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bentos.candidates import Candidates
from bentos.sources.popular_by_topic import from_topics

if TYPE_CHECKING:
    from bentos.feed import Feed

NAME = "content_neighbours"
NEIGHBOURS = 300


def candidates(feed: Feed) -> Candidates:
    """Nearest pins first, scored by cosine, anchored to the pin.

    A pin without a vector (no text, no picture, or made a moment ago) is answered from its topics' popular
    pins, and `feed.fallback` says so.
    """
    release = feed.release
    asked = np.array([feed.pin_id], np.int64)
    vectors, _ = release.vectors(asked)
    index = release.indexes.get(release.space) if release.space else None
    if index is None or not vectors.any():
        feed.fallback = "pin has no vector: popular pins of its topics"
        topics = release.features.pins(asked).topics[0]
        return from_topics(NAME, feed, topics[topics > 0].tolist() or [0], "popular")
    hits = index.search(vectors, min(NEIGHBOURS + 1, max(index.rows, 1)))
    return Candidates.of(NAME, hits.ids[0], hits.scores[0], feed.pin_id, "similar")
