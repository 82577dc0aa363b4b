"""How calibrated the ads that services showed were: what they were priced by, against what was clicked."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from training.data.labels import attribute
from training.models.ads.ranking import CLICK
from validation.lake import Lake
from validation.tables import (
    ACTION,
    IMPRESSIONS,
    PIN_ID,
    PREDICTED,
    RELATED_ADS,
    REQUEST_ID,
    SOURCE,
    SURFACE,
    TIMESTAMP,
    USER_ID,
)

WINDOW = timedelta(hours=24)
"""A click answers an impression at most so old."""

COLUMNS = ("day", "source", "shown", "clicks", "predicted", "error", "noise")


def served_calibration(lake: Lake, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame:
    """A row a UTC day and source (`all` for every one) of the lake's ads that name their prediction.

    shown, clicks : counts. predicted : the clicks that the predictions promised. error : predicted over clicks,
    less 1 (NaN without a click). noise : the error's standard deviation had every prediction been right, from
    the variance p (1 - p) of each; an error of many times it calls for new curves. `start` and `end` (zoned)
    bound the impressions. Empty where nothing was priced yet.
    """
    if not lake.has(IMPRESSIONS.name):
        return pd.DataFrame(columns=list(COLUMNS))
    key = [REQUEST_ID, USER_ID, PIN_ID, TIMESTAMP]
    shown = lake.read(IMPRESSIONS.name, [*key, SURFACE, SOURCE, PREDICTED], start, end)
    shown = shown[(shown[SURFACE] == RELATED_ADS) & shown[PREDICTED].notna()].reset_index(drop=True)
    if not len(shown):
        return pd.DataFrame(columns=list(COLUMNS))
    acts = lake.read("actions", [USER_ID, PIN_ID, ACTION, TIMESTAMP, REQUEST_ID], start)
    acts = acts[acts[ACTION] == lake.contract().vocabulary.code(CLICK)]
    answered = attribute(shown, acts, WINDOW)
    clicked = np.zeros(len(shown), bool)
    clicked[answered[answered >= 0]] = True
    p = shown[PREDICTED].to_numpy(np.float64)
    rows = pd.DataFrame(
        {
            "day": shown[TIMESTAMP].dt.date,
            "source": shown[SOURCE].fillna("unknown"),
            "shown": 1,
            "clicks": clicked.astype(np.int64),
            "predicted": p,
            "variance": p * (1 - p),
        }
    )
    both = pd.concat([rows, rows.assign(source="all")])
    out = both.groupby(["day", "source"], as_index=False).sum()
    clicks = out["clicks"].replace(0, np.nan)
    out["error"] = out["predicted"] / clicks - 1
    out["noise"] = np.sqrt(out["variance"]) / out["predicted"]
    return out[list(COLUMNS)]
