"""What a user did far back, and was shown in vain, as of a midnight: one rule for the daily batch and training.

    actions   the newest HISTORY_LENGTH before the midnight, those of the live sequence among them
    shown     the newest SHOWN_LENGTH impressions of the SHOWN_DAYS before it, on pins that the user had not
              acted on by then

Beside a live sequence, which holds the newest actions, a history begins behind the oldest of them (`behind`):
what left the sequence since the midnight is still here, and what both hold counts once. Only of more than
SEQUENCE_LENGTH actions since the midnight the oldest are in neither, in serving and in training alike. Times
are in whole seconds, here and wherever they are compared with an action of the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.schema import SHOWN_DAYS, SHOWN_LENGTH
from feature_repo.sequence_kernels import cut, table_of, unanswered

if TYPE_CHECKING:
    from feature_repo.sequence import SequenceLog

MS_PER_DAY = 86_400_000

_SURFACE = 1 << 8
"""A kind is the action's code and, so many times, the surface's."""

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class History:
    """One user's history, newest first."""

    as_of_ms: int
    """The midnight, Unix ms, of the batch for users of whom it knew nothing; 0 before the first one."""
    pin_ids: np.ndarray  # (n,) int64
    actions: np.ndarray  # (n,) int64 codes
    surfaces: np.ndarray  # (n,) int64 codes
    times_ms: np.ndarray  # (n,) int64 Unix ms, whole seconds
    shown_pin_ids: np.ndarray  # (m,) int64
    shown_ms: np.ndarray  # (m,) int64 Unix ms, whole seconds

    @classmethod
    def none(cls, as_of_ms: int = 0) -> History:
        return replace(_NONE, as_of_ms=as_of_ms) if as_of_ms else _NONE

    @classmethod
    def from_row(cls, values: Mapping[str, Any], as_of_ms: int) -> History:
        """From a row of the view `user_history` and its event time."""
        kinds = np.asarray(values["kinds"], np.int64)
        return cls(
            as_of_ms,
            np.asarray(values["pin_ids"], np.int64),
            kinds % _SURFACE,
            kinds // _SURFACE,
            as_of_ms - 1000 * np.asarray(values["ages_s"], np.int64),
            np.asarray(values["shown_pin_ids"], np.int64),
            as_of_ms - 1000 * np.asarray(values["shown_ages_s"], np.int64),
        )


_NONE = History(0, *(np.zeros(0, np.int64) for _ in range(6)))


def kinds_of(actions: np.ndarray, surfaces: np.ndarray) -> np.ndarray:
    """Codes (n,) of both in one number, int32."""
    return (actions.astype(np.int32) + _SURFACE * surfaces.astype(np.int32)).astype(np.int32)


def whole_seconds(times_ms: np.ndarray) -> np.ndarray:
    """Times (n,) as a history has them, int64 ms."""
    return times_ms // 1000 * 1000


def midnight_ms(times_ms: np.ndarray) -> np.ndarray:
    """The last UTC midnight of no later than each time, int64 ms."""
    return times_ms // MS_PER_DAY * MS_PER_DAY


def behind(times_ms: np.ndarray, sequence_ms: np.ndarray) -> int:
    """How many of a history's first actions are skipped beside a sequence, by the times of both, newest first:
    those of the second of the sequence's oldest action, or of later ones. All where the sequence is empty."""
    if len(sequence_ms) == 0:
        return len(times_ms)
    return int(np.searchsorted(-whole_seconds(times_ms), -(sequence_ms[-1] // 1000 * 1000), side="right"))


@dataclass(frozen=True, eq=False)
class ShownLog:
    """Impressions grouped by user (CSR), oldest first within a user, each with the user's first action on its
    pin."""

    users: np.ndarray  # (U,) int64, sorted, distinct
    offsets: np.ndarray  # (U + 1,) int64
    pin_ids: np.ndarray  # (N,) int64
    times_ms: np.ndarray  # (N,) int64
    acted_ms: np.ndarray  # (N,) int64 of the user's first action on the pin, beyond any time for none

    @classmethod
    def none(cls) -> ShownLog:
        return cls(*(np.zeros(n, np.int64) for n in (0, 1, 0, 0, 0)))

    @classmethod
    def of(cls, user_ids: np.ndarray, pin_ids: np.ndarray, times_ms: np.ndarray, log: SequenceLog) -> ShownLog:
        """From impressions (n,) in any order, and everyone's actions."""
        import pandas as pd

        order = np.lexsort((pin_ids, times_ms, user_ids))
        shown = pd.DataFrame({"user": user_ids[order], "pin": pin_ids[order]})
        owners = np.repeat(log.users, np.diff(log.offsets))
        acted = pd.DataFrame({"user": owners, "pin": log.pin_ids, "acted": log.timestamps_ms})
        first = acted.groupby(["user", "pin"], sort=False, as_index=False).min()
        acted_ms = shown.merge(first, how="left", on=["user", "pin"])["acted"]
        starts = np.flatnonzero(np.diff(user_ids[order], prepend=-1))
        return cls(
            users=user_ids[order][starts].astype(np.int64),
            offsets=np.append(starts, len(order)).astype(np.int64),
            pin_ids=pin_ids[order].astype(np.int64),
            times_ms=times_ms[order].astype(np.int64),
            acted_ms=acted_ms.astype("Int64").fillna(_NEVER).to_numpy(np.int64),
        )

    def __len__(self) -> int:
        return len(self.pin_ids)

    def newest(self, user_ids: np.ndarray, as_of_ms: np.ndarray) -> np.ndarray:
        """(q, SHOWN_LENGTH) int64: rows of what each user was shown in vain as of a time, newest first, -1
        behind the oldest. The arguments are (q,) int64."""
        user_ids, as_of_ms = (np.ascontiguousarray(a, np.int64) for a in (user_ids, as_of_ms))
        starts, ends = cut(self.users, *self._table, self.offsets, self.times_ms, user_ids, as_of_ms, len(self))
        since = as_of_ms - SHOWN_DAYS * MS_PER_DAY
        return unanswered(starts, ends, self.times_ms, self.acted_ms, since, as_of_ms, SHOWN_LENGTH)

    @cached_property
    def _table(self) -> tuple[int, np.ndarray]:
        return table_of(self.users, len(self))
