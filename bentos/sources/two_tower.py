"""The two-tower as a source: the pins whose product with the user is largest (Pinterest Engineering, 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentos import light_scores
from bentos.candidates import Candidates
from bentos.networks import Learned

if TYPE_CHECKING:
    from bentos.feed import Feed

NAME = Learned.TWO_TOWER.value
CANDIDATES = 600


def candidates(feed: Feed) -> Candidates:
    """The pins nearest to the user, nearest first; scores are cosines, there is no anchor. None for a stranger.

    A user without actions is retrieved for by country and language.
    """
    index = feed.release.index_of(NAME)
    if index is None or feed.release.networks.two_tower is None or not feed.user.known:
        return Candidates.none()
    vector = light_scores.user_vector(feed)
    hits = index.search(vector[None], min(CANDIDATES, max(index.rows, 1)))
    return Candidates.of(NAME, hits.ids[0], hits.scores[0], 0, "taste")
