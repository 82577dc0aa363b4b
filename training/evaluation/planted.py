"""How well recommendations match what a demo world planted."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from training.data.world_truth import WorldTruth


def interest_share(recommended: np.ndarray, users: np.ndarray, truth: WorldTruth, when: datetime) -> float:
    """Share of recommended pins whose true topic is among the user's planted interests at `when`.

    Parameters
    ----------
    recommended : int64 (U, m), rows for `users`, zero-padded; or (m,) for one list for everybody.
    users : int64 (U,).

    Returns
    -------
    The mean over every pin recommended; NaN when none is. A list drawn blindly scores about (interests a
    user) / (topics of the world).
    """
    rows = np.broadcast_to(np.atleast_2d(recommended), (len(users), np.atleast_2d(recommended).shape[1]))
    interests = truth.interests_at(when)
    held = set(zip(interests["user_id"].tolist(), interests["topic_id"].tolist(), strict=True))
    row, _ = np.nonzero(rows > 0)
    if len(row) == 0:
        return float("nan")
    pins = rows[rows > 0]
    topics = truth.pins["topic_id"].to_numpy()[pins - 1]
    owners = np.asarray(users)[row]
    return float(np.mean([pair in held for pair in zip(owners.tolist(), topics.tolist(), strict=True)]))


def mean_affinity(recommended: np.ndarray, users: np.ndarray, truth: WorldTruth, when: datetime) -> float:
    """Mean planted affinity, 0 to 1, of what each user was recommended; shapes as in `interest_share`."""
    rows = np.broadcast_to(np.atleast_2d(recommended), (len(users), np.atleast_2d(recommended).shape[1]))
    row, _ = np.nonzero(rows > 0)
    if len(row) == 0:
        return float("nan")
    return float(truth.affinity(np.asarray(users)[row], rows[rows > 0], when).mean())
