"""The rows of a training set, some days at a time: impressions, labels, features, and the checks on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.schema import PIN_SCALARS, PIN_TOPICS, SEQUENCE_ARRAYS, USER_SCALARS
from feature_repo.sequence import SequenceLog
from training.data.labels import CLOCK_SKEW, attribute, known_until, multi_hot
from training.data.point_in_time import PointInTime
from training.data.sampled_negatives import Popularity, answers, pages
from training.data.splits import DAY
from training.data.training_plan import Plan, of_surfaces
from training.data.training_set_facts import (
    IMPRESSIONS,
    KEYS,
    LABEL,
    LABEL_PREFIX,
    STATS,
    WEIGHT,
    PinVectors,
    TrainingSetError,
    day_file,
)
from training.models.interactions import (
    INTERACTION_FEATURES,
    ActionRows,
    Pins,
    RequestRows,
    interactions,
    polarity_signs,
)
from training.models.pinnability import PIN_PREFIX, USER_PREFIX
from training.models.query_features import QUERY_FEATURES, row_query_features
from validation.lake import Lake
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


@dataclass(frozen=True)
class Catalogue:
    """Every pin of the lake as the interaction kernel takes it, by ascending id."""

    pins: Pins
    created_at: pd.Series

    @classmethod
    def of(cls, lake: Lake, vectors: PinVectors | None) -> Catalogue:
        frame = lake.read("pins", ["pin_id", "created_at", "topics"]).sort_values("pin_id", ignore_index=True)
        ids = frame["pin_id"].to_numpy(dtype=np.int64)
        topics = np.zeros((len(ids), PIN_TOPICS), dtype=np.int64)
        for row, own in enumerate(frame["topics"]):
            if own is not None:
                topics[row, : min(len(own), PIN_TOPICS)] = own[:PIN_TOPICS]
        matrix = np.zeros((len(ids), 1 if vectors is None else vectors.vectors.shape[1]), dtype=np.float32)
        if vectors is not None:
            at = np.searchsorted(ids, vectors.pin_ids)
            here = (at < len(ids)) & (ids[np.minimum(at, len(ids) - 1)] == vectors.pin_ids)
            matrix[at[here]] = vectors.vectors[here]
        created = frame["created_at"]
        return cls(Pins(ids, matrix, topics, unix_ms(created)), created)

    def rows(self, pin_ids: np.ndarray) -> np.ndarray:
        """Row of each pin id, -1 where the lake has no such pin."""
        ids = self.pins.ids
        at = np.minimum(np.searchsorted(ids, pin_ids), len(ids) - 1)
        return np.where(ids[at] == pin_ids, at, -1)


def unix_ms(times: pd.Series) -> np.ndarray:
    """Unix ms, int64, of zoned times."""
    return times.to_numpy(dtype="datetime64[ms]").astype(np.int64)


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
        self.features = features
        self.plan = plan
        self.catalogue = catalogue
        self.history = history
        self.words = cache(words)
        self.history_rows = ActionRows(
            pin_rows=catalogue.rows(history.pin_ids),
            actions=history.actions.astype(np.int32),
            times_ms=history.timestamps_ms,
        )
        self.signs = polarity_signs(plan.vocabulary)
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
        ids = self.catalogue.pins.ids
        popularity = Popularity(ids, self.catalogue.created_at, self.plan.config.popularity_power)
        popularity.count(self.history.pin_ids[self.history.timestamps_ms < before.timestamp() * 1000])
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
        users = rows[USER_ID].to_numpy(dtype=np.int64)
        pin_ids = rows[PIN_ID].to_numpy(dtype=np.int64)
        profiles = self.features.profiles(users, known)
        pin_scalars = self.features.pin_scalars(pin_ids, known)
        starts, ends = self.history.slice(users, unix_ms(known))
        meetings = interactions(
            self.catalogue.pins,
            self.history_rows,
            RequestRows(
                pin_rows=self.catalogue.rows(pin_ids),
                pin_ids=pin_ids,
                times_ms=unix_ms(rows[TIMESTAMP]),
                starts=starts,
                ends=ends,
                followed_starts=profiles.followed_starts,
                followed_ends=profiles.followed_ends,
            ),
            profiles.followed,
            self.signs,
        )
        columns: dict[str, pa.Array] = {
            REQUEST_ID: pa.array(rows[REQUEST_ID].to_numpy(dtype=np.int64)),
            USER_ID: pa.array(users),
            PIN_ID: pa.array(pin_ids),
            POSITION: pa.array(rows[POSITION].to_numpy(dtype=np.int32)),
            TIMESTAMP: pa.array(rows[TIMESTAMP], TIME),
            SURFACE: pa.array(rows[SURFACE], pa.string(), from_pandas=True),
            SOURCE: pa.array(rows[SOURCE], pa.string(), from_pandas=True),
            PROPENSITY: pa.array(rows[PROPENSITY], pa.float32(), from_pandas=True),
            WEIGHT: pa.array(self._weights(rows[PROPENSITY])),
            LABEL: pa.array(labels[:, positive].max(axis=1, initial=0).astype(np.int8)),
        }
        columns |= {LABEL_PREFIX + name: pa.array(labels[:, i]) for i, name in enumerate(names)}
        for prefix, features, block in (
            (USER_PREFIX, USER_SCALARS, profiles.scalars),
            (PIN_PREFIX, PIN_SCALARS, pin_scalars),
            ("", INTERACTION_FEATURES, meetings),
            ("", QUERY_FEATURES, self._asked(rows, pin_ids)),
        ):
            if block.shape != (len(rows), len(features)):
                raise TrainingSetError(
                    f"{prefix or features[0]} features came back as {block.shape} for {len(rows)} rows"
                )
            columns |= {prefix + name: pa.array(block[:, i]) for i, name in enumerate(features)}
        return pa.table(columns)

    def _asked(self, rows: pd.DataFrame, pin_ids: np.ndarray) -> np.ndarray:
        """QUERY_FEATURES of the rows; drawn rows were never searched for."""
        if QUERY not in rows:
            return np.zeros((len(rows), len(QUERY_FEATURES)), np.float32)
        return row_query_features(self.words, rows[QUERY].tolist(), rows[SURFACE].tolist(), pin_ids)

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
