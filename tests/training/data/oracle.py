"""Point-in-time features worked out naively from frames: oracle, and leak, of the training set's tests."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from training.data.point_in_time import Profiles


@dataclass
class NaivePointInTime:
    """Counts of actions before the UTC midnight of each row, and topics followed by then.

    Fills the columns `actions_7d` and `positives_30d`; the others are 0. With `leaky`, everything in the log
    counts, whenever it happened.
    """

    actions: pd.DataFrame
    follows: pd.DataFrame
    positive: tuple[int, ...]
    leaky: bool = False
    asked: list[int] = field(default_factory=list)

    def profiles(self, user_ids: np.ndarray, times: pd.Series) -> Profiles:
        self.asked.append(len(user_ids))
        scalars = self._counts("user_id", user_ids, times, USER_SCALARS)
        topics = self.follows.dropna(subset=["topic_id"])
        flat, starts, ends = [], [], []
        cache: dict[tuple[int, pd.Timestamp], list[int]] = {}
        for user, day in zip(user_ids.tolist(), times.dt.floor("D"), strict=True):
            if (user, day) not in cache:
                own = topics[(topics["user_id"] == user) & (self.leaky | (topics["timestamp"] < day))]
                cache[user, day] = own["topic_id"].astype(int).tolist()
            starts.append(len(flat))
            flat.extend(cache[user, day])
            ends.append(len(flat))
        return Profiles(scalars, np.array(starts, np.int64), np.array(ends, np.int64), np.array(flat, np.int64))

    def pin_scalars(self, pin_ids: np.ndarray, times: pd.Series) -> np.ndarray:
        return self._counts("pin_id", pin_ids, times, PIN_SCALARS)

    def _counts(self, key: str, ids: np.ndarray, times: pd.Series, columns: tuple[str, ...]) -> np.ndarray:
        out = np.zeros((len(ids), len(columns)), dtype=np.float32)
        midnights = times.dt.floor("D")
        for column, days, codes in (("actions_7d", 7, None), ("positives_30d", 30, self.positive)):
            rows = self.actions if codes is None else self.actions[self.actions["action"].isin(codes)]
            for midnight in midnights.unique():
                if self.leaky:
                    within = rows
                else:
                    begin = midnight - pd.Timedelta(days=days)
                    within = rows[(rows["timestamp"] >= begin) & (rows["timestamp"] < midnight)]
                counts = within[key].value_counts()
                at = (midnights == midnight).to_numpy()
                out[at, columns.index(column)] = counts.reindex(ids[at], fill_value=0).to_numpy()
        return out
