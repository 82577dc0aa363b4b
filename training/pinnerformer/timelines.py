"""Users' whole timelines from the lake as CSR arrays, read day by day: one day and the result in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from feature_repo.sequence import surface_code
from training.models.pinnerformer.objectives import Labels
from training.models.pinnerformer.tokens import ActionArrays
from validation.lake import Lake
from validation.tables import Polarity, Vocabulary

Ints = NDArray[np.int64]
Counts = tuple[Ints, Ints]


class LabelRules(BaseModel):
    """Which positive actions are labels. Actions that state no surface or no duration pass that rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    surfaces: tuple[str, ...] = ("homefeed",)
    """Where a label must come from: search and related pins answer a query, not the user alone. Empty: all."""
    timed_actions: tuple[str, ...] = ("closeup", "click")
    min_duration_s: float = Field(10.0, ge=0)
    """A timed action is a label from this long on."""
    new_pins: bool = True
    """Whether a label is a pin that the user had not acted on before. A closeup followed by a save of the
    same pin would be the easiest of all next actions, and the feed never shows a pin again."""

    def mark(
        self, actions: NDArray[np.int8], surfaces: NDArray[np.int8], durations_s: pd.Series, words: Vocabulary
    ) -> NDArray[np.bool_]:
        """Which rows are labels, (n,). `durations_s` has NaN where the source stated none."""
        label = np.isin(actions, words.codes(Polarity.POSITIVE))
        if self.surfaces:
            label &= np.isin(surfaces, [0, *(surface_code(name) for name in self.surfaces)])
        timed = np.isin(actions, [words.code(name) for name in self.timed_actions if name in words.actions])
        return label & ~(timed & (durations_s.to_numpy() < self.min_duration_s))


@dataclass(frozen=True)
class Timelines:
    """User `users[u]` owns rows `offsets[u]:offsets[u + 1]`, oldest first; 27 bytes an action."""

    users: Ints  # (U,) ascending
    offsets: Ints  # (U + 1,)
    arrays: ActionArrays  # (A,) each
    label: NDArray[np.bool_]  # (A,) may be predicted; the pin is in the catalogue
    first_ms: Ints  # (A,) the user's first action on the row's pin, or the row's own time

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def labels(self) -> Labels:
        """The label rows by user."""
        rows = self.label_rows
        offsets = np.searchsorted(rows, self.offsets)
        return Labels(offsets, self.arrays.pin_rows[rows], self.arrays.times_ms[rows], self.first_ms[rows])

    @cached_property
    def label_rows(self) -> Ints:
        """Rows of the actions that are labels, ascending, (l,)."""
        return np.flatnonzero(self.label)

    @property
    def owners(self) -> Ints:
        """User place of every row, (A,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def before(self, time_ms: int) -> Timelines:
        """What was known before `time_ms`; users without an action until then stay, empty."""
        return self._where(self.arrays.times_ms < time_ms)

    def of_users(self, chosen: NDArray[np.bool_]) -> Timelines:
        """The timelines of the chosen users, (U,) bool."""
        kept = self._where(np.repeat(chosen, np.diff(self.offsets)))
        counts = np.diff(self.offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return Timelines(self.users[chosen], offsets, kept.arrays, kept.label, kept.first_ms)

    def ends_before(self, users: NDArray[np.integer], times_ms: Ints) -> Ints:
        """Where each of `users` (places) stands just before its time: the end of a slice of rows, (n,)."""
        ends = np.empty(len(users), np.int64)
        for i, (user, time_ms) in enumerate(zip(users.tolist(), times_ms.tolist(), strict=True)):
            start, end = self.offsets[user], self.offsets[user + 1]
            ends[i] = start + np.searchsorted(self.arrays.times_ms[start:end], time_ms)
        return ends

    def _where(self, mask: NDArray[np.bool_]) -> Timelines:
        kept = np.concatenate([[0], np.cumsum(mask)])
        return Timelines(
            self.users, kept[self.offsets], self.arrays.take(mask), self.label[mask], self.first_ms[mask]
        )


def read_timelines(
    lake: Lake,
    pin_ids: Ints,
    end: datetime,
    rules: LabelRules | None = None,
    *,
    start: datetime | None = None,
    only: Ints | None = None,
) -> Timelines:
    """Users' actions in [start, end), negative ones among them, on any pin; of the users `only`, if given.

    `pin_ids` (ascending) is the catalogue; an action on another pin is a token without a vector, and never a
    label. Raises LakeError where the lake has no actions.
    """
    rules = rules or LabelRules()
    start = max(start or lake.interval()[0], lake.interval()[0])
    words = lake.contract().vocabulary
    users, counted = action_counts(lake, end, start, only)
    offsets = np.concatenate([[0], np.cumsum(counted)]).astype(np.int64)
    size = int(offsets[-1])
    arrays = ActionArrays(
        np.empty(size, np.int32),
        np.empty(size, np.int8),
        np.empty(size, np.int8),
        np.empty(size, np.float32),
        np.empty(size, np.int64),
    )
    label, place = np.empty(size, np.bool_), offsets[:-1].copy()
    columns = ["user_id", "pin_id", "action", "timestamp", "surface", "duration_s"]
    for frame in _days(lake, columns, start, end, only):
        owner = np.searchsorted(users, frame["user_id"].to_numpy(np.int64))
        order = np.argsort(owner, kind="stable")  # a day is in time order already
        frame, owner = frame.iloc[order], owner[order]
        met, begins, counts = np.unique(owner, return_index=True, return_counts=True)
        rows = place[owner] + np.arange(len(owner)) - np.repeat(begins, counts)
        place[met] += counts
        actions = frame["action"].to_numpy(np.int8)
        surfaces = _surfaces(frame["surface"])
        pins = _rows_of(frame["pin_id"].to_numpy(np.int64), pin_ids)
        arrays.pin_rows[rows], arrays.actions[rows], arrays.surfaces[rows] = pins, actions, surfaces
        arrays.durations_s[rows] = frame["duration_s"].fillna(0).to_numpy(np.float32)
        arrays.times_ms[rows] = frame["timestamp"].dt.as_unit("ms").astype("int64").to_numpy()
        label[rows] = rules.mark(actions, surfaces, frame["duration_s"], words) & (pins >= 0)
    owners = np.repeat(np.arange(len(users)), np.diff(offsets))
    first = first_times(owners, arrays) if rules.new_pins else arrays.times_ms
    return Timelines(users, offsets, arrays, label, first)


def first_times(owners: Ints, arrays: ActionArrays) -> Ints:
    """When the row's user first acted on the row's pin, Unix ms, (A,); rows are each user's oldest first."""
    key = owners * (int(arrays.pin_rows.max(initial=0)) + 2) + arrays.pin_rows + 1
    _, first, back = np.unique(key, return_index=True, return_inverse=True)
    return arrays.times_ms[first][back]


def action_counts(lake: Lake, end: datetime, start: datetime | None = None, only: Ints | None = None) -> Counts:
    """Users with an action in [start, end), ascending, and how many each has: two int64 arrays."""
    counted = pd.Series(dtype=np.int64)
    for frame in _days(lake, ["user_id"], start or lake.interval()[0], end, only):
        counted = counted.add(frame["user_id"].value_counts(), fill_value=0)
    counted = counted.sort_index()
    return counted.index.to_numpy(np.int64), counted.to_numpy(np.int64)


def _days(
    lake: Lake, columns: list[str], start: datetime, end: datetime, only: Ints | None = None
) -> Iterator[pd.DataFrame]:
    for day in lake.days("actions"):
        begin = datetime.combine(day, time(), UTC)
        after = begin + timedelta(days=1)
        if begin < end and start < after:
            frame = lake.read("actions", columns, max(start, begin), min(end, after))
            yield frame if only is None else frame[frame["user_id"].isin(only)]


def _surfaces(names: pd.Series) -> NDArray[np.int8]:
    codes, known = pd.factorize(names)  # -1 is none
    table = np.array([*(surface_code(name) for name in known), 0], np.int8)
    return table[codes]


def _rows_of(ids: Ints, pin_ids: Ints) -> NDArray[np.int32]:
    if len(pin_ids) == 0:
        return np.full(len(ids), -1, np.int32)
    at = np.minimum(np.searchsorted(pin_ids, ids), len(pin_ids) - 1)
    return np.where(pin_ids[at] == ids, at, -1).astype(np.int32)
