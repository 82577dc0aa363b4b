"""What held-out users had done before the cut, as a service would know them then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_repo.sequence import Sequence, SequenceLog
from training.evaluation.retrieval import HeldOut
from validation.lake import Lake
from validation.tables import Polarity, Vocabulary

COLUMNS = ("event_id", "user_id", "pin_id", "action", "timestamp")


@dataclass(frozen=True, eq=False)
class Histories:
    """Histories of the users of one held-out set."""

    held: HeldOut
    log: SequenceLog
    """Every action of theirs before the cut."""
    vocabulary: Vocabulary
    languages: dict[int, str]
    """Language of the users who state one."""

    @classmethod
    def before(cls, lake: Lake, held: HeldOut) -> Histories:
        """Read day by day: memory follows the held-out users' actions, not the lake's."""
        days = [rows[rows["user_id"].isin(held.users)] for rows in actions_by_day(lake, held.cut)]
        languages: dict[int, str] = {}
        if lake.has("users"):
            users = lake.read("users", ["user_id", "language"]).dropna()
            users = users[users["user_id"].isin(held.users)]
            languages = dict(zip(users["user_id"].tolist(), users["language"].tolist(), strict=True))
        log = SequenceLog.from_actions(pd.concat(days)) if days else SequenceLog.from_columns([])
        return cls(held, log, lake.contract().vocabulary, languages)

    @property
    def cut_ms(self) -> int:
        """Unix ms of the cut."""
        return int(self.held.cut.timestamp() * 1000)

    def sequence(self, user_id: int) -> Sequence:
        """The user's last actions as the online store would hold them at the cut."""
        return self.log.sequence(user_id, self.cut_ms)

    def known(self, user_id: int) -> NDArray[np.int64]:
        """Distinct pins of all the user's positive actions: no discovery any more."""
        place = int(np.searchsorted(self.log.users, user_id))
        if place == len(self.log.users) or self.log.users[place] != user_id:
            return np.empty(0, np.int64)
        rows = slice(self.log.offsets[place], self.log.offsets[place + 1])
        positive = np.isin(self.log.actions[rows], self.vocabulary.codes(Polarity.POSITIVE))
        return np.unique(self.log.pin_ids[rows][positive])


def actions_by_day(lake: Lake, end: datetime) -> Iterator[pd.DataFrame]:
    """The lake's actions before `end`, a day at a time."""
    for day in lake.days("actions"):
        start = datetime.combine(day, time(), UTC)
        if start < end:
            yield lake.read("actions", list(COLUMNS), start, min(start + timedelta(days=1), end))
