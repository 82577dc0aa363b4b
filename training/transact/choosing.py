"""Which of a user's tokens each training row is met with, V2: what serving selects at the row's time.

The sequence is cut at the row, the history at the midnight before it, as the daily batch does
(`feature_repo.history`); rows of one user and one time share both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.history import behind, midnight_ms, whole_seconds
from training.models.transact.config import Lifelong
from training.models.transact.lifelong import select

if TYPE_CHECKING:
    from training.transact.examples import Examples

Ints = NDArray[np.int64]

NOTHING = -1
"""Source of a place without a token. Rows of the log are their own sources, impression i is NOTHING - 1 - i."""


def choose(examples: Examples, rows: Ints, settings: Lifelong) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(sources, ranks) of `rows`, (n, S) int32 each, newest first; ranks as `select` counts them."""
    out = np.full((len(rows), settings.tokens), NOTHING, np.int32)
    ranks = np.zeros((len(rows), settings.tokens), np.int32)
    if len(rows) == 0:
        return out, ranks
    users, until = examples.user_ids[rows], examples.request_ms[rows]
    as_of = midnight_ms(until) if examples.as_of_ms is None else examples.as_of_ms[rows]
    order = np.lexsort((as_of, until, users))
    keys = np.stack([users, until, as_of])[:, order]
    starts = np.flatnonzero(np.append(True, (np.diff(keys) != 0).any(axis=0)))
    first, log = order[starts], examples.log
    now = np.stack(log.slice(users[first], until[first], settings.realtime), axis=1)
    past = np.stack(log.slice(users[first], as_of[first], settings.length), axis=1)
    seen = None if examples.shown is None else examples.shown.newest(users[first], as_of[first])
    for g, own in enumerate(np.split(order, starts[1:])):
        acted, times = _actions(log.timestamps_ms, now[g], past[g])
        shown = np.zeros(0, np.int64) if seen is None else seen[g][seen[g] >= 0]
        shown_ms = shown if examples.shown is None else whole_seconds(examples.shown.times_ms[shown])
        places, of = select(
            settings,
            examples.bytes[examples.log_places[acted]],
            times,
            examples.bytes[examples.shown_places[shown]],
            shown_ms,
            examples.bytes[examples.candidates[rows[own]]],
        )
        sources = np.concatenate([acted, NOTHING - 1 - shown, [NOTHING]])
        out[own], ranks[own] = sources[places], of  # place -1 is the last: nothing
    return out, ranks


def _actions(times_ms: Ints, now: Ints, past: Ints) -> tuple[Ints, Ints]:
    """Rows of the log, realtime ones first, each part newest first, and their times; `now` and `past` are the
    (start, end) of the sequence and of the history."""
    sequence, history = (np.arange(end - 1, start - 1, -1) for start, end in (now, past))
    history = history[behind(times_ms[history], times_ms[sequence]) :]
    times = np.concatenate([times_ms[sequence], whole_seconds(times_ms[history])])
    return np.concatenate([sequence, history]), times
