"""Pins that say the words of a query: BM25, with mistyped words read as their nearest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentos.candidates import Candidates

if TYPE_CHECKING:
    from bentos.feed import Feed

NAME = "lexical"
CANDIDATES = 300


def candidates(feed: Feed) -> Candidates:
    """The best by BM25, which scores are; nothing where no word of the query is the catalogue's."""
    index = feed.release.lexical
    if index is None:
        return Candidates.none()
    pin_ids, scores = index.search(feed.query, CANDIDATES)
    return Candidates.of(NAME, pin_ids, scores, 0, "words")
