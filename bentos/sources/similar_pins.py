"""Pins near one pin, or near the newest pins of one board, in the release's pin space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bentos.candidates import Candidates
from bentos.features import Ints
from bentos.sources.popular_by_topic import from_topics

if TYPE_CHECKING:
    from bentos.feed import Feed

NAME = "similar_pins"
NEIGHBOURS = 300
BOARD_PINS = 3
"""Newest pins of a board that are searched from."""


def candidates(feed: Feed) -> Candidates:
    """Nearest pins first, scored by inner product, anchored to the pin they are near; a board's take turns.

    In the content space that is the cosine; PinSage's rows are near unit, so there it nearly is.

    What has no vector (no text, no picture, or made a moment ago) is answered from its topics' popular pins,
    and `feed.fallback` says so.
    """
    release = feed.release
    known_pins = subject_pins(feed)
    asked = known_pins[:BOARD_PINS]
    vectors, present = release.vectors(asked, release.pin_space)
    known = present & vectors.any(axis=1)
    index = release.indexes.get(release.pin_space) if release.pin_space else None
    if index is None or not known.any():
        subject = "pin" if feed.pin_id else "board"
        feed.fallback = f"{subject} has no vector: popular pins of its topics"
        return popular_of_topics(feed)
    hits = index.search(vectors[known], min(NEIGHBOURS // int(known.sum()) + 1, max(index.rows, 1)))
    turns = np.arange(hits.ids.size).reshape(hits.ids.shape).T.ravel()  # every pin's nearest first
    anchors = np.repeat(asked[known], hits.ids.shape[1])
    found = Candidates.of(NAME, hits.ids.ravel()[turns], hits.scores.ravel()[turns], anchors[turns], "similar")
    return found.take(~np.isin(found.pin_ids, known_pins))


def popular_of_topics(feed: Feed) -> Candidates:
    """Popular pins of the topics of the pin, or of the board's newest; of the whole catalogue without any."""
    asked = subject_pins(feed)[:BOARD_PINS]
    topics = np.unique(feed.release.features.pins(asked).topics) if len(asked) else np.zeros(1, np.int64)
    return from_topics(NAME, feed, topics[topics > 0].tolist() or [0], "popular")


def subject_pins(feed: Feed) -> Ints:
    """The pin asked about; or all the board's pins that are known, the newest of the features first."""
    if feed.pin_id:
        return np.array([feed.pin_id], np.int64)
    newest = feed.release.features.boards([feed.board_id]).get(feed.board_id, np.empty(0, np.int64))
    walker = feed.release.walker
    return newest if walker is None else np.append(newest, walker.pins_of_board(feed.board_id))
