"""From a feed to the ranker's scores: the same assembly that training uses, on arrays already read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bentos.breaker import PartAbsent
from bentos.features import Floats, Ints, PinTable
from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from training.models.interactions import INTERACTION_FEATURES, Pins, request_interactions
from training.models.light_kernels import rows_among
from training.models.pinnability import PIN_PREFIX, USER_PREFIX
from training.models.query_features import QUERY_FEATURES, query_features
from training.models.ranker import Candidates, Ranker, Request

if TYPE_CHECKING:
    from bentos.feed import Feed


class NoRanker(PartAbsent):
    """The release has no ranker, or this process did not load it."""


def score_heads(feed: Feed) -> Floats:
    """The ranker's raw scores of `feed.candidates`, (n, H) float32 in the order of `ranker.heads`.
    Raises NoRanker."""
    return _ranker(feed).score_heads(*inputs(feed))


def inputs(feed: Feed) -> tuple[Request, Candidates]:
    """What the ranker reads of the feed: its user with their sequence, and `feed.candidates`."""
    ranker, sequence, table = _ranker(feed), feed.user.sequence, feed.pins
    rows, history = table.rows(feed.candidates.pin_ids), table.rows(sequence.pin_ids)
    request = Request(
        history=table.vectors[history],
        actions=sequence.actions.astype(np.int64),
        surfaces=sequence.surfaces.astype(np.int64),
        times_ms=sequence.timestamps_ms,
        request_ms=feed.now_ms,
        user=_user_vector(feed, ranker),
        past=feed.past,
    )
    features = ranker.spec.assemble(
        feed.user.scalars, table.stats.scalars[rows], meetings(feed), query=asked(feed)
    )
    return request, Candidates(table.vectors[rows], features)


FEATURES = (
    *(USER_PREFIX + name for name in USER_SCALARS),
    *(PIN_PREFIX + name for name in PIN_SCALARS),
    *INTERACTION_FEATURES,
    *QUERY_FEATURES,
)
"""What any ranker may read of a request and a candidate, named as in training rows."""


@dataclass(frozen=True)
class Depth:
    """How far back a ranking read its user's actions. Messages and the log name these fields alike."""

    sequence_length: int
    """Actions in the user's sequence, before the request."""
    sequence_newest_ms: int
    """Unix ms of the newest of them, 0 for none."""
    history_as_of_ms: int
    """Midnight of the user's history, Unix ms; 0 where none was read."""
    history_length: int
    """Actions of that history."""
    history_shown: int
    """Impressions of that history."""


@dataclass(frozen=True)
class Seen:
    """What a ranking read of its user and of n pins."""

    pin_ids: Ints  # (n,)
    values: Floats  # (n, len(features)), NaN where user or pin are not known
    depth: Depth
    features: tuple[str, ...] = FEATURES
    """Other ones where another version of this code read them."""

    def of(self, pin_ids: Ints) -> Floats:
        """Rows of `pin_ids`, (m, len(features)), all of them read here."""
        return self.values[rows_among(pin_ids, self.pin_ids)]


def seen(feed: Feed) -> Seen:
    """What this process read of the feed's user and of `feed.candidates`."""
    sequence, history = feed.user.sequence.before(feed.now_ms), feed.user.history
    depth = Depth(
        sequence_length=len(sequence),
        sequence_newest_ms=sequence.newest_ms,
        history_as_of_ms=history.as_of_ms,
        history_length=len(history.pin_ids),
        history_shown=len(history.shown_pin_ids),
    )
    return Seen(feed.candidates.pin_ids, _values(feed), depth)


def _values(feed: Feed) -> Floats:
    rows, stats = feed.pins.rows(feed.candidates.pin_ids), feed.pins.stats
    pins = np.where(stats.present[rows, None], stats.scalars[rows], np.float32(np.nan))
    user = feed.user.scalars if feed.user.known else np.full(len(USER_SCALARS), np.nan, np.float32)
    users = np.broadcast_to(user, (len(rows), len(USER_SCALARS)))
    return np.hstack([users, pins, meetings(feed), asked(feed)], dtype=np.float32)


def meetings(feed: Feed) -> Floats:
    """INTERACTION_FEATURES of the user meeting each of `feed.candidates`, (n, I) float32."""
    sequence, table = feed.user.sequence, feed.pins
    history = table.rows(sequence.pin_ids)
    return request_interactions(
        history=_pins(table, history),
        actions=sequence.actions,
        times_ms=sequence.timestamps_ms,
        candidates=_pins(table, table.rows(feed.candidates.pin_ids)),
        # A copy: numba compiles once more, for a second, when it meets a read-only array.
        followed_topics=np.array(feed.user.followed_topics, np.int64),
        request_ms=feed.now_ms,
        signs=feed.release.signs,
        known=table.stats.present[history] | table.vectors[history].any(axis=1),
    )


def asked(feed: Feed) -> Floats:
    """QUERY_FEATURES of the request and each of `feed.candidates`, (n, Q) float32."""
    return query_features(feed.release.lexical, feed.query, feed.surface.value, feed.candidates.pin_ids)


def _ranker(feed: Feed) -> Ranker:
    if feed.release.ranker is None:
        raise NoRanker(f"release {feed.release.version} has no ranker; its manifest says why under `skipped`")
    return feed.release.ranker


def _user_vector(feed: Feed, ranker: Ranker) -> Floats:
    """Last night's vector, as training reads the last midnight's; zeros where there is none."""
    stored = feed.user.vectors.get(ranker.user_space or "")
    return np.zeros(ranker.user_dim, np.float32) if stored is None else stored.vector


def _pins(table: PinTable, rows: Ints) -> Pins:
    stats = table.stats
    return Pins(table.ids[rows], table.vectors[rows], stats.topics[rows], stats.created_at_ms[rows])
