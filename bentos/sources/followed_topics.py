"""Popular pins of the topics a user follows (a rule, no model): equal shares for a few drawn topics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentos.candidates import Candidates
from bentos.sources.popular_by_topic import from_topics

if TYPE_CHECKING:
    from bentos.feed import Feed

NAME = "followed_topics"
TOPICS = 5
"""Topics drawn a request, as in conditional retrieval (KDD 2025, section 4)."""


def candidates(feed: Feed) -> Candidates:
    """Each drawn topic's popular pins, in turns. Scores are popularity; anchors are topics."""
    followed = feed.user.followed_topics
    followed = followed[followed > 0]
    if len(followed) == 0:
        return Candidates.none()
    drawn = feed.drawn(3, followed, TOPICS)
    return from_topics(NAME, feed, drawn, "topic")
