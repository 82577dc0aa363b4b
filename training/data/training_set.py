"""Training sets for rankers: one row an impression, with what was known just before it and what came of it.

    rows          the lake's impressions of [start, end); without any, pages with drawn negatives
    label_<a>     1 where action a answered the impression (`labels.py`); label: any positive action
    user_*, pin_* counters as of the impression, by the feature store's point-in-time join
    interactions  from the user's actions strictly before the impression, by the kernel that serving runs

Written one Parquet file a UTC day and checked as it is written: as many rows as impressions, as many labels as
actions that answered, no pin twice in a request. A build that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from feature_repo.schema import PIN_SCALARS, PIN_TOPICS, SEQUENCE_ARRAYS, USER_SCALARS
from feature_repo.sequence import SequenceLog
from training.context import Progress, silent
from training.data.labels import CLOCK_SKEW, attribute, multi_hot
from training.data.point_in_time import PointInTime
from training.data.sampled_negatives import Popularity, answers, pages
from training.data.splits import DAY, Interval, midnight
from training.models.interactions import (
    INTERACTION_FEATURES,
    ActionRows,
    Pins,
    RequestRows,
    interactions,
    polarity_signs,
)
from training.models.pinnability import PIN_PREFIX, USER_PREFIX
from validation.lake import Lake
from validation.tables import (
    ACTION,
    PIN_ID,
    POSITION,
    PROPENSITY,
    REQUEST_ID,
    SOURCE,
    SURFACE,
    TIME,
    TIMESTAMP,
    USER_ID,
    Polarity,
    Vocabulary,
)

IMPRESSIONS, SAMPLED = "impressions", "sampled"
"""Where the rows of a set come from."""

LABEL, WEIGHT = "label", "weight"
LABEL_PREFIX = "label_"
INFO = "info.json"

_KEYS = (REQUEST_ID, USER_ID, PIN_ID, POSITION, TIMESTAMP, SURFACE, SOURCE, PROPENSITY)


class TrainingSetError(RuntimeError):
    """A training set that would be wrong, or cannot be made; the message says which rule broke and where."""


class TrainingSetConfig(BaseModel):
    """How rows are labelled, weighted and, without impressions, drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label_window_h: float = Field(24.0, gt=0)
    """An action answers an impression at most so many hours old."""
    weight: Literal["uniform", "inverse_propensity"] = "uniform"
    """`inverse_propensity` weighs a row by 1 / propensity: right where propensity is the rate at which rows
    were kept, noisy where it is a policy's chance to show a pin."""
    max_weight: float = Field(100.0, ge=1)
    negatives_per_positive: int = Field(4, ge=1)
    """Only without impressions."""
    popularity_power: float = Field(0.75, ge=0)
    """Only without impressions."""
    seed: int = 7
    chunk_rows: int = Field(400_000, ge=1)
    """Days are joined together until they have this many rows; what bounds memory (about 1 KB a row)."""


@dataclass(frozen=True)
class PinVectors:
    """Vectors of pins in one space, for the interaction features."""

    space: str
    """`content@7`."""
    pin_ids: np.ndarray
    """int64 (p,)."""
    vectors: np.ndarray
    """float32 (p, d), unit rows."""


class TrainingSetInfo(BaseModel):
    """What a training set is made of, and the sums that were checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: datetime
    end: datetime
    scheme: Literal["impressions", "sampled"]
    scheme_note: str
    rows: int
    positives: int
    label_sums: dict[str, int]
    """Rows with a label, by action."""
    actions: int
    """Actions of the interval, answered or not."""
    actions_answering: int
    """Actions that answered an impression of the interval (several may answer one)."""
    immature_rows: int
    """Rows whose label window reaches past the end of the lake's actions."""
    has_position: bool
    has_propensity: bool
    vocabulary: Vocabulary
    space: str | None
    """Space of the vectors behind the interaction features; None: no vectors, cosines are 0."""
    config: TrainingSetConfig
    fingerprint: str
    """Of everything the set was made from; equal fingerprints mean equal rows."""
    days: dict[str, int]
    """Rows by UTC day."""

    @property
    def action_names(self) -> tuple[str, ...]:
        return self.vocabulary.names

    @property
    def rate(self) -> float:
        """Share of rows with a positive label."""
        return self.positives / self.rows if self.rows else float("nan")


@dataclass(frozen=True)
class Block:
    """Rows of a training set as arrays, in file order."""

    keys: pd.DataFrame
    """request_id, user_id, pin_id, position, timestamp, surface, source, propensity."""
    user_scalars: np.ndarray
    """float32 (n, len(USER_SCALARS)), NaN where unknown."""
    pin_scalars: np.ndarray
    """float32 (n, len(PIN_SCALARS)), NaN where unknown."""
    interactions: np.ndarray
    """float32 (n, len(INTERACTION_FEATURES))."""
    position: np.ndarray
    """float32 (n,)."""
    label: np.ndarray
    """int8 (n,): any positive action."""
    labels: np.ndarray
    """int8 (n, actions), in the vocabulary's order."""
    weight: np.ndarray
    """float32 (n,)."""

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class TrainingSet:
    """A finished training set on disk."""

    path: Path

    @cached_property
    def info(self) -> TrainingSetInfo:
        """Raises TrainingSetError where the set is absent or unfinished."""
        file = self.path / INFO
        if not file.exists():
            raise TrainingSetError(f"{self.path} holds no finished training set; build it first")
        return TrainingSetInfo.model_validate_json(file.read_text())

    @property
    def interval(self) -> Interval:
        return Interval(self.info.start, self.info.end)

    def files(self) -> list[Path]:
        """One file a day with rows, oldest first."""
        return [_day_file(self.path, datetime.fromisoformat(day)) for day in self.info.days]

    def read(self, columns: list[str] | None = None, interval: Interval | None = None) -> pd.DataFrame:
        """Columns (all by default) of the rows inside `interval`, in time order."""
        files = [str(f) for f in self.files()]
        within = None
        if interval is not None:
            bounds = [pa.scalar(t, TIME) for t in (interval.start, interval.end)]
            within = (ds.field(TIMESTAMP) >= bounds[0]) & (ds.field(TIMESTAMP) < bounds[1])
        return ds.dataset(files, format="parquet").to_table(columns=columns, filter=within).to_pandas()

    def block(self, interval: Interval | None = None) -> Block:
        """The rows inside `interval` (all by default) as arrays; about 300 bytes a row."""
        rows = self.read(None, interval)
        return Block(
            keys=rows[list(_KEYS)],
            user_scalars=_matrix(rows, [USER_PREFIX + n for n in USER_SCALARS]),
            pin_scalars=_matrix(rows, [PIN_PREFIX + n for n in PIN_SCALARS]),
            interactions=_matrix(rows, list(INTERACTION_FEATURES)),
            position=rows[POSITION].to_numpy(dtype=np.float32),
            label=rows[LABEL].to_numpy(dtype=np.int8),
            labels=rows[[LABEL_PREFIX + a for a in self.info.action_names]].to_numpy(dtype=np.int8),
            weight=rows[WEIGHT].to_numpy(dtype=np.float32),
        )

    def blocks(self) -> Iterator[Block]:
        """The rows day by day, for sets that do not fit in memory."""
        for day in self.info.days:
            at = datetime.fromisoformat(day).replace(tzinfo=UTC)
            yield self.block(Interval(at, at + DAY))


def _matrix(rows: pd.DataFrame, columns: list[str]) -> np.ndarray:
    return np.ascontiguousarray(rows[columns].to_numpy(dtype=np.float32))


def build(
    lake: Lake,
    features: PointInTime,
    out_dir: Path,
    *,
    start: datetime,
    end: datetime,
    vectors: PinVectors | None = None,
    config: TrainingSetConfig | None = None,
    progress: Progress = silent,
) -> TrainingSet:
    """Make the training set of the impressions in [start, end), UTC midnights, in `out_dir`.

    A finished set of the same fingerprint is returned as it is; days that an interrupted build finished are
    kept; a set made from anything else is replaced.

    Raises
    ------
    ValueError : `start` or `end` is no UTC midnight, or they are not in order.
    TrainingSetError : the interval has no rows, or an invariant broke (rows, label sums, repeated pins).
    """
    config = config or TrainingSetConfig()
    for name, when in (("start", start), ("end", end)):
        if when.tzinfo is None or midnight(when) != when:
            raise ValueError(f"{name} of a training set must be a UTC midnight, got {when}")
    interval = Interval(start, end)
    plan = _Plan.of(lake, interval, vectors, config)
    out_dir = Path(out_dir)
    if (out_dir / INFO).exists() and TrainingSet(out_dir).info.fingerprint == plan.fingerprint:
        progress(f"training set {interval}: unchanged")
        return TrainingSet(out_dir)
    _claim(out_dir, plan.fingerprint)
    builder = _Builder(lake, features, plan, _Catalogue.of(lake, vectors), _history(lake, end))
    days: dict[str, _DayStats] = {}
    for chunk in plan.chunks(out_dir):
        if not all(_day_file(out_dir, day).exists() for day in chunk):
            builder.write(out_dir, chunk)
        for day in chunk:
            days[day.date().isoformat()] = _DayStats.read(_day_file(out_dir, day))
        progress(f"training set: {chunk[-1]:%Y-%m-%d}, {sum(d.rows for d in days.values()):,} rows")
    info = _summary(plan, days)
    if info.rows == 0:
        raise TrainingSetError(f"there is nothing to learn from between {start} and {end}: no {plan.scheme}")
    _replace(out_dir / INFO, info.model_dump_json(indent=2).encode())
    return TrainingSet(out_dir)


@dataclass(frozen=True)
class _Plan:
    """What a build is made from."""

    interval: Interval
    config: TrainingSetConfig
    vocabulary: Vocabulary
    scheme: Literal["impressions", "sampled"]
    space: str | None
    data_end: datetime
    fingerprint: str
    day_rows: dict[datetime, int]

    @classmethod
    def of(cls, lake: Lake, interval: Interval, vectors: PinVectors | None, config: TrainingSetConfig) -> _Plan:
        contract = lake.contract()
        scheme = IMPRESSIONS if lake.has(IMPRESSIONS) else SAMPLED
        source = IMPRESSIONS if scheme == IMPRESSIONS else "actions"
        made_of = {
            "interval": str(interval),
            "config": config.model_dump(exclude={"chunk_rows"}),
            "lake": lake.digest(),
            "vocabulary": contract.vocabulary.model_dump(mode="json"),
            "space": vectors.space if vectors else None,
            "vectors": hashlib.sha256(np.ascontiguousarray(vectors.vectors)).hexdigest() if vectors else None,
            "columns": [*USER_SCALARS, *PIN_SCALARS, *INTERACTION_FEATURES],
        }
        fingerprint = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
        return cls(
            interval=interval,
            config=config,
            vocabulary=contract.vocabulary,
            scheme=scheme,
            space=vectors.space if vectors else None,
            data_end=lake.interval()[1],
            fingerprint=fingerprint,
            day_rows={day: _rows_of(lake.file(source, day.date())) for day in interval.days()},
        )

    def chunks(self, out_dir: Path) -> list[list[datetime]]:
        """Days in order, grouped until a group has `chunk_rows`; finished and unfinished days apart."""
        groups: list[list[datetime]] = []
        rows, done = 0, None
        factor = 1 if self.scheme == IMPRESSIONS else 1 + self.config.negatives_per_positive
        for day, count in self.day_rows.items():
            finished = _day_file(out_dir, day).exists()
            if not groups or rows + count * factor > self.config.chunk_rows or finished != done:
                groups.append([])
                rows, done = 0, finished
            groups[-1].append(day)
            rows += count * factor
        return groups


def _rows_of(file: Path) -> int:
    return pq.read_metadata(file).num_rows if file.exists() else 0


def _claim(out_dir: Path, fingerprint: str) -> None:
    """Make the folder ready for this fingerprint: keep its finished days, or empty it of another's."""
    marker = out_dir / "fingerprint"
    if out_dir.exists() and (not marker.exists() or marker.read_text() != fingerprint):
        foreign = [
            p for p in out_dir.iterdir() if p.name not in (INFO, "fingerprint") and p.suffix != ".parquet"
        ]
        if foreign:
            raise TrainingSetError(
                f"{out_dir} holds {foreign[0].name}, which is no training set; choose another"
            )
        shutil.rmtree(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / INFO).unlink(missing_ok=True)
    marker.write_text(fingerprint)


def _day_file(out_dir: Path, day: datetime) -> Path:
    return out_dir / f"day={day:%Y-%m-%d}.parquet"


def _replace(path: Path, content: bytes) -> None:
    staged = path.with_suffix(".tmp")
    staged.write_bytes(content)
    staged.replace(path)


@dataclass(frozen=True)
class _Catalogue:
    """Every pin of the lake as the interaction kernel takes it, by ascending id."""

    pins: Pins
    created_at: pd.Series

    @classmethod
    def of(cls, lake: Lake, vectors: PinVectors | None) -> _Catalogue:
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
        return cls(Pins(ids, matrix, topics, _ms(created)), created)

    def rows(self, pin_ids: np.ndarray) -> np.ndarray:
        """Row of each pin id, -1 where the lake has no such pin."""
        ids = self.pins.ids
        at = np.minimum(np.searchsorted(ids, pin_ids), len(ids) - 1)
        return np.where(ids[at] == pin_ids, at, -1)


def _ms(times: pd.Series) -> np.ndarray:
    """Unix ms, int64, of zoned times."""
    return times.to_numpy(dtype="datetime64[ms]").astype(np.int64)


def _history(lake: Lake, end: datetime) -> SequenceLog:
    """Every action before `end`; read day by day, so that nothing but the numbers is ever in memory."""

    def columns(day: datetime) -> dict[str, np.ndarray]:
        rows = lake.read("actions", ["user_id", "event_id", "pin_id", ACTION, TIMESTAMP], day, day + DAY)
        n = len(rows)
        arrays = (
            rows["event_id"].to_numpy(dtype=np.int64),
            rows["pin_id"].to_numpy(dtype=np.int64),
            rows[ACTION].to_numpy(dtype=np.int8),
            np.zeros(n, np.int8),
            _ms(rows[TIMESTAMP]),
            np.zeros(n, np.float32),
        )
        return {"user_ids": rows["user_id"].to_numpy(dtype=np.int64)} | dict(
            zip(SEQUENCE_ARRAYS, arrays, strict=True)
        )

    days = [datetime(d.year, d.month, d.day, tzinfo=UTC) for d in lake.days("actions")]
    return SequenceLog.from_columns([columns(day) for day in days if day < end])


class _Builder:
    """Makes the rows of some days at a time."""

    def __init__(
        self, lake: Lake, features: PointInTime, plan: _Plan, catalogue: _Catalogue, history: SequenceLog
    ) -> None:
        self.lake = lake
        self.features = features
        self.plan = plan
        self.catalogue = catalogue
        self.history = history
        self.history_rows = ActionRows(
            pin_rows=catalogue.rows(history.pin_ids),
            actions=history.actions.astype(np.int32),
            times_ms=history.timestamps_ms,
        )
        self.signs = polarity_signs(plan.vocabulary)
        self.popularity: Popularity | None = None

    def write(self, out_dir: Path, days: list[datetime]) -> None:
        """Make and write the rows of consecutive days."""
        rows, labels, counts = (
            self._impressions(days) if self.plan.scheme == IMPRESSIONS else self._sampled(days)
        )
        repeated = rows.duplicated([REQUEST_ID, PIN_ID])
        if repeated.any():
            one = rows[repeated].iloc[0]
            raise TrainingSetError(
                f"{int(repeated.sum())} rows repeat a pin within a request, such as pin {one[PIN_ID]} in "
                f"request {one[REQUEST_ID]}: what they were answered with would count twice"
            )
        table = self._table(rows, labels)
        of_day = _days(rows[TIMESTAMP])
        for day in days:
            kept = of_day == _day(day)
            stats = counts[day]
            part = table.filter(pa.array(kept))
            self._check(part, stats, day)
            stats = stats | {"rows": len(part), "positives": int(np.sum(part[LABEL].to_numpy()))}
            stats["immature"] = int((rows.loc[kept, TIMESTAMP] > self._matured()).sum())
            stats["with_propensity"] = len(part) - part[PROPENSITY].null_count
            path = _day_file(out_dir, day)
            staged = path.with_suffix(".tmp")
            meta = {**(part.schema.metadata or {}), _STATS: json.dumps(stats).encode()}
            pq.write_table(part.replace_schema_metadata(meta), staged, compression="zstd")
            staged.replace(path)

    def _matured(self) -> datetime:
        return self.plan.data_end - timedelta(hours=self.plan.config.label_window_h)

    def _impressions(self, days: list[datetime]) -> tuple[pd.DataFrame, np.ndarray, dict[datetime, dict]]:
        """The lake's impressions of the days, their labels, and each day's counts of actions.

        Impressions up to the end of the label window are read as well: an action without a request belongs to
        the latest impression before it, which may be tomorrow's.
        """
        window = timedelta(hours=self.plan.config.label_window_h)
        first, stop = days[0], days[-1] + DAY
        rows = self.lake.read(IMPRESSIONS, list(_KEYS), first, stop + window)
        columns = [USER_ID, PIN_ID, ACTION, TIMESTAMP, REQUEST_ID]
        acts = self.lake.read("actions", columns, first - CLOCK_SKEW, stop + window)
        answered = attribute(rows, acts, window)
        inside = (rows[TIMESTAMP] < stop).to_numpy()
        answered = np.where((answered >= 0) & inside[np.maximum(answered, 0)], answered, -1)
        # rows are in time order, so that those inside come first and keep their row numbers
        rows = rows[: int(inside.sum())]
        codes = acts[ACTION].to_numpy()
        labels = multi_hot(answered, codes, len(rows), len(self.plan.vocabulary.names))
        answered_day = _days(rows[TIMESTAMP])[np.maximum(answered, 0)] if len(rows) else _days(acts[TIMESTAMP])
        action_day = _days(acts[TIMESTAMP])
        return (
            rows,
            labels,
            {
                day: self._counts(
                    answered, codes, (answered >= 0) & (answered_day == _day(day)), action_day == _day(day)
                )
                for day in days
            },
        )

    def _sampled(self, days: list[datetime]) -> tuple[pd.DataFrame, np.ndarray, dict[datetime, dict]]:
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
        return pd.concat(parts, ignore_index=True), np.concatenate(labels), counts

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

    def _table(self, rows: pd.DataFrame, labels: np.ndarray) -> pa.Table:
        """Every column of the set, in the order of `rows`."""
        names = self.plan.vocabulary.names
        positive = [c - 1 for c in self.plan.vocabulary.codes(Polarity.POSITIVE)]
        users = rows[USER_ID].to_numpy(dtype=np.int64)
        pin_ids = rows[PIN_ID].to_numpy(dtype=np.int64)
        profiles = self.features.profiles(users, rows[TIMESTAMP])
        pin_scalars = self.features.pin_scalars(pin_ids, rows[TIMESTAMP])
        times = _ms(rows[TIMESTAMP])
        starts, ends = self.history.slice(users, times)
        meetings = interactions(
            self.catalogue.pins,
            self.history_rows,
            RequestRows(
                pin_rows=self.catalogue.rows(pin_ids),
                pin_ids=pin_ids,
                times_ms=times,
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
        ):
            if block.shape != (len(rows), len(features)):
                raise TrainingSetError(
                    f"{prefix or 'interaction'} features came back as {block.shape} for {len(rows)} rows"
                )
            columns |= {prefix + name: pa.array(block[:, i]) for i, name in enumerate(features)}
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


def _days(times: pd.Series) -> np.ndarray:
    """UTC days, datetime64[D]."""
    return times.to_numpy(dtype="datetime64[us]").astype("datetime64[D]")


def _day(day: datetime) -> np.datetime64:
    return np.datetime64(day.date())


_STATS = b"corkboard"


@dataclass(frozen=True)
class _DayStats:
    rows: int
    positives: int
    label_sums: dict[str, int]
    answering: int
    actions: int
    immature: int
    with_propensity: int

    @classmethod
    def read(cls, file: Path) -> _DayStats:
        return cls(**json.loads(pq.read_schema(file).metadata[_STATS]))


_NOTES = {
    IMPRESSIONS: "one row an impression; an action answers the impression of its request, or without one the "
    "latest impression of the pin in the {window:g} hours before it",
    SAMPLED: "no impressions: one page an acted-on (user, pin, day), with {k} draws of other pins by (actions "
    "so far + 1) ** {power:g}; positions and base rates mean nothing",
}


def _summary(plan: _Plan, days: dict[str, _DayStats]) -> TrainingSetInfo:
    config, stats = plan.config, list(days.values())
    rows = sum(d.rows for d in stats)
    return TrainingSetInfo(
        start=plan.interval.start,
        end=plan.interval.end,
        scheme=plan.scheme,
        scheme_note=_NOTES[plan.scheme].format(
            window=config.label_window_h, k=config.negatives_per_positive, power=config.popularity_power
        ),
        rows=rows,
        positives=sum(d.positives for d in stats),
        label_sums={a: sum(d.label_sums[a] for d in stats) for a in plan.vocabulary.names},
        actions=sum(d.actions for d in stats),
        actions_answering=sum(d.answering for d in stats),
        immature_rows=sum(d.immature for d in stats),
        has_position=plan.scheme == IMPRESSIONS,
        has_propensity=rows > 0 and sum(d.with_propensity for d in stats) == rows,
        vocabulary=plan.vocabulary,
        space=plan.space,
        config=config,
        fingerprint=plan.fingerprint,
        days={day: d.rows for day, d in days.items() if d.rows},
    )
