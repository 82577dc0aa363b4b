"""A small world whose right answer is known: users have a few topics and act on pins of those alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from feature_repo.sequence import SequenceLog
from training.interests.engagements import ActionLog, Catalogue, Engagements, UserDays, ms
from training.models.interactions import Pins

START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 6
TOPICS = (10, 20, 30, 40, 50, 60, 70, 80)


@dataclass(frozen=True)
class Planted:
    """The world's engagements, and each user's topics."""

    data: Engagements
    topics: dict[int, set[int]]
    pins: Pins

    def days(self, first: int, last: int) -> UserDays:
        """User-days of [first, last), counted from 0."""
        return self.data.days.between(START + timedelta(days=first), START + timedelta(days=last))


def planted_world(users: int = 60, pins_each: int = 40, interests: int = 3, seed: int = 5) -> Planted:
    """Users of `interests` topics each, who act on six of their topics' pins a day."""
    rng = np.random.default_rng(seed)
    count = len(TOPICS)
    centres = np.linalg.qr(rng.standard_normal((16, 16)))[0][:count].astype(np.float32)
    topic = np.repeat(np.arange(count), pins_each)
    vectors = centres[topic] + 0.15 * rng.standard_normal((len(topic), 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    topics = np.zeros((len(topic), 4), np.int64)
    topics[:, 0] = np.array(TOPICS)[topic]
    pins = Pins(np.arange(1, len(topic) + 1), vectors, topics, np.full(len(topic), ms(START) - 1))
    held = {u: set(rng.choice(count, interests, replace=False).tolist()) for u in range(1, users + 1)}
    rows = []
    for user, mine in held.items():
        for day in range(DAYS):
            for place, pin in enumerate(
                rng.choice(np.flatnonzero(np.isin(topic, list(mine))), 6, replace=False)
            ):
                rows.append((user, pin + 1, START + timedelta(days=day, hours=1, minutes=place)))
    actions = pd.DataFrame(rows, columns=["user_id", "pin_id", "timestamp"])
    actions = actions.assign(event_id=np.arange(1, len(actions) + 1), action=np.int8(1))
    catalogue = Catalogue.of(pins)
    log = SequenceLog.from_actions(actions)
    at = catalogue.rows(log.pin_ids)
    acts = ActionLog(log.users, log, at, np.ones(len(at), np.int8), np.zeros((len(log.users), 2), np.int64))
    return Planted(
        Engagements(catalogue, acts, _days(actions, catalogue)),
        {u: {TOPICS[i] for i in mine} for u, mine in held.items()},
        pins,
    )


def _days(actions: pd.DataFrame, catalogue: Catalogue) -> UserDays:
    new = actions.drop_duplicates(["user_id", "pin_id"])
    when = new["timestamp"].dt.floor("D")
    users, times, offsets, pins = [], [], [0], []
    for (day, user), group in new.groupby([when, "user_id"]):
        users.append(user)
        times.append(ms(day.to_pydatetime()))
        pins.append(np.sort(catalogue.rows(group["pin_id"].to_numpy())))
        offsets.append(offsets[-1] + len(group))
    rows = np.concatenate(pins)
    sources = catalogue.features.topics[rows, 0]
    return UserDays(np.array(users), np.array(times), np.array(offsets), rows, sources)
