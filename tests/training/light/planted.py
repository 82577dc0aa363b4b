"""A planted lake in which what is popular misleads.

In the first days loud pins were shown to everybody and so gathered the most positive actions; in the days after
every pin is shown as often as any other, and good pins are acted on far more. Sources order by popularity;
how often a pin is acted on when shown tells the good ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from feature_repo.schema import PIN_SCALARS, PIN_TOPICS, USER_SCALARS
from tests.training.data.lakes import write_lake
from training.data.point_in_time import Profiles
from training.models.interactions import Pins
from validation.lake import Lake
from validation.tables import DEFAULT_VOCABULARY

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, LOUD_DAYS = 17, 6
END = START + timedelta(days=DAYS)
PINS, USERS, PAGE = 240, 80, 15
GOOD, LOUD = 0, 1
"""Kinds of pins: of four, one is good and one loud."""
SAVE = DEFAULT_VOCABULARY.code("save")


def kind_of(pins: np.ndarray) -> np.ndarray:
    return (np.asarray(pins) - 1) % 4


def planted(root: Path, seed: int = 0) -> Lake:
    """80 users, 240 pins of three topics, seventeen days, of which releases test on the last week."""
    rng = np.random.default_rng(seed)
    shown, acted = [], []
    weight = np.where(kind_of(np.arange(1, PINS + 1)) == LOUD, 12.0, 1.0)
    request = 0
    for day in range(DAYS):
        chance = weight / weight.sum() if day < LOUD_DAYS else np.full(PINS, 1 / PINS)
        for user in range(1, USERS + 1):
            request += 1
            page = rng.choice(PINS, PAGE, replace=False, p=chance) + 1
            at = START + timedelta(days=day, hours=int(rng.integers(1, 22)))
            shown += [(request, user, pin, place, at) for place, pin in enumerate(page.tolist())]
            rate = np.select([kind_of(page) == GOOD, kind_of(page) == LOUD], [0.45, 0.12], 0.04)
            for pin in page[rng.random(PAGE) < rate].tolist():
                acted.append((len(acted) + 1, user, pin, SAVE, at + timedelta(seconds=30), request))
    frames = {
        "pins": pd.DataFrame(
            {
                "pin_id": np.arange(1, PINS + 1),
                "created_at": pd.Timestamp(START - timedelta(days=30)),
                "topics": [[1 + pin % 3] for pin in range(PINS)],
            }
        ),
        "topics": pd.DataFrame({"topic_id": [1, 2, 3], "name": ["a", "b", "c"]}),
        "impressions": pd.DataFrame(
            shown, columns=["request_id", "user_id", "pin_id", "position", "timestamp"]
        ),
        "actions": pd.DataFrame(
            acted, columns=["event_id", "user_id", "pin_id", "action", "timestamp", "request_id"]
        ),
    }
    return write_lake(root, frames)


def catalogue(lake: Lake) -> Pins:
    """Its pins, without vectors."""
    frame = lake.read("pins").sort_values("pin_id")
    topics = np.zeros((len(frame), PIN_TOPICS), np.int64)
    topics[:, 0] = [own[0] for own in frame["topics"]]
    created = frame["created_at"].to_numpy(dtype="datetime64[ms]").astype(np.int64)
    return Pins(frame["pin_id"].to_numpy(np.int64), np.zeros((len(frame), 1), np.float32), topics, created)


@dataclass
class Counted:
    """`PointInTime` that counts the lake's impressions and actions before each midnight; the rest is 0."""

    lake: Lake
    asked: list[pd.Timestamp] = field(default_factory=list)

    def profiles(self, user_ids: np.ndarray, times: pd.Series) -> Profiles:
        nothing = np.zeros(len(user_ids), np.int64)
        scalars = np.full((len(user_ids), len(USER_SCALARS)), np.nan, np.float32)
        return Profiles(scalars, nothing, nothing, np.empty(0, np.int64))

    def pin_scalars(self, pin_ids: np.ndarray, times: pd.Series) -> np.ndarray:
        out = np.zeros((len(pin_ids), len(PIN_SCALARS)), np.float32)
        for midnight in times.dt.floor("D").unique():
            self.asked.append(midnight)
            at = (times.dt.floor("D") == midnight).to_numpy()
            for column, table in (("impressions_30d", "impressions"), ("positives_30d", "actions")):
                counts = self.lake.read(table, ["pin_id"], end=midnight)["pin_id"].value_counts()
                known = counts.reindex(pin_ids[at], fill_value=0).to_numpy()
                out[at, PIN_SCALARS.index(column)] = known
        return out
