"""Rows to learn from where nobody recorded what was shown: positives from the log, negatives drawn.

The scheme, stated on every training set made with it: one page for each (user, pin, UTC day) with an action, at
the time of its first action, holding that pin and `per_positive` draws of other pins by (actions so far + 1) **
power among the pins that existed when the day began. Repeated draws and pins the user acted on that day fall
away. Nobody saw these pages: there is no position to learn, and base rates mean nothing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from validation.tables import (
    EVENT_ID,
    PIN_ID,
    POSITION,
    PROPENSITY,
    REQUEST_ID,
    SOURCE,
    SURFACE,
    TIMESTAMP,
    USER_ID,
)

SAMPLED, OBSERVED = "sampled_negative", "observed"
"""Values of `source` in a set made this way."""


class Popularity:
    """Actions per pin so far, and draws from it. Holds two arrays of one number a pin."""

    def __init__(self, pin_ids: np.ndarray, created_at: pd.Series, power: float) -> None:
        order = np.argsort(pin_ids)
        self.pin_ids = pin_ids[order]
        self.created_at = created_at.iloc[order].reset_index(drop=True)
        self.power = power
        self.counts = np.zeros(len(pin_ids), dtype=np.int64)

    def count(self, pin_ids: np.ndarray) -> None:
        """Add a day's actions."""
        self.counts += np.bincount(np.searchsorted(self.pin_ids, pin_ids), minlength=len(self.counts))

    def shares(self, before: pd.Timestamp) -> np.ndarray:
        """Chance float64 (P,) of each pin in one draw, 0 for pins made at or after `before`."""
        weight = np.where(self.created_at < before, (self.counts + 1.0) ** self.power, 0.0)
        total = weight.sum()
        if total == 0:
            raise ValueError(f"no pin was made before {before}; negatives cannot be drawn")
        return weight / total


def pages(
    actions: pd.DataFrame,
    popularity: Popularity,
    day: pd.Timestamp,
    per_positive: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """The impressions of one day under the scheme, from the day's actions.

    `propensity` is 1 for the observed pin and the chance to be drawn into the page for the others; `position`
    is 0 throughout; `request_id` is the event id of the first action.
    """
    first = actions.sort_values([TIMESTAMP, EVENT_ID]).drop_duplicates([USER_ID, PIN_ID])
    share = popularity.shares(day)
    draws = rng.choice(len(share), size=(len(first), per_positive), p=share)
    row = np.repeat(np.arange(len(first)), per_positive)
    at = first[TIMESTAMP].to_numpy(dtype="datetime64[us]")
    drawn = pd.DataFrame(
        {
            REQUEST_ID: first[EVENT_ID].to_numpy()[row],
            USER_ID: first[USER_ID].to_numpy()[row],
            PIN_ID: popularity.pin_ids[draws.ravel()],
            TIMESTAMP: at[row],
            PROPENSITY: (1 - (1 - share[draws.ravel()]) ** per_positive).astype(np.float32),
            SOURCE: SAMPLED,
        }
    ).drop_duplicates([REQUEST_ID, PIN_ID])
    acted = pd.MultiIndex.from_frame(first[[USER_ID, PIN_ID]])
    drawn = drawn[~pd.MultiIndex.from_frame(drawn[[USER_ID, PIN_ID]]).isin(acted)]
    observed = pd.DataFrame(
        {
            REQUEST_ID: first[EVENT_ID].to_numpy(),
            USER_ID: first[USER_ID].to_numpy(),
            PIN_ID: first[PIN_ID].to_numpy(),
            TIMESTAMP: at,
            PROPENSITY: np.float32(1),
            SOURCE: OBSERVED,
        }
    )
    page = pd.concat([observed, drawn], ignore_index=True)
    page[TIMESTAMP] = page[TIMESTAMP].dt.tz_localize("UTC")
    page[POSITION] = np.int32(0)
    page[SURFACE] = None
    return page.sort_values([TIMESTAMP, REQUEST_ID, PIN_ID], ignore_index=True)


def answers(page: pd.DataFrame, actions: pd.DataFrame) -> np.ndarray:
    """Row of `page` that each of the day's actions answers: the observed pin of its user, int64, never -1."""
    observed = np.flatnonzero((page[SOURCE] == OBSERVED).to_numpy())
    index = pd.MultiIndex.from_frame(page.iloc[observed][[USER_ID, PIN_ID]])
    return observed[index.get_indexer(pd.MultiIndex.from_frame(actions[[USER_ID, PIN_ID]]))]
