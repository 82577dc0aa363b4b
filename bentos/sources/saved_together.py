"""Pins saved together with one pin, or with the pins of one board: walks from it on the pin-board graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentos.candidates import Candidates
from training.models.pixie import pin_query

if TYPE_CHECKING:
    from bentos.feed import Feed

NAME = "saved_together"
CANDIDATES = 300


def candidates(feed: Feed) -> Candidates:
    """The pins most visited from the pin or board asked about; scores are visits, the anchor is the pin.

    Nothing where the graph does not know it. What was saved a moment ago is in the graph.
    """
    walker = feed.release.walker
    if walker is None:
        return Candidates.none()
    pixie = walker.now()
    query = pin_query(feed.pin_id) if feed.pin_id else walker.board_query(feed.board_id, feed.seed)
    found = pixie.recommend(query, CANDIDATES, seed=feed.seed)
    return Candidates.of(NAME, found.pin_ids, found.scores, feed.pin_id, "together")
