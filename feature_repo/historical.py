"""Point-in-time joins through Feast, in bounded chunks, with the rows kept as they came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from feature_repo.views import EVENT_TIMESTAMP

if TYPE_CHECKING:
    from feast import FeatureStore

CHUNK_ROWS = 250_000
"""Rows a query: a million rows with vectors at once take five gigabytes."""

_ROW = "__row"


def join(
    store: FeatureStore,
    entity_df: pd.DataFrame,
    features: Sequence[str],
    *,
    full_feature_names: bool = False,
    chunk_rows: int = CHUNK_ROWS,
) -> pd.DataFrame:
    """`entity_df` with `features` (`view:feature`) as they were known at each row's `event_timestamp`.

    The answer has the rows of `entity_df`, same count, order and index, and its columns first; a feature that
    was not known yet is missing (NaN or None). A feature row counts when both its event time and its created
    time are at or before the row's time. With `full_feature_names` columns are named `view__feature`.

    Raises ValueError where `event_timestamp` is absent, has no time zone or holds nulls.
    """
    times = entity_df.get(EVENT_TIMESTAMP)
    if times is None:
        raise ValueError(
            f"the rows to join need a column {EVENT_TIMESTAMP}; they have {list(entity_df.columns)}"
        )
    if not isinstance(times.dtype, pd.DatetimeTZDtype):
        raise ValueError(f"{EVENT_TIMESTAMP} must be a time with zone (UTC); it is {times.dtype}")
    if times.isna().any():
        raise ValueError(f"{EVENT_TIMESTAMP} is missing in {int(times.isna().sum())} rows")
    wanted = list(features)
    if entity_df.empty:
        # A point-in-time join has no answer for no rows; one row that cannot match gives the columns.
        probe = pd.DataFrame({c: [0] for c in entity_df.columns}).astype(
            {c: t for c, t in entity_df.dtypes.items() if c != EVENT_TIMESTAMP}
        )
        probe[EVENT_TIMESTAMP] = pd.Timestamp(0, tz="UTC")
        return join(store, probe, wanted, full_feature_names=full_feature_names).iloc[:0]
    order = np.argsort(times.to_numpy(dtype="datetime64[us]"), kind="stable")
    parts = []
    for start in range(0, len(order), chunk_rows):
        rows = order[start : start + chunk_rows]
        chunk = entity_df.iloc[rows].reset_index(drop=True)
        chunk[_ROW] = rows
        job = store.get_historical_features(
            entity_df=chunk,
            features=wanted,
            full_feature_names=full_feature_names,
            filter_by_created_timestamp=True,
        )
        parts.append(job.to_df())
    joined = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    if len(joined) != len(entity_df):
        raise RuntimeError(
            f"the join returned {len(joined)} rows for {len(entity_df)}: features are not usable"
        )
    joined = joined.sort_values(_ROW, kind="stable").drop(columns=_ROW)
    joined.index = entity_df.index
    return joined
