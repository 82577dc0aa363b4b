"""PinnerFormer: neighbours of the one vector that foretells what the user does in the next weeks (KDD 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bentos.candidates import Candidates
from bentos.features import Floats
from bentos.networks import Learned
from bentos.user_inputs import timeline

if TYPE_CHECKING:
    from bentos.feed import Feed

NAME = Learned.PINNERFORMER.value
CANDIDATES = 600


def candidates(feed: Feed) -> Candidates:
    """The pins nearest to the user's vector, nearest first; scores are cosines, there is no anchor.

    Nothing for a user of whom neither a vector nor an action is known.
    """
    index = feed.release.index_of(NAME)
    vector = user_vector(feed) if index is not None else None
    if index is None or vector is None:
        return Candidates.none()
    hits = index.search(vector[None], min(CANDIDATES, max(index.rows, 1)))
    return Candidates.of(NAME, hits.ids[0], hits.scores[0], 0, "next")


def user_vector(feed: Feed) -> Floats | None:
    """Last night's vector (d,); one made now where the user did something since, or had no vector then.

    The sequence holds the last 100 actions, the nightly run reads up to 256: a vector that knows this morning
    is worth more than one that knows last spring (the paper's table 2, and its gains by length).
    """
    network, sequence = feed.release.networks.pinnerformer, feed.user.sequence
    stored = feed.user.vectors.get(feed.release.space_of(NAME) or "")
    if stored is not None and sequence.newest_ms < stored.as_of_ms:
        return stored.vector
    # A network with an id embedding needs the catalogue it was trained on, which only the nightly run has.
    if network is None or network.id_embedding is not None or len(sequence) == 0:
        return stored.vector if stored is not None else None
    from training.models.pinnerformer import Precision, embed_users

    arrays, content = timeline(feed)
    ends = np.array([len(arrays)])
    return embed_users(network, arrays, np.zeros(1, np.int64), ends, content, precision=Precision.FLOAT32)[0]
