"""What the funnel logged of a sample of its requests, as requests with outcomes."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from training.data.labels import attribute
from training.light.rows import Outcome, Request
from training.models.source_lists import SourceList
from validation.events import Reached
from validation.lake import Lake
from validation.tables import (
    ACTIONS,
    CANDIDATES,
    LOGGED,
    PIN_ID,
    RANK,
    REQUEST_ID,
    SCORE,
    SOURCE,
    STAGE,
    TIMESTAMP,
    USER_ID,
    Polarity,
)

STOOD_IN_LINE = (Reached.LIGHT, Reached.RANKED, Reached.SHOWN)
"""What filters took, and what the merge had no room for, no light ranker judges."""

WINDOW = timedelta(days=1)
"""How long after an answer an action still belongs to it."""


def logged_requests(
    lake: Lake, start: datetime, end: datetime, releases: Collection[int] | None = None
) -> tuple[list[Request], list[Outcome]]:
    """Requests logged in [start, end) and answered by one of `releases` (all if left out), oldest first.

    A pin is engaged where a positive action within a day answers it. Nothing where the lake has no
    candidates.
    """
    if not lake.has(CANDIDATES.name):
        return [], []
    rows = lake.read(CANDIDATES.name, start=start, end=end)
    if releases is not None:
        rows = rows[rows["release"].isin(list(releases))]
    rows = rows.sort_values([TIMESTAMP, REQUEST_ID, SOURCE, RANK], kind="stable", ignore_index=True)
    engaged = _engaged(lake, rows, start, end)
    requests, outcomes = [], []
    for _, one in rows.groupby(REQUEST_ID, sort=False):
        requests.append(_request(one))
        pins = one.drop_duplicates(PIN_ID)
        ids = pins[PIN_ID].to_numpy(np.int64)
        shown = ids[(pins[STAGE] == Reached.SHOWN.value).to_numpy()]
        outcomes.append(
            Outcome(
                engaged=shown[np.isin(shown, engaged.get(int(one[REQUEST_ID].iloc[0]), ()))],
                impressed=shown,
                eligible=ids[pins[STAGE].isin([stage.value for stage in STOOD_IN_LINE]).to_numpy()],
                logged=dict(zip(ids.tolist(), pins[LOGGED].tolist(), strict=True)),
            )
        )
    return requests, outcomes


def _request(rows: pd.DataFrame) -> Request:
    """One request's rows, by source and rank."""
    lists = [
        SourceList(
            source,
            mine[PIN_ID].to_numpy(np.int64),
            mine[SCORE].to_numpy(np.float32),
            mine[RANK].to_numpy(np.int64),
        )
        for source, mine in rows.groupby(SOURCE, sort=False)
    ]
    time_ms = int(rows[TIMESTAMP].iloc[0].timestamp() * 1000)
    return Request(int(rows[USER_ID].iloc[0]), time_ms, lists)


def _engaged(lake: Lake, rows: pd.DataFrame, start: datetime, end: datetime) -> dict[int, np.ndarray]:
    """By request, the shown pins that a positive action answers."""
    key = [REQUEST_ID, USER_ID, PIN_ID, TIMESTAMP]
    shown = rows.loc[rows[STAGE] == Reached.SHOWN.value, key].drop_duplicates(key[:3]).reset_index(drop=True)
    acts = lake.read(
        ACTIONS.name, [USER_ID, PIN_ID, "action", TIMESTAMP, REQUEST_ID], start - WINDOW, end + WINDOW
    )
    positive = lake.contract().vocabulary.codes(Polarity.POSITIVE)
    answered = attribute(shown, acts[acts["action"].isin(positive)], WINDOW)
    hit = shown.iloc[np.unique(answered[answered >= 0])]
    return {int(request): pins.to_numpy(np.int64) for request, pins in hit.groupby(REQUEST_ID)[PIN_ID]}
