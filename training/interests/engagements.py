"""What users did, day by day, and what was known of each of them at that day's midnight.

One row is a user on a UTC day with at least one new engagement: the history strictly before the midnight, and
the pins the user acted on positively that day for the first time ever. So training sees users as the next-day
evaluation does, and one forward pass serves all engagements of the day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from feature_repo.sequence import SequenceLog
from training.data.labels import attribute
from training.models.interactions import Pins, polarity_signs
from training.models.interests.features import (
    MS_PER_HOUR,
    PROFILE,
    Histories,
    PinFeatures,
    profile_codes,
    topic_places,
)
from training.models.pin_performance import MS_PER_DAY, PERFORMANCE_DAYS, performance
from validation.lake import Lake
from validation.tables import PADDING_ID, Polarity

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

ANSWER_WINDOW = timedelta(days=1)
"""How long after an impression an action still answers it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Catalogue:
    """All pins of the lake by row, in a content space."""

    ids: Ints  # (p,) ascending
    features: PinFeatures
    created_at_ms: Ints  # (p,)
    topics: tuple[int, ...]
    """The vocabulary behind `features.topics`: every topic some pin has or the lake names, ascending."""

    @classmethod
    def of(cls, pins: Pins, named: Sequence[int] = ()) -> Catalogue:
        """From a content space's pins; `named` are topics that no pin need have."""
        topics = np.unique(np.concatenate([pins.topics.ravel(), np.asarray(named, np.int64)]))
        vocabulary = tuple(topics[topics != PADDING_ID].tolist())
        features = PinFeatures(pins.vectors, topic_places(pins.topics, vocabulary))
        return cls(pins.ids, features, pins.created_at_ms, vocabulary)

    def rows(self, pin_ids: Ints) -> Ints:
        """Row of each pin, -1 where the catalogue does not have it."""
        if not len(self.ids):
            return np.full(len(pin_ids), -1, np.int64)
        at = np.minimum(np.searchsorted(self.ids, pin_ids), len(self.ids) - 1)
        return np.where(self.ids[at] == pin_ids, at, -1)


@dataclass(frozen=True)
class ActionLog:
    """Every user's actions before the end, and who the users are."""

    users: Ints  # (U,) ascending
    log: SequenceLog
    pin_rows: Ints  # (a,) row of each action's pin, -1 where it is unknown
    signs: NDArray[np.int8]  # (a,) 0 also for pins without features
    profile: Ints  # (U, len(PROFILE))

    @classmethod
    def read(cls, lake: Lake, catalogue: Catalogue, end: datetime) -> ActionLog:
        """All actions before `end`. Raises LakeError without an actions table."""
        columns = ["event_id", "user_id", "pin_id", "action", "timestamp"]
        log = SequenceLog.from_actions(lake.read("actions", columns, end=end))
        rows = catalogue.rows(log.pin_ids)
        known = (rows >= 0) & catalogue.features.known()[rows] if len(catalogue.ids) else rows >= 0
        signs = np.where(known, polarity_signs(lake.contract().vocabulary)[log.actions], 0).astype(np.int8)
        return cls(log.users, log, rows, signs, read_profiles(lake, log.users))

    def histories(
        self, user_ids: Ints, times_ms: Ints, items: Floats, length: int, clusters: Ints | None = None
    ) -> Histories:
        """Users as of times, from one vector a pin of the catalogue, `items` (p, d); see `padded`."""
        rows, signs, hours = self.padded(user_ids, times_ms, length)
        vectors = np.where(rows[:, :, None] >= 0, items[rows], np.float32(0))
        return self.tensors(user_ids, rows, signs, hours, torch.from_numpy(vectors), clusters)

    def tensors(
        self,
        user_ids: Ints,
        rows: Ints,
        signs: Ints,
        hours: Floats,
        items: torch.Tensor,
        clusters: Ints | None = None,
    ) -> Histories:
        """`padded` arrays and the (b, m, d) vectors of their pins as `Histories`."""
        return Histories(
            items,
            torch.from_numpy(signs),
            torch.from_numpy(hours),
            torch.from_numpy(self.profiles(user_ids)),
            None if clusters is None else torch.from_numpy(np.where(rows >= 0, clusters[rows], 0)),
        )

    def padded(self, user_ids: Ints, times_ms: Ints, length: int) -> tuple[Ints, Ints, Floats]:
        """(b, m) pin rows (-1 for none), signs (0 for padding) and ages in hours of the newest actions
        strictly before each time, newest first; m is the longest of them, at most `length`."""
        start, end = self.log.slice(user_ids, times_ms, length)
        m = int((end - start).max()) if len(start) else 0
        at = end[:, None] - 1 - np.arange(m)
        inside = at >= start[:, None]
        at = np.where(inside, at, 0)
        if not len(self.pin_rows):
            at = np.zeros((len(user_ids), 0), np.int64)
            inside = at > 0
        hours = (np.asarray(times_ms)[:, None] - self.log.timestamps_ms[at]) / MS_PER_HOUR
        return (
            np.where(inside, self.pin_rows[at], -1),
            np.where(inside, self.signs[at], 0).astype(np.int64),
            np.where(inside, hours, 0).astype(np.float32),
        )

    def profiles(self, user_ids: Ints) -> Ints:
        """(b, len(PROFILE)); 0 for users without any."""
        if not len(self.users):
            return np.zeros((len(user_ids), len(PROFILE)), np.int64)
        at = np.minimum(np.searchsorted(self.users, user_ids), len(self.users) - 1)
        return np.where((self.users[at] == user_ids)[:, None], self.profile[at], 0)

    def positives_by_day(self, pins: int) -> tuple[Ints, Ints, Ints]:
        """(day, pin row, count) of every pin-day with positive actions, days since 1970, ascending."""
        kept = (self.signs > 0) & (self.pin_rows >= 0)
        keys = self.log.timestamps_ms[kept] // MS_PER_DAY * pins + self.pin_rows[kept]
        keys, counts = np.unique(keys, return_counts=True)
        return keys // max(pins, 1), keys % max(pins, 1), counts

    def performance(self, created_at_ms: Ints, midnights_ms: Ints) -> dict[int, Floats]:
        """(p, PERFORMANCE) of every pin of the catalogue as of each midnight, from actions before it."""
        day, pin, count = self.positives_by_day(len(created_at_ms))
        out = {}
        for now in np.unique(midnights_ms).tolist():
            today = now // MS_PER_DAY
            counts = np.zeros((len(created_at_ms), len(PERFORMANCE_DAYS)), np.int64)
            for column, days in enumerate(PERFORMANCE_DAYS):
                inside = (day >= today - days) & (day < today)
                np.add.at(counts[:, column], pin[inside], count[inside])
            out[now] = performance(counts, created_at_ms, now)
        return out


@dataclass(frozen=True)
class UserDays:
    """r rows of (user, midnight) and the engagements that followed within the day."""

    users: Ints  # (r,)
    times_ms: Ints  # (r,) the midnight, Unix ms
    offsets: Ints  # (r + 1,)
    pins: Ints  # (t,) catalogue row of each engagement, distinct within a row
    sources: Ints  # (t,) place of the topic that brought the pin (the impression's), 0 for none

    def __len__(self) -> int:
        return len(self.users)

    def between(self, start: datetime, end: datetime) -> UserDays:
        """The rows of [start, end)."""
        kept = (self.times_ms >= ms(start)) & (self.times_ms < ms(end))
        return self.take(np.flatnonzero(kept))

    def take(self, rows: Ints) -> UserDays:
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        at = np.repeat(self.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        return UserDays(self.users[rows], self.times_ms[rows], offsets, self.pins[at], self.sources[at])

    def where(self, kept: NDArray[np.bool_]) -> UserDays:
        """Only the engagements of `kept` (t,), and the rows that still have some."""
        owner = self.owner[kept]
        counts = np.bincount(owner, minlength=len(self))
        rows = np.flatnonzero(counts)
        offsets = np.concatenate([[0], np.cumsum(counts[rows])]).astype(np.int64)
        return UserDays(self.users[rows], self.times_ms[rows], offsets, self.pins[kept], self.sources[kept])

    @property
    def owner(self) -> Ints:
        """(t,) row of each engagement."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


@dataclass(frozen=True)
class Engagements:
    """Everything the trainers and the evaluation read."""

    catalogue: Catalogue
    actions: ActionLog
    days: UserDays

    def performance(self, midnights_ms: Ints) -> dict[int, Floats]:
        """(p, PERFORMANCE) of every pin as of each midnight, from actions before it."""
        return self.actions.performance(self.catalogue.created_at_ms, midnights_ms)


def read_engagements(lake: Lake, pins: Pins, start: datetime, end: datetime) -> Engagements:
    """User-days of [start, end), both UTC midnights, with every action before `end` behind them.

    An engagement is the first positive action ever of a user on a pin; repeats, pins without features and
    pins that are not in the catalogue make none. Topics that brought a pin come from impressions, where the
    lake has them. Raises LakeError without an actions table.
    """
    named = lake.read("topics", ["topic_id"])["topic_id"].to_numpy(np.int64) if lake.has("topics") else ()
    catalogue = Catalogue.of(pins, named)
    actions = ActionLog.read(lake, catalogue, end)
    return Engagements(catalogue, actions, user_days(lake, catalogue, start, end))


def user_days(lake: Lake, catalogue: Catalogue, start: datetime, end: datetime) -> UserDays:
    """The rows of `read_engagements`."""
    columns = ["event_id", "user_id", "pin_id", "action", "timestamp", "request_id"]
    rows = lake.read("actions", columns, end=end)
    rows = rows[rows["action"].isin(lake.contract().vocabulary.codes(Polarity.POSITIVE))]
    rows = rows.drop_duplicates(["user_id", "pin_id"], keep="first")
    rows = rows[rows["timestamp"] >= start]
    at = catalogue.rows(rows["pin_id"].to_numpy(np.int64))
    known = (at >= 0) & catalogue.features.known()[at]
    rows, at = rows[known], at[known]
    topics = source_topics(lake, rows, start, end)
    users = rows["user_id"].to_numpy(np.int64)
    midnights = rows["timestamp"].dt.as_unit("ms").astype("int64").to_numpy() // MS_PER_DAY * MS_PER_DAY
    order = np.lexsort((at, users, midnights))
    keys = np.column_stack([midnights, users])[order]
    first = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)]) if len(keys) else np.empty(0, int)
    return UserDays(
        keys[first, 1],
        keys[first, 0],
        np.r_[first, len(keys)].astype(np.int64),
        at[order],
        topic_places(topics[order], catalogue.topics),
    )


def source_topics(lake: Lake, rows: pd.DataFrame, start: datetime, end: datetime) -> Ints:
    """(n,) id of the topic by which each action's pin was retrieved, 0 where nothing says so."""
    topics = np.zeros(len(rows), np.int64)
    if not lake.has("impressions") or not len(rows):
        return topics
    columns = ["request_id", "user_id", "pin_id", "timestamp", "source_topic"]
    shown = lake.read("impressions", columns, start=start - ANSWER_WINDOW, end=end)
    answered = attribute(shown, rows, ANSWER_WINDOW)
    if len(shown):
        topics[answered >= 0] = shown["source_topic"].to_numpy(np.int64)[answered[answered >= 0]]
    return topics


def read_profiles(lake: Lake, user_ids: Ints) -> Ints:
    """(U, len(PROFILE)) codes; zeros without a users table."""
    out = np.zeros((len(user_ids), len(PROFILE)), np.int64)
    if not lake.has("users") or not len(user_ids):
        return out
    users = lake.read("users", ["user_id", *PROFILE]).drop_duplicates("user_id")
    at = np.minimum(np.searchsorted(user_ids, users["user_id"]), len(user_ids) - 1)
    known = user_ids[at] == users["user_id"]
    values = users[list(PROFILE)].itertuples(index=False, name=None)
    out[at[known]] = np.array([profile_codes(v) for v in values], np.int64)[known]
    return out


def followed_topics(lake: Lake, before: datetime) -> dict[int, Ints]:
    """Topic ids that each user followed before a time, ascending; empty without a follows table."""
    return followed(lake, before, "topic_id")


def followed(lake: Lake, before: datetime, column: str) -> dict[int, Ints]:
    """The same of any id of the follows table: `topic_id` or `board_id`."""
    if not lake.has("follows"):
        return {}
    rows = lake.read("follows", ["user_id", column], end=before)
    rows = rows[rows[column] != PADDING_ID]
    return {int(user): np.unique(ids.to_numpy(np.int64)) for user, ids in rows.groupby("user_id")[column]}


def ms(time: datetime) -> int:
    """Unix milliseconds of a zoned time."""
    return (time - _EPOCH) // timedelta(milliseconds=1)
