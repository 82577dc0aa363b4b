"""From a feed to the ranker's scores: the same assembly that training uses, on arrays already read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bentos.features import Floats, Ints, PinTable
from training.models.interactions import Pins, request_interactions

if TYPE_CHECKING:
    from bentos.feed import Feed


class NoRanker(RuntimeError):
    """The release has no ranker, or this process did not load it."""


def score(feed: Feed) -> Floats:
    """The ranker's probabilities for `feed.candidates`, (n, H) float32, uncalibrated. Raises NoRanker."""
    ranker = feed.release.ranker
    if ranker is None:
        raise NoRanker(f"release {feed.release.version} has no ranker; its manifest says why under `skipped`")
    return ranker.score_heads(assemble(feed))


def assemble(feed: Feed) -> Floats:
    """The ranker's rows for `feed.candidates`, (n, len(spec.names)) float32."""
    release, sequence = feed.release, feed.user.sequence
    if release.ranker is None:
        raise NoRanker(f"release {release.version} has no ranker")
    rows = feed.pins.rows(feed.candidates.pin_ids)
    interactions = request_interactions(
        history=_pins(feed.pins, feed.pins.rows(sequence.pin_ids)),
        actions=sequence.actions,
        times_ms=sequence.timestamps_ms,
        candidates=_pins(feed.pins, rows),
        # A copy: numba compiles once more, for a second, when it meets a read-only array.
        followed_topics=np.array(feed.user.followed_topics, np.int64),
        request_ms=feed.now_ms,
        signs=release.signs,
    )
    return release.ranker.spec.assemble(feed.user.scalars, feed.pins.stats.scalars[rows], interactions)


def _pins(table: PinTable, rows: Ints) -> Pins:
    stats = table.stats
    return Pins(table.ids[rows], table.vectors[rows], stats.topics[rows], stats.created_at_ms[rows])
