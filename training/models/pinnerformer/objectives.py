"""What a position is asked to predict: four objectives over one compiled walk (paper, section 3.3).

    next action        the newest token predicts the next positive
    SASRec             every token predicts its next positive
    all action         the newest token predicts up to `positions` positives of the next K days
    dense all action   random tokens each predict one random positive of the K days after them

A positive that is a label of a token lies strictly later in time. With `first_ms` of a label the time of the
user's first action on that pin, labels are new to the user: a pin already acted on at or before the token is
never asked for. Negative actions are tokens, never labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

ANY_TIME = np.int64(2**62)
"""Horizon of the objectives that take the next positive however late it comes."""


class Objective(StrEnum):
    NEXT_ACTION = "next action"
    SASREC = "sasrec"
    ALL_ACTION = "all action"
    DENSE_ALL_ACTION = "dense all action"

    @property
    def newest_only(self) -> bool:
        """Whether only the newest token predicts."""
        return self in (Objective.NEXT_ACTION, Objective.ALL_ACTION)

    @property
    def horizon_bound(self) -> bool:
        """Whether labels are those of the next K days."""
        return self in (Objective.ALL_ACTION, Objective.DENSE_ALL_ACTION)


@dataclass(frozen=True)
class Labels:
    """Positive actions of many users by user, each user's oldest first; parallel arrays."""

    offsets: Ints  # (U + 1,)
    pin_rows: NDArray[np.int32]  # (l,)
    times_ms: Ints  # (l,)
    first_ms: Ints  # (l,) the user's first action on that pin, or `times_ms` where any label will do


@dataclass(frozen=True)
class Targets:
    """Pairs to learn: sequence `owners[i]` at its token `positions[i]` predicts label `labels[i]`."""

    owners: Ints  # (n,) ascending
    positions: Ints  # (n,) place among the sequence's tokens, oldest 0
    labels: Ints  # (n,) rows of `Labels`


def targets(
    objective: Objective,
    times_ms: Ints,
    users: Ints,
    starts: Ints,
    ends: Ints,
    labels: Labels,
    *,
    horizon_ms: int,
    positions: int,
    rng: np.random.Generator,
) -> Targets:
    """Pairs of a batch of sequences: sequence b is [starts[b], ends[b]) of `times_ms`, of user `users[b]`.

    `positions` bounds the pairs a sequence gives (SASRec takes every token). Tokens without a label give none.
    """
    horizon = np.int64(horizon_ms) if objective.horizon_bound else ANY_TIME
    width = int((ends - starts).max(initial=0))
    draws = rng.random((len(users), 2, max(width, positions)))
    code = list(Objective).index(objective)
    found = _walk(
        code,
        times_ms,
        users,
        starts,
        ends,
        labels.offsets,
        labels.times_ms,
        labels.first_ms,
        horizon,
        positions,
        draws,
    )
    return Targets(*found)


def last_with_label(times_ms: Ints, offsets: Ints, labels: Labels) -> Ints:
    """For each user the end (exclusive, a row of `times_ms`) of the actions that some label follows, (U,).

    Every token before it has a later positive; `offsets[u]` where the user has none.
    """
    ends = offsets[:-1].copy()
    for user in np.flatnonzero(labels.offsets[1:] > labels.offsets[:-1]):
        # the latest start of a label: any token before its pin was first acted on may predict it
        latest = labels.first_ms[labels.offsets[user] : labels.offsets[user + 1]].max()
        ends[user] += np.searchsorted(times_ms[offsets[user] : offsets[user + 1]], latest)
    return ends


@numba.njit(cache=True, nogil=True)
def _walk(
    objective,
    times,
    users,
    starts,
    ends,
    offsets,
    label_times,
    first,
    horizon,
    positions,
    draws,
):
    capacity = 0
    for b in range(len(users)):
        capacity += max(positions, ends[b] - starts[b])
    owners = np.empty(capacity, np.int64)
    at = np.empty(capacity, np.int64)
    chosen = np.empty(capacity, np.int64)
    n = 0
    for b in range(len(users)):
        length = ends[b] - starts[b]
        low, high = offsets[users[b]], offsets[users[b] + 1]
        if length == 0 or low == high:
            continue
        order = np.arange(length)
        count = length
        if objective == 0 or objective == 2:  # the newest token only
            order[0] = length - 1
            count = 1
        elif objective == 3 and length > positions:  # a part of a Fisher-Yates shuffle
            count = positions
            for i in range(count):
                j = i + int(draws[b, 0, i] * (length - i))
                order[i], order[j] = order[j], order[i]
        for i in range(count):
            now = times[starts[b] + order[i]]
            begin = low + np.searchsorted(label_times[low:high], now, side="right")
            stop = high
            if horizon < ANY_TIME:
                stop = low + np.searchsorted(label_times[low:high], now + horizon, side="right")
            valid = 0
            for label in range(begin, stop):
                if first[label] > now:
                    valid += 1
                    if objective < 2:
                        break
            if valid == 0:
                continue
            # selection sampling: `take` of the valid labels, each subset equally likely
            take = min(valid, positions) if objective == 2 else 1
            left = valid
            for label in range(begin, stop):
                if take == 0:
                    break
                if first[label] <= now:
                    continue
                if objective == 3:
                    # one draw decides which of the valid ones it is
                    wanted = valid - left == int(draws[b, 1, i] * valid)
                elif objective == 2:
                    k = valid - left
                    wanted = _hashed(draws[b, 1, k % draws.shape[2]], k) * left < take
                else:
                    wanted = True
                left -= 1
                if wanted:
                    owners[n], at[n], chosen[n] = b, order[i], label
                    n += 1
                    take -= 1
    return owners[:n], at[:n], chosen[:n]


@numba.njit(cache=True, nogil=True)
def _hashed(draw, k):
    """`draw` for the first round over the draws, and a fresh fraction of it for later rounds."""
    return (draw + k * 0.6180339887498949) % 1.0
