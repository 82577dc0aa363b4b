"""The user's last actions: one rule for the live sequence and for the training log.

A *sequence* holds at most `SEQUENCE_LENGTH` actions, newest first, ordered by (timestamp, event id). Two ways
lead to it and they agree exactly:

* online, `merge` adds events to the stored sequence, whatever their order, repeats included;
* offline, `SequenceLog` keeps every action once, grouped by user, and cuts the actions strictly before a time.

Feast itself would lose updates on such a read-modify-write, so the merge happens here, by one writer a user,
and the whole row is pushed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from feature_repo.schema import SEQUENCE_ARRAYS, SEQUENCE_LENGTH
from feature_repo.sequence_kernels import any_repeat, by_user, cut, table_of
from validation.tables import RELATED_ADS

if TYPE_CHECKING:
    import pandas as pd

    from validation.events import ActionRecord
    from validation.tables import Vocabulary

SURFACES: tuple[str, ...] = ("homefeed", "related", "search", "board", "topic", "profile", "ads", "store")
"""Surfaces with a code of their own, counted from 1; any other name, or none, is 0."""

SURFACE_CODES = {name: code for code, name in enumerate(SURFACES, start=1)}
SURFACE_CODES[RELATED_ADS] = SURFACE_CODES["ads"]
"""Every name with a code; ads beside related pins count as ads."""

DTYPES: dict[str, np.dtype] = {
    "event_ids": np.dtype(np.int64),
    "pin_ids": np.dtype(np.int64),
    "actions": np.dtype(np.int32),
    "surfaces": np.dtype(np.int32),
    "timestamps_ms": np.dtype(np.int64),
    "durations_s": np.dtype(np.float32),
}
"""Element type of each parallel array."""


def surface_code(surface: str | None) -> int:
    """The int32 code of a surface's name; 0 for none or a name outside `SURFACES`."""
    return SURFACE_CODES.get(surface, 0) if surface else 0


class Event(NamedTuple):
    """One action as the sequence keeps it."""

    event_id: int
    pin_id: int
    action: int
    """Code of the contract's vocabulary, from 1."""
    surface: int
    timestamp_ms: int
    duration_s: float = 0.0


def event_of(record: ActionRecord, vocabulary: Vocabulary) -> Event:
    """The log's record as the sequence keeps it. Raises KeyError for an action outside the vocabulary."""
    return Event(
        event_id=record.event_id,
        pin_id=record.pin_id,
        action=vocabulary.code(record.action),
        surface=surface_code(record.surface),
        timestamp_ms=record.timestamp_ms,
        duration_s=record.duration_s or 0.0,
    )


@dataclass(frozen=True, eq=False)
class Sequence:
    """A user's last actions as parallel arrays, newest first; read-only.

    Each array has shape (n,), n <= SEQUENCE_LENGTH, with the dtypes of `DTYPES`.
    """

    event_ids: np.ndarray
    pin_ids: np.ndarray
    actions: np.ndarray
    surfaces: np.ndarray
    timestamps_ms: np.ndarray
    durations_s: np.ndarray

    @classmethod
    def empty(cls) -> Sequence:
        return _EMPTY

    @classmethod
    def of(cls, events: Iterable[Event]) -> Sequence:
        """The sequence after `events`, given in any order."""
        return merge(_EMPTY, events)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, object]) -> Sequence:
        """A sequence from stored arrays that are already in order (a Feast row).

        Raises ValueError when the arrays differ in length or are not newest first.
        """
        columns = {name: _frozen(arrays[name], DTYPES[name]) for name in SEQUENCE_ARRAYS}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"a sequence's arrays must be parallel; lengths are {lengths}")
        times, ids = columns["timestamps_ms"], columns["event_ids"]
        falling = (times[:-1] > times[1:]) | ((times[:-1] == times[1:]) & (ids[:-1] > ids[1:]))
        if not falling.all():
            raise ValueError(
                "a sequence must be newest first, ordered by (timestamp, event id), without repeats"
            )
        return cls(**columns)

    def __len__(self) -> int:
        return len(self.event_ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return all(np.array_equal(getattr(self, n), getattr(other, n)) for n in SEQUENCE_ARRAYS)

    __hash__ = None  # type: ignore[assignment]

    @property
    def newest_ms(self) -> int:
        """Time of the newest action in Unix ms; 0 for an empty sequence."""
        return int(self.timestamps_ms[0]) if len(self) else 0

    def arrays(self) -> dict[str, np.ndarray]:
        """The parallel arrays by name, in the order of `SEQUENCE_ARRAYS`."""
        return {name: getattr(self, name) for name in SEQUENCE_ARRAYS}

    def events(self) -> list[Event]:
        """The actions one by one, newest first."""
        columns = (getattr(self, name).tolist() for name in SEQUENCE_ARRAYS)
        return [Event(*row) for row in zip(*columns, strict=True)]

    def before(self, time_ms: int) -> Sequence:
        """The part of the sequence strictly before `time_ms`."""
        first = int(np.searchsorted(-self.timestamps_ms, -time_ms, side="right"))
        return Sequence(**{name: column[first:] for name, column in self.arrays().items()})


def merge(sequence: Sequence, events: Iterable[Event]) -> Sequence:
    """`sequence` with `events` added: the newest SEQUENCE_LENGTH distinct event ids of both.

    Commutative, associative and idempotent over events whose id names one content: late, repeated and
    reordered deliveries end in the same sequence. Of two events with one id the stored one stays.
    Raises ValueError for an event whose ids or time are not positive.
    """
    known = set(sequence.event_ids.tolist())
    fresh: list[Event] = []
    for event in events:
        if event.event_id <= 0 or event.pin_id <= 0 or event.timestamp_ms <= 0:
            raise ValueError(f"{event} cannot enter a sequence: event id, pin id and time must be positive")
        if event.event_id not in known:
            known.add(event.event_id)
            fresh.append(event)
    if not fresh:
        return sequence
    columns = {}
    for name, added in zip(SEQUENCE_ARRAYS, zip(*fresh, strict=True), strict=True):
        columns[name] = np.concatenate([getattr(sequence, name), np.asarray(added, dtype=DTYPES[name])])
    order = np.lexsort((-columns["event_ids"], -columns["timestamps_ms"]))[:SEQUENCE_LENGTH]
    return Sequence(**{name: _frozen(column[order], DTYPES[name]) for name, column in columns.items()})


@dataclass(frozen=True, eq=False)
class SequenceLog:
    """Every action once, grouped by user (CSR), oldest first within a user.

    Row i of the parallel arrays is an action; user `users[u]` owns rows `offsets[u]` to `offsets[u + 1]`.
    30 bytes an action. `slice` answers 10M requests a CPU-second.
    """

    users: np.ndarray  # (U,) int64, sorted, distinct
    offsets: np.ndarray  # (U + 1,) int64
    event_ids: np.ndarray  # (N,) int64
    pin_ids: np.ndarray  # (N,) int64
    actions: np.ndarray  # (N,) int8
    surfaces: np.ndarray  # (N,) int8
    timestamps_ms: np.ndarray  # (N,) int64
    durations_s: np.ndarray  # (N,) float32

    @classmethod
    def from_actions(cls, actions: pd.DataFrame) -> SequenceLog:
        """From rows of the lake's `actions` (user_id, event_id, pin_id, action, timestamp; optional surface,
        duration_s), in any order. A repeated event id of a user counts once.
        """
        return cls.from_columns([columns_of(actions)])

    @classmethod
    def from_columns(cls, parts: Iterable[Mapping[str, np.ndarray]]) -> SequenceLog:
        """From the columns of several pieces (days): `user_ids` and the arrays of `SEQUENCE_ARRAYS`."""
        pieces = list(parts)
        names = ("user_ids", *SEQUENCE_ARRAYS)
        columns = {
            name: np.concatenate([piece[name] for piece in pieces]) if pieces else np.zeros(0, np.int64)
            for name in names
        }
        pieces.clear()
        user_ids, times, ids = columns["user_ids"], columns["timestamps_ms"], columns["event_ids"]
        in_order = (times[1:] > times[:-1]) | ((times[1:] == times[:-1]) & (ids[1:] >= ids[:-1]))
        # Days read from the lake are in order already: a stable sort by user alone then suffices.
        order = by_user(user_ids) if in_order.all() else np.lexsort((ids, times, user_ids))
        columns = {name: column[order] for name, column in columns.items()}
        if any_repeat(columns["user_ids"], columns["event_ids"]):
            keep = ~_repeats(columns["user_ids"], columns["event_ids"])
            columns = {name: column[keep] for name, column in columns.items()}
        owners = columns.pop("user_ids").astype(np.int64, copy=False)
        first = np.flatnonzero(np.diff(owners, prepend=owners[:1] - 1))
        return cls(
            users=owners[first],
            offsets=np.append(first, len(owners)).astype(np.int64),
            event_ids=columns["event_ids"].astype(np.int64, copy=False),
            pin_ids=columns["pin_ids"].astype(np.int64, copy=False),
            actions=columns["actions"].astype(np.int8, copy=False),
            surfaces=columns["surfaces"].astype(np.int8, copy=False),
            timestamps_ms=columns["timestamps_ms"].astype(np.int64, copy=False),
            durations_s=columns["durations_s"].astype(np.float32, copy=False),
        )

    def __len__(self) -> int:
        return len(self.event_ids)

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, f.name).nbytes for f in fields(self))

    def slice(
        self, user_ids: np.ndarray, times_ms: np.ndarray, limit: int = SEQUENCE_LENGTH
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of each user's last `limit` actions strictly before a time.

        `user_ids` and `times_ms` are (q,) int64, in any order. Returns (start, end), (q,) int64 each: the
        actions are rows start..end of the arrays, oldest first; empty (start == end) for an unknown user.
        """
        user_ids = np.ascontiguousarray(user_ids, dtype=np.int64)
        times_ms = np.ascontiguousarray(times_ms, dtype=np.int64)
        if user_ids.shape != times_ms.shape:
            raise ValueError(f"one time a user: {user_ids.shape} users, {times_ms.shape} times")
        if len(user_ids) < len(self.users):
            return self._cut(user_ids, times_ms, limit)
        order = by_user(user_ids)  # a user's together: what is read for one is near for the next
        start, end = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
        start[order], end[order] = self._cut(user_ids[order], times_ms[order], limit)
        return start, end

    def _cut(self, user_ids: np.ndarray, times_ms: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
        return cut(self.users, *self._table, self.offsets, self.timestamps_ms, user_ids, times_ms, limit)

    @cached_property
    def _table(self) -> tuple[int, np.ndarray]:
        return table_of(self.users, len(self))

    def sequence(self, user_id: int, time_ms: int) -> Sequence:
        """What `merge` would hold of `user_id` just before `time_ms`."""
        start, end = self.slice(np.array([user_id]), np.array([time_ms]))
        rows = slice(int(start[0]), int(end[0]))
        return Sequence(**{n: _frozen(getattr(self, n)[rows][::-1], DTYPES[n]) for n in SEQUENCE_ARRAYS})


def columns_of(actions: pd.DataFrame) -> dict[str, np.ndarray]:
    """The log's columns of a frame of lake actions."""
    size = len(actions)
    surfaces, durations = np.zeros(size, np.int8), np.zeros(size, np.float32)
    if "surface" in actions.columns:
        surfaces = actions["surface"].map(SURFACE_CODES).fillna(0).to_numpy().astype(np.int8)
    if "duration_s" in actions.columns:
        durations = np.nan_to_num(actions["duration_s"].to_numpy(dtype=np.float32, na_value=0.0))
    times = actions["timestamp"].to_numpy(dtype="datetime64[us]").view(np.int64)
    return {
        "user_ids": actions["user_id"].to_numpy(dtype=np.int64),
        "event_ids": actions["event_id"].to_numpy(dtype=np.int64),
        "pin_ids": actions["pin_id"].to_numpy(dtype=np.int64),
        "actions": actions["action"].to_numpy(dtype=np.int8),
        "surfaces": surfaces,
        "timestamps_ms": times // 1000,
        "durations_s": durations,
    }


def _repeats(user_ids: np.ndarray, event_ids: np.ndarray) -> np.ndarray:
    """(n,) bool: rows whose (user, event) was seen in an earlier row."""
    order = np.lexsort((event_ids, user_ids))  # stable: the first of equal pairs stays first
    users, events = user_ids[order], event_ids[order]
    repeat = np.zeros(len(order), dtype=bool)
    repeat[order[1:]] = (users[1:] == users[:-1]) & (events[1:] == events[:-1])
    return repeat


def _frozen(values: object, dtype: np.dtype) -> np.ndarray:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


_EMPTY = Sequence(**{name: _frozen([], dtype) for name, dtype in DTYPES.items()})
