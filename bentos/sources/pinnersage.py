"""PinnerSage: neighbours of a few medoids of the user's interests.

Batch interests cover whole days before today, the online run the last actions of today; both lie in the same
space, so one list of medoids is drawn from by importance (KDD 2020, section 5) and searched in one call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bentos.candidates import KINDS, Candidates
from bentos.features import Ints
from feature_repo.vectors.index import Hits
from training.models.light_kernels import rows_among
from training.models.pinnersage import History, Interests, merge_interests, recent_interests, sample_medoids

if TYPE_CHECKING:
    from bentos.feed import Feed

NAME = "pinnersage"
PER_MEDOID = 160
"""Neighbours searched per medoid: past the budget, since filters will take some."""
NEAR = 0.5
"""Share of the nearest neighbour's score below which a pin is no neighbour: in a small catalogue the nearest
160 reach far past the interest, and a reason that names it would be untrue."""
MS_PER_DAY = 86_400_000


def candidates(feed: Feed) -> Candidates:
    """Neighbours of up to `sampled` medoids, in turns; nothing for a user without interests.

    Scores are inner products: cosines in the content space, nearly so in PinSage's, whose rows are near unit.
    Anchors are the medoid pins; the kind is `recent` for a medoid of today's actions.
    """
    release = feed.release
    config = release.pinnersage
    index = release.indexes.get(release.pin_space) if release.pin_space else None
    if config is None or index is None:
        return Candidates.none()
    today = recent_interests(todays_history(feed), feed.now_ms, config)
    batch = feed.user.interests if len(feed.user.interests) else Interests.none(index.dim)
    age_days = max(feed.now_ms - feed.user.interests_ms, 0) / MS_PER_DAY if feed.user.interests_ms else 0.0
    interests = merge_interests(batch, today, age_days, config.decay_per_day)
    drawn = with_newest(interests, today, sample_medoids(interests, config.sampled, seed=feed.seed))
    if len(drawn) == 0:
        return Candidates.none()
    hits = index.search(interests.vectors[drawn], min(PER_MEDOID, max(index.rows, 1)))
    hits = neighbours(hits, interests.medoid_pin_ids[drawn])
    order = np.arange(hits.ids.size).reshape(hits.ids.shape).T.ravel()  # in turns: every medoid's nearest first
    anchors = np.repeat(interests.medoid_pin_ids[drawn], hits.ids.shape[1])
    recent = rows_among(anchors, today.medoid_pin_ids) < len(today)
    kinds = np.where(recent, KINDS.code("recent"), KINDS.code("interest"))
    return Candidates.of(
        NAME, hits.ids.ravel()[order], hits.scores.ravel()[order], anchors[order], kinds[order]
    )


def neighbours(hits: Hits, medoids: Ints) -> Hits:
    """`hits` (q, k) without the medoids themselves and without what lies far from them (padding instead)."""
    near = hits.ids != medoids[:, None]
    nearest = np.where(near, hits.scores, -np.inf).max(axis=1, keepdims=True)
    near &= hits.scores >= NEAR * np.maximum(nearest, 0.0)
    return Hits(np.where(near, hits.ids, 0), hits.scores)


def todays_history(feed: Feed) -> History:
    """The user's positive actions of the current UTC day on pins that have a vector."""
    sequence = feed.user.sequence
    rows = feed.positive_rows()
    midnight = feed.now_ms - feed.now_ms % MS_PER_DAY
    rows = rows[sequence.timestamps_ms[rows] >= midnight]
    ids = sequence.pin_ids[rows]
    vectors, present = feed.release.vectors(ids, feed.release.pin_space)
    present &= vectors.any(axis=1)
    return History(ids[present], vectors[present], sequence.timestamps_ms[rows][present])


def with_newest(interests: Interests, today: Interests, drawn: np.ndarray) -> np.ndarray:
    """The draw, with the heaviest medoid of today in the last place if the draw missed all of today's.

    A user who has just shown an interest sees it in the very next answer, whatever the draw.
    """
    if len(today) == 0 or np.isin(interests.medoid_pin_ids[drawn], today.medoid_pin_ids).any():
        return drawn
    place = np.flatnonzero(interests.medoid_pin_ids == today.medoid_pin_ids[0])
    return np.append(drawn[:-1], place)
