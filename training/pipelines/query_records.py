"""What came of the pins that each of a user's medoids brought, from the impression log: the records behind
PinnerSage's query rewards (`training/models/query_rewards.py`).

Impressions name their medoid in `anchor`. A log that never does gives no records, and nothing is rewarded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta

import numpy as np
import pandas as pd

from training.data.labels import attribute
from training.models.pinnersage import Interests
from training.models.query_rewards import Record, RewardConfig, rewarded
from validation.lake import Lake
from validation.tables import ACTIONS, IMPRESSIONS, Polarity

SOURCE = "pinnersage"
"""Candidate source whose anchors are medoids."""

ANSWER_WINDOW = timedelta(days=1)
"""How long after an impression an action still answers it."""

_KEY = ["request_id", "pin_id"]
_OWNER = ["user_id", "anchor"]


@dataclass(frozen=True)
class QueryRecords:
    """Records of everybody shown something by a medoid."""

    by_user: Mapping[int, Record] = field(default_factory=dict)
    base_rate: float = 0.0
    """Engagements an impression, over all of them."""

    def reward(self, user_id: int, interests: Interests, config: RewardConfig | None = None) -> Interests:
        """The user's interests with importances times rewards, heaviest first; as they are without a record.

        The usual rate is the one measured here, not the default of `config`.
        """
        record = self.by_user.get(user_id)
        if record is None or self.base_rate <= 0:
            return interests
        config = (config or RewardConfig()).model_copy(update={"base_rate": self.base_rate})
        return rewarded(interests, record, config)


def read_records(lake: Lake, start: datetime, end: datetime) -> QueryRecords:
    """Records of impressions in [start, end) by what was done before `end`; two days are in memory at once.

    An impression is engaged where a positive action answers it, once however many do. Nothing without an
    impressions table.
    """
    if not lake.has(IMPRESSIONS.name):
        return QueryRecords()
    positive = lake.contract().vocabulary.codes(Polarity.POSITIVE)
    counted, known = [], pd.MultiIndex.from_arrays([[], []])
    days = lake.days(IMPRESSIONS.name)
    for day in sorted({*days, *(day + ANSWER_WINDOW for day in days)}):
        begin = max(datetime.combine(day, time(), UTC), start)
        stop = min(datetime.combine(day, time(), UTC) + timedelta(days=1), end)
        if begin >= stop:
            continue
        shown = lake.read(
            IMPRESSIONS.name, [*_KEY, *_OWNER, "timestamp", "source"], max(begin - ANSWER_WINDOW, start), stop
        )
        columns = ["user_id", "pin_id", "action", "timestamp", "request_id"]
        acted = lake.read(ACTIONS.name, columns, begin, stop)
        answered = attribute(shown, acted[acted["action"].isin(positive)], ANSWER_WINDOW)
        ours = ((shown["source"] == SOURCE) & (shown["anchor"] > 0)).to_numpy()
        engaged = np.zeros(len(shown), bool)
        engaged[answered[answered >= 0]] = True
        keys = pd.MultiIndex.from_frame(shown[_KEY])
        engaged &= ours & ~keys.isin(known)  # yesterday's answers to the same impression are counted
        known = keys[engaged]
        new = ours & (shown["timestamp"] >= begin).to_numpy()
        rows = shown.loc[new | engaged, _OWNER]
        counted.append(
            rows.assign(shown=new[new | engaged], engaged=engaged[new | engaged])
            .groupby(_OWNER, as_index=False)
            .sum()
        )
    return _records(pd.concat(counted)) if counted else QueryRecords()


def _records(counted: pd.DataFrame) -> QueryRecords:
    """From (user, anchor) counts of several days."""
    total = counted.groupby(_OWNER, as_index=False)[["shown", "engaged"]].sum()  # ascending in both
    by_user = {
        int(user): Record(
            rows["anchor"].to_numpy(np.int64),
            rows["shown"].to_numpy(np.float64),
            rows["engaged"].to_numpy(np.float64),
        )
        for user, rows in total.groupby("user_id")
    }
    return QueryRecords(by_user, float(total["engaged"].sum() / max(total["shown"].sum(), 1)))
