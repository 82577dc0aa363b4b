"""Filters of the funnel: each says which candidates may stay, (n,) bool. Cheap ones run first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.models.light_kernels import rows_among

if TYPE_CHECKING:
    from bentos.feed import Feed

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

SAME_PIN = 0.995
"""Cosine from which two pins count as one: content vectors of one text with another picture are below it."""

ENOUGH = 1.5
"""Candidates a feed needs, in answers."""


def unseen(feed: Feed) -> Flags:
    """Not on the screen, not acted on lately, not in the user's last answers.

    Where that leaves fewer than ENOUGH answers, pins served longest ago come back: a small catalogue must not
    end the feed, and later filters take some.
    """
    ids = feed.candidates.pin_ids
    acted = feed.user.sequence.pin_ids[feed.positive_rows()]
    blocked = _among(ids, feed.exclude) | _among(ids, acted)
    served = _among(ids, feed.served) & ~blocked
    short = int(ENOUGH * feed.limit) - int((~blocked & ~served).sum())
    if short > 0 and served.any():
        age = {int(pin): place for place, pin in enumerate(feed.served.tolist())}  # the last serving counts
        oldest = sorted(np.flatnonzero(served).tolist(), key=lambda i: age[int(ids[i])])
        served[oldest[:short]] = False
    return ~(blocked | served)


def not_hidden(feed: Feed) -> Flags:
    """Not a pin the user acted on negatively, nor the pin related pins are asked for."""
    negative = feed.user.sequence.pin_ids[feed.negative_rows()]
    hidden = np.append(negative, feed.pin_id) if feed.pin_id else negative
    return ~_among(feed.candidates.pin_ids, hidden)


def distinct(feed: Feed) -> Flags:
    """Not nearly the same as an earlier candidate, as a pin the user hid, or as the pin asked about.

    Near is a cosine of SAME_PIN in the content space; pins without a vector are distinct.
    """
    vectors = feed.pins.vectors[feed.pins.rows(feed.candidates.pin_ids)]  # (n, d)
    hidden = feed.pins.rows(feed.user.sequence.pin_ids)[feed.negative_rows()]
    keep = np.ones(len(vectors), bool)
    if len(hidden):
        against = feed.pins.vectors[hidden]
        keep &= ~((vectors @ against.T) >= SAME_PIN).any(axis=1)
    near = vectors @ vectors.T >= SAME_PIN  # (n, n)
    np.fill_diagonal(near, False)
    for one in np.flatnonzero(near.any(axis=1)).tolist():
        if keep[one]:
            keep[one + 1 :] &= ~near[one, one + 1 :]
    return keep


def _among(ids: Ints, some: Ints) -> Flags:
    """Which of `ids` are among `some`, often none at all."""
    return rows_among(ids, some) < len(some) if len(some) else np.zeros(len(ids), bool)
