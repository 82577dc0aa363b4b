"""Pins near a query in the space its encoder was trained into (SearchSage, Pinterest Engineering 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentos.candidates import Candidates

if TYPE_CHECKING:
    from bentos.feed import Feed

NAME = "searchsage"
CANDIDATES = 300


def candidates(feed: Feed) -> Candidates:
    """Nearest first, scored by inner product. The query is read as it was typed: pieces of words bear a slip.

    Nothing for a query without a letter or digit, or that the encoder does not read: its vector would mean
    nothing.
    """
    queries, index = feed.release.queries, feed.release.index_of(NAME)
    if queries is None or index is None or not any(character.isalnum() for character in feed.query):
        return Candidates.none()
    if not queries.encoder.reads(feed.query):
        return Candidates.none()
    hits = index.search(queries.of(feed.query)[None], min(CANDIDATES, max(index.rows, 1)))
    return Candidates.of(NAME, hits.ids[0], hits.scores[0], 0, "meaning")
