"""The rows of a training set, some days at a time: impressions, labels, features, and the checks on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.schema import SEQUENCE_ARRAYS
from feature_repo.sequence import SequenceLog
from training.data.feature_join import Catalogue, FeatureJoin, unix_ms
from training.data.labels import CLOCK_SKEW, attribute, known_until, multi_hot
from training.data.point_in_time import PointInTime
from training.data.sampled_negatives import Popularity, answers, pages
from training.data.splits import DAY
from training.data.training_plan import Plan
from training.data.training_set_facts import (
    IMPRESSIONS,
    KEYS,
    LABEL,
    LABEL_PREFIX,
    STATS,
    WEIGHT,
    TrainingSetError,
    day_file,
)
from training.models.interactions import polarity_signs
from validation.lake import Lake
from validation.surfaces import of_surfaces
from validation.tables import (
    ACTION,
    PIN_ID,
    POSITION,
    PROPENSITY,
    QUERY,
    REQUEST_ID,
    SOURCE,
    SURFACE,
    TIME,
    TIMESTAMP,
    USER_ID,
    Polarity,
)

if TYPE_CHECKING:
    from training.models.lexical import LexicalIndex

Made = tuple[pd.DataFrame, np.ndarray, pd.Series, dict[datetime, dict]]
"""Rows, labels int8 (rows, actions), until when each row's features look, each day's counts of actions."""


def history_of(lake: Lake, end: datetime) -> SequenceLog:
    """Every action before `end`; read day by day, so that nothing but the numbers is ever in memory."""

    def columns(day: datetime) -> dict[str, np.ndarray]:
        rows = lake.read("actions", ["user_id", "event_id", "pin_id", ACTION, TIMESTAMP], day, day + DAY)
        n = len(rows)
        arrays = (
            rows["event_id"].to_numpy(dtype=np.int64),
            rows["pin_id"].to_numpy(dtype=np.int64),
            rows[ACTION].to_numpy(dtype=np.int8),
            np.zeros(n, np.int8),
            unix_ms(rows[TIMESTAMP]),
            np.zeros(n, np.float32),
        )
        return {"user_ids": rows["user_id"].to_numpy(dtype=np.int64)} | dict(
            zip(SEQUENCE_ARRAYS, arrays, strict=True)
        )

    days = [datetime(d.year, d.month, d.day, tzinfo=UTC) for d in lake.days("actions")]
    return SequenceLog.from_columns([columns(day) for day in days if day < end])


class RowBuilder:
    """Makes the rows of some days at a time."""

    def __init__(
        self,
        lake: Lake,
        features: PointInTime,
        plan: Plan,
        catalogue: Catalogue,
        history: SequenceLog,
        words: Callable[[], LexicalIndex | None],
    ) -> None:
        self.lake = lake
        self.plan = plan
        self.join = FeatureJoin(features, catalogue, history, polarity_signs(plan.vocabulary), cache(words))
        self.popularity: Popularity | None = None

    def write(self, out_dir: Path, days: list[datetime]) -> None:
        """Make and write the rows of consecutive days."""
        rows, labels, known, counts = (
            self._impressions(days) if self.plan.scheme == IMPRESSIONS else self._sampled(days)
        )
        table = self._table(rows, labels, known)
        of_day = _days(rows[TIMESTAMP])
        for day in days:
            kept = of_day == _day(day)
            stats = counts[day]
            part = table.filter(pa.array(kept))
            self._check(part, stats, day)
            stats = stats | {"rows": len(part), "positives": int(np.sum(part[LABEL].to_numpy()))}
            stats["immature"] = int((rows.loc[kept, TIMESTAMP] > self._matured()).sum())
            stats["positioned"] = int(np.sum(part[POSITION].to_numpy() > 0))
            stats["with_query"] = int(rows.loc[kept, QUERY].notna().sum()) if QUERY in rows else 0
            stats["with_propensity"] = len(part) - part[PROPENSITY].null_count
            path = day_file(out_dir, day)
            staged = path.with_suffix(".tmp")
            meta = {**(part.schema.metadata or {}), STATS: json.dumps(stats).encode()}
            pq.write_table(part.replace_schema_metadata(meta), staged, compression="zstd")
            staged.replace(path)

    def _matured(self) -> datetime:
        return self.plan.data_end - timedelta(hours=self.plan.config.label_window_h)

    def _impressions(self, days: list[datetime]) -> Made:
        """The lake's impressions of the days, their labels, and each day's counts of actions.

        Impressions up to the end of the label window are read as well: an action without a request belongs to
        the latest impression before it, which may be tomorrow's.
        """
        window = timedelta(hours=self.plan.config.label_window_h)
        first, stop = days[0], days[-1] + DAY
        rows = self.lake.read(IMPRESSIONS, [*KEYS, QUERY], first, stop + window)
        _refuse_repeats(rows)
        columns = [USER_ID, PIN_ID, ACTION, TIMESTAMP, REQUEST_ID]
        acts = self.lake.read("actions", columns, first - CLOCK_SKEW, stop + window)
        answered = attribute(rows, acts, window)
        kept = (rows[TIMESTAMP] < stop).to_numpy()
        kept &= of_surfaces(pa.array(rows[SURFACE], pa.string(), from_pandas=True), self.plan.config.ads)
        place = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)  # the last is that of no row
        answered = place[answered]
        rows = rows[kept].reset_index(drop=True)
        codes = acts[ACTION].to_numpy()
        labels = multi_hot(answered, codes, len(rows), len(self.plan.vocabulary.names))
        answered_day = _days(rows[TIMESTAMP])[np.maximum(answered, 0)] if len(rows) else _days(acts[TIMESTAMP])
        action_day = _days(acts[TIMESTAMP])
        return (
            rows,
            labels,
            known_until(rows, acts, answered),
            {
                day: self._counts(
                    answered, codes, (answered >= 0) & (answered_day == _day(day)), action_day == _day(day)
                )
                for day in days
            },
        )

    def _sampled(self, days: list[datetime]) -> Made:
        columns = [USER_ID, PIN_ID, ACTION, TIMESTAMP, "event_id"]
        config, counts = self.plan.config, {}
        popularity = self._counted(days[0])
        parts, labels, offset = [], [], 0
        for day in days:
            acts = self.lake.read("actions", columns, day, day + DAY)
            rng = np.random.default_rng([config.seed, day.toordinal()])
            page = pages(acts, popularity, pd.Timestamp(day), config.negatives_per_positive, rng)
            answered, codes = answers(page, acts), acts[ACTION].to_numpy()
            labels.append(multi_hot(answered, codes, len(page), len(self.plan.vocabulary.names)))
            everything = np.ones(len(acts), dtype=bool)
            counts[day] = self._counts(answered, codes, everything, everything)
            parts.append(page)
            popularity.count(acts[PIN_ID].to_numpy())
            offset += len(page)
        rows = pd.concat(parts, ignore_index=True)
        return rows, np.concatenate(labels), rows[TIMESTAMP], counts

    def _counted(self, before: datetime) -> Popularity:
        """Popularity at the midnight `before`."""
        ids = self.join.catalogue.pins.ids
        popularity = Popularity(ids, self.join.catalogue.created_at, self.plan.config.popularity_power)
        popularity.count(self.join.history.pin_ids[self.join.history.timestamps_ms < before.timestamp() * 1000])
        return popularity

    def _counts(
        self, answered: np.ndarray, codes: np.ndarray, here: np.ndarray, of_day: np.ndarray
    ) -> dict[str, object]:
        """What the day's labels must add up to, counted from the actions: distinct (row, action) pairs."""
        names = self.plan.vocabulary.names
        pairs = np.unique(np.stack([answered[here], codes[here].astype(np.int64)]), axis=1)
        sums = np.bincount(pairs[1], minlength=len(names) + 1)[1:]
        return {
            "label_sums": dict(zip(names, sums.tolist(), strict=True)),
            "answering": int(here.sum()),
            "actions": int(of_day.sum()),
        }

    def _table(self, rows: pd.DataFrame, labels: np.ndarray, known: pd.Series) -> pa.Table:
        """Every column of the set, in the order of `rows`, from what happened before `known`."""
        names = self.plan.vocabulary.names
        positive = [c - 1 for c in self.plan.vocabulary.codes(Polarity.POSITIVE)]
        joined = self.join.of(rows, known)
        columns: dict[str, pa.Array] = {
            REQUEST_ID: pa.array(rows[REQUEST_ID].to_numpy(dtype=np.int64)),
            USER_ID: pa.array(rows[USER_ID].to_numpy(dtype=np.int64)),
            PIN_ID: pa.array(rows[PIN_ID].to_numpy(dtype=np.int64)),
            POSITION: pa.array(rows[POSITION].to_numpy(dtype=np.int32)),
            TIMESTAMP: pa.array(rows[TIMESTAMP], TIME),
            SURFACE: pa.array(rows[SURFACE], pa.string(), from_pandas=True),
            SOURCE: pa.array(rows[SOURCE], pa.string(), from_pandas=True),
            PROPENSITY: pa.array(rows[PROPENSITY], pa.float32(), from_pandas=True),
            WEIGHT: pa.array(self._weights(rows[PROPENSITY])),
            LABEL: pa.array(labels[:, positive].max(axis=1, initial=0).astype(np.int8)),
        }
        columns |= {LABEL_PREFIX + name: pa.array(labels[:, i]) for i, name in enumerate(names)}
        for names, block in joined.groups():
            if block.shape != (len(rows), len(names)):
                raise TrainingSetError(
                    f"{names[0]} and its like came back as {block.shape} for {len(rows)} rows"
                )
            columns |= {name: pa.array(block[:, i]) for i, name in enumerate(names)}
        return pa.table(columns)

    def _weights(self, propensity: pd.Series) -> np.ndarray:
        config = self.plan.config
        if config.weight == "uniform":
            return np.ones(len(propensity), dtype=np.float32)
        chance = propensity.to_numpy(dtype=np.float64)
        if np.isnan(chance).any():
            raise TrainingSetError(
                f"{int(np.isnan(chance).sum())} impressions have no propensity; weigh them 'uniform'"
            )
        return np.minimum(1 / np.maximum(chance, 1e-12), config.max_weight).astype(np.float32)

    def _check(self, part: pa.Table, stats: dict[str, object], day: datetime) -> None:
        """The invariants of one day: rows by the lake's own count, label sums by the actions that answered."""
        if self.plan.scheme == IMPRESSIONS and len(part) != self.plan.day_rows[day]:
            raise TrainingSetError(
                f"{day:%Y-%m-%d}: {len(part)} rows for {self.plan.day_rows[day]} impressions; "
                "a join lost or doubled rows"
            )
        sums = {name: int(np.sum(part[LABEL_PREFIX + name].to_numpy())) for name in self.plan.vocabulary.names}
        if sums != stats["label_sums"]:
            raise TrainingSetError(
                f"{day:%Y-%m-%d}: label sums {sums} differ from the actions that answered, "
                f"{stats['label_sums']}"
            )


def _refuse_repeats(rows: pd.DataFrame) -> None:
    repeated = rows.duplicated([REQUEST_ID, PIN_ID])
    if repeated.any():
        one = rows[repeated].iloc[0]
        raise TrainingSetError(
            f"{int(repeated.sum())} rows repeat a pin within a request, such as pin {one[PIN_ID]} in "
            f"request {one[REQUEST_ID]}: what they were answered with would count twice"
        )


def _days(times: pd.Series) -> np.ndarray:
    """UTC days, datetime64[D]."""
    return times.to_numpy(dtype="datetime64[us]").astype("datetime64[D]")


def _day(day: datetime) -> np.datetime64:
    return np.datetime64(day.date())
