"""What the log of all actions is grouped and cut with, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int64]

SPARSE = 4
"""Ids spread over at most so many times as many numbers as there are rows are counted in a table."""

TOGETHER = 16


def by_user(user_ids: Ints) -> Ints:
    """Rows ordered by user, those of a user as they stood, (n,) int64."""
    if len(user_ids) == 0:
        return np.zeros(0, np.int64)
    first, last = int(user_ids.min()), int(user_ids.max())
    if last - first > SPARSE * len(user_ids):
        return np.argsort(user_ids, kind="stable")
    return _counted(user_ids, first, last - first + 1)


def table_of(users: Ints, rows: int) -> tuple[int, NDArray[np.int32]]:
    """The least id and, for every id from it on, its place in `users` (ascending), -1 for none; an empty table
    where ids lie too far apart for `rows` rows."""
    if len(users) == 0 or users[-1] - users[0] > SPARSE * max(rows, len(users)):
        return 0, np.zeros(0, np.int32)
    table = np.full(int(users[-1] - users[0]) + 1, -1, np.int32)
    table[users - users[0]] = np.arange(len(users), dtype=np.int32)
    return int(users[0]), table


@njit(cache=True)
def _counted(user_ids, first, span):  # type: ignore[no-untyped-def]
    place = np.zeros(span + 1, np.int64)
    for user in user_ids:
        place[user - first + 1] += 1
    for i in range(span):
        place[i + 1] += place[i]
    order = np.empty(len(user_ids), np.int64)
    for row in range(len(user_ids)):
        user = user_ids[row] - first
        order[place[user]] = row
        place[user] += 1
    return order


@njit(cache=True)
def any_repeat(user_ids, event_ids):  # type: ignore[no-untyped-def]
    """Whether a user has an event id twice; rows are grouped by user."""
    start = 0
    for row in range(1, len(user_ids) + 1):
        if row < len(user_ids) and user_ids[row] == user_ids[start]:
            continue
        own = event_ids[start:row]
        rising = True
        for i in range(1, len(own)):
            if own[i] <= own[i - 1]:
                rising = False
                break
        if not rising:
            ordered = np.sort(own)
            for i in range(1, len(ordered)):
                if ordered[i] == ordered[i - 1]:
                    return True
        start = row
    return False


@njit(cache=True)
def cut(users, first, table, offsets, times, user_ids, times_ms, limit):  # type: ignore[no-untyped-def]
    """(start, end) of each user's last `limit` rows before a time; see `SequenceLog.slice`.

    Requests are searched for side by side, each step for all of TOGETHER, and without a branch on what is read:
    then their reads wait for memory at the same time.
    """
    count = len(user_ids)
    start, end = np.empty(count, np.int64), np.empty(count, np.int64)
    low, size, time = np.zeros(TOGETHER, np.int64), np.zeros(TOGETHER, np.int64), np.zeros(TOGETHER, np.int64)
    for at in range(0, count, TOGETHER):
        here, longest = min(TOGETHER, count - at), 0
        for k in range(here):
            q = at + k
            user = _place(users, first, table, user_ids[q])
            low[k], size[k], time[k] = 0, 0, times_ms[q]
            if user >= 0:
                low[k], size[k] = offsets[user], offsets[user + 1] - offsets[user]
            start[q] = low[k]
            longest = max(longest, size[k])
        while longest > 1:
            for k in range(here):
                half = size[k] >> 1
                low[k] += half * (times[max(low[k] + half - 1, 0)] < time[k])
                size[k] -= half
            longest -= longest >> 1
        for k in range(here):
            q = at + k
            low[k] += size[k] > 0 and times[low[k]] < time[k]
            end[q] = low[k]
            start[q] = max(start[q], low[k] - limit)
    return start, end


@njit(cache=True)
def _place(users, first, table, user_id):  # type: ignore[no-untyped-def]
    """The user's place in `users`, -1 for an unknown one."""
    if len(table):
        at = user_id - first
        return np.int64(table[at]) if 0 <= at < len(table) else np.int64(-1)
    user = np.searchsorted(users, user_id)
    return np.int64(user) if user < len(users) and users[user] == user_id else np.int64(-1)


@njit(cache=True)
def unanswered(starts, ends, times, acted, since, until, count):  # type: ignore[no-untyped-def]
    """(q, count) rows of starts..ends from `since` on whose `acted` is not before `until`, the last first, -1
    behind them."""
    out = np.full((len(starts), count), -1, np.int64)
    for q in range(len(starts)):
        row, found = ends[q] - 1, 0
        while row >= starts[q] and found < count and times[row] >= since[q]:
            if acted[row] >= until[q]:
                out[q, found] = row
                found += 1
            row -= 1
    return out
