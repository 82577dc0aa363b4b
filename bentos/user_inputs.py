"""A user of a request as the networks read one: what training reads of the action log, from the live sequence.

`tests/bentos/test_user_inputs.py` holds the two to the same vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bentos.features import Floats, Ints

if TYPE_CHECKING:
    from bentos.feed import Feed
    from training.models.interests import Acts, Histories
    from training.models.pinnerformer import ActionArrays


def as_of_ms(feed: Feed) -> int:
    """Just after everything the user did: an action that a fast clock dated ahead has still happened."""
    return max(feed.now_ms, feed.user.sequence.newest_ms + 1)


def histories(feed: Feed, space: str | None, length: int) -> Histories:
    """The user's newest `length` actions by the vectors of their pins in `space`, and the profile (b = 1).

    DCM and conditional retrieval read pins in their own space, the two-tower in the content space. A pin that
    the space does not know is no item.
    """
    return acts_of(feed).history(feed.release.vectors(feed.user.sequence.pin_ids[:length], space)[0])


def acts_of(feed: Feed) -> Acts:
    """The user's actions and profile, as every network's history of a request has them: made once."""
    from training.models.interests import Acts, profile_codes

    user, found = feed.user, feed.acts
    if found is None or found[0] is not user:
        sequence = user.sequence
        made = Acts.of(
            feed.release.signs[sequence.actions],
            sequence.timestamps_ms,
            as_of_ms(feed),
            profile_codes([user.country, user.language]),
        )
        found = feed.acts = user, made
    return found[1]


def liked(feed: Feed, space: str | None) -> tuple[Ints, Floats]:
    """Pins (n,) of the user's positive actions, newest first, and their vectors (n, d) in `space`; unknown
    pins are left out."""
    ids = feed.user.sequence.pin_ids[feed.positive_rows()]
    vectors, present = feed.release.vectors(ids, space)
    present = present & vectors.any(axis=1)
    return ids[present], vectors[present]


def timeline(feed: Feed) -> tuple[ActionArrays, Floats]:
    """The user's actions as PinnerFormer reads them, oldest first, with the content vectors of their pins.

    A pin without a vector is a token without one. The sequence must not be empty.
    """
    from training.models.pinnerformer import ActionArrays

    sequence = feed.user.sequence
    ids, places = np.unique(sequence.pin_ids[::-1], return_inverse=True)
    content, present = feed.release.vectors(ids, feed.release.space)
    known = present & content.any(axis=1)
    arrays = ActionArrays(
        pin_rows=np.where(known[places], places, -1).astype(np.int32),
        actions=sequence.actions[::-1].astype(np.int8),
        surfaces=sequence.surfaces[::-1].astype(np.int8),
        durations_s=sequence.durations_s[::-1].astype(np.float32),
        times_ms=sequence.timestamps_ms[::-1].astype(np.int64),
    )
    return arrays, content
