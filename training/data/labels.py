"""Which action answers which impression.

An action that names its request answers that request's impression of the pin. An action that names none answers
the latest impression of the pin to the user in the `window` before it. So every action answers at most one
impression, and label sums can be checked against the action log.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd

from validation.tables import PADDING_ID, PIN_ID, REQUEST_ID, TIMESTAMP, USER_ID

CLOCK_SKEW = timedelta(minutes=5)
"""How far before its impression an action that names the request may lie: clients' clocks run wild."""


def attribute(impressions: pd.DataFrame, actions: pd.DataFrame, window: timedelta) -> np.ndarray:
    """Row of the impression that each action answers, int64 (len(actions),), -1 where there is none.

    Parameters
    ----------
    impressions : request_id, user_id, pin_id, timestamp; (request_id, pin_id) unique.
    actions : user_id, pin_id, timestamp, request_id (null or 0 where unknown).
    """
    answered = np.full(len(actions), -1, dtype=np.int64)
    if len(impressions) == 0 or len(actions) == 0:
        return answered
    named = (actions[REQUEST_ID].fillna(PADDING_ID) != PADDING_ID).to_numpy()
    if named.any():
        answered[named] = _by_request(impressions, actions[named], window)
    if not named.all():
        answered[~named] = _by_time(impressions, actions[~named], window)
    return answered


def _by_request(impressions: pd.DataFrame, actions: pd.DataFrame, window: timedelta) -> np.ndarray:
    key = [REQUEST_ID, PIN_ID]
    wanted = pd.MultiIndex.from_frame(actions[key].astype("int64"))
    row = pd.MultiIndex.from_frame(impressions[key]).get_indexer(wanted)
    shown = impressions.iloc[np.maximum(row, 0)]
    late = _instants(actions) - _instants(shown)
    fits = (late >= np.timedelta64(-CLOCK_SKEW)) & (late <= np.timedelta64(window))
    fits &= actions[USER_ID].to_numpy() == shown[USER_ID].to_numpy()
    return np.where((row >= 0) & fits, row, -1)


def _by_time(impressions: pd.DataFrame, actions: pd.DataFrame, window: timedelta) -> np.ndarray:
    by = [USER_ID, PIN_ID]
    shown = impressions[[*by, TIMESTAMP]].assign(row=np.arange(len(impressions)))
    acted = actions[[*by, TIMESTAMP]].assign(place=np.arange(len(actions)))
    matched = pd.merge_asof(
        acted.sort_values(TIMESTAMP, kind="stable"),
        shown.sort_values(TIMESTAMP, kind="stable"),
        on=TIMESTAMP,
        by=by,
        tolerance=pd.Timedelta(window),
    )
    row = np.full(len(actions), -1, dtype=np.int64)
    row[matched["place"].to_numpy()] = matched["row"].fillna(-1).to_numpy(dtype=np.int64)
    return row


def _instants(rows: pd.DataFrame) -> np.ndarray:
    return rows[TIMESTAMP].to_numpy(dtype="datetime64[us]")


def known_until(impressions: pd.DataFrame, actions: pd.DataFrame, answered: np.ndarray) -> pd.Series:
    """Until when each impression's features may look: its time, or that of an answer dated before it.

    `answered` is what `attribute` returned for the two. An answer that a client's clock dates before its
    impression would otherwise be part of the history that is to foretell it.
    """
    known = _instants(impressions).copy()
    hit = answered >= 0
    np.minimum.at(known, answered[hit], _instants(actions)[hit])
    return pd.Series(known, index=impressions.index).dt.tz_localize("UTC")


def multi_hot(answered: np.ndarray, codes: np.ndarray, rows: int, actions: int) -> np.ndarray:
    """int8 (rows, actions): 1 where an action of code c (from 1, column c - 1) answered the row."""
    labels = np.zeros((rows, actions), dtype=np.int8)
    kept = answered >= 0
    labels[answered[kept], codes[kept].astype(np.int64) - 1] = 1
    return labels
