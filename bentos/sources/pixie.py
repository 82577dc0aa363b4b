"""Pixie: pins that stand on boards with the user's, by random walks on the pin-board graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentos.candidates import Candidates

if TYPE_CHECKING:
    from bentos.feed import Feed

NAME = "pixie"
CANDIDATES = 600


def candidates(feed: Feed) -> Candidates:
    """The pins most visited from the user's last actions, weighted by action and age; scores are visits.

    Nothing for a user without actions on pins of the graph. Walks are seeded by the request.
    """
    walker = feed.release.walker
    if walker is None:
        return Candidates.none()
    pixie, done = walker.now(), feed.user.sequence
    query = walker.settings.query(done.pin_ids, done.actions, done.timestamps_ms, feed.now_ms, walker.weights)
    if len(query) == 0:
        return Candidates.none()
    bias = walker.settings.bias(pixie.graph, feed.user.language)
    found = pixie.recommend(query, CANDIDATES, seed=feed.seed, bias=bias)
    return Candidates.of(NAME, found.pin_ids, found.scores, 0, "together")
