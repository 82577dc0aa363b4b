"""Training sets for rankers: one row an impression, with what was known just before it and what came of it.

    rows          the lake's impressions of [start, end); on too few days, pages with drawn negatives
    label_<a>     1 where action a answered the impression (`labels.py`); label: any positive action
    user_*, pin_* counters as of the impression, by the feature store's point-in-time join
    query         from what was searched for and what the pin says, by the function that serving runs
    interactions  from the user's actions strictly before the impression, by the kernel that serving runs

Written one Parquet file a UTC day and checked as it is written: as many rows as impressions, as many labels as
actions that answered, no pin twice in a request. A build that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from training.context import Progress, silent
from training.data.feature_join import Catalogue
from training.data.point_in_time import PointInTime
from training.data.splits import DAY, Interval, midnight
from training.data.training_plan import Plan, summary
from training.data.training_rows import RowBuilder, history_of
from training.data.training_set_facts import (
    KEYS,
    LABEL,
    LABEL_PREFIX,
    SAMPLED,
    WEIGHT,
    DayStats,
    NoTrainingRows,
    PinVectors,
    TrainingSetConfig,
    TrainingSetError,
    TrainingSetInfo,
    day_file,
)
from training.models.interactions import INTERACTION_FEATURES
from training.models.pinnability import PIN_PREFIX, USER_PREFIX
from training.models.query_features import QUERY_FEATURES
from validation.lake import Lake
from validation.tables import POSITION, TIME, TIMESTAMP

if TYPE_CHECKING:
    from training.models.lexical import LexicalIndex

__all__ = [
    "Block",
    "NoTrainingRows",
    "PinVectors",
    "TrainingSet",
    "TrainingSetConfig",
    "TrainingSetError",
    "TrainingSetInfo",
    "build",
]

INFO = "info.json"


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
    query: np.ndarray
    """float32 (n, len(QUERY_FEATURES)); zeros in a set made before there were any."""
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

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """Features by the names that rankers give them, (n, len(names)) float32, NaN where unknown."""
        known = {
            **{USER_PREFIX + n: self.user_scalars[:, i] for i, n in enumerate(USER_SCALARS)},
            **{PIN_PREFIX + n: self.pin_scalars[:, i] for i, n in enumerate(PIN_SCALARS)},
            **{n: self.query[:, i] for i, n in enumerate(QUERY_FEATURES)},
        }
        return np.stack([known[n] for n in names], axis=1) if names else np.empty((len(self), 0), np.float32)

    def take(self, rows: np.ndarray) -> Block:
        """Those rows alone, in the order given."""
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "keys"}
        return Block(keys=self.keys.iloc[rows].reset_index(drop=True), **arrays)


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
        return [day_file(self.path, datetime.fromisoformat(day)) for day in self.info.days]

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
            keys=rows[list(KEYS)],
            user_scalars=_matrix(rows, [USER_PREFIX + n for n in USER_SCALARS]),
            pin_scalars=_matrix(rows, [PIN_PREFIX + n for n in PIN_SCALARS]),
            interactions=_matrix(rows, list(INTERACTION_FEATURES)),
            query=_matrix(rows.reindex(columns=list(QUERY_FEATURES), fill_value=0), list(QUERY_FEATURES)),
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
    words: Callable[[], LexicalIndex | None] = lambda: None,
    config: TrainingSetConfig | None = None,
    progress: Progress = silent,
) -> TrainingSet:
    """Make the training set of the impressions in [start, end), UTC midnights, in `out_dir`.

    A finished set of the same fingerprint is returned as it is; days that an interrupted build finished are
    kept; a set made from anything else is replaced, unless the interval has no rows. `words` makes the index of
    what the lake's pins say; it is called where a row has a query.

    Raises
    ------
    ValueError : `start` or `end` is no UTC midnight, or they are not in order.
    NoTrainingRows : the interval has no rows.
    TrainingSetError : an invariant broke (rows, label sums, repeated pins).
    """
    config = config or TrainingSetConfig()
    for name, when in (("start", start), ("end", end)):
        if when.tzinfo is None or midnight(when) != when:
            raise ValueError(f"{name} of a training set must be a UTC midnight, got {when}")
    interval = Interval(start, end)
    plan = Plan.of(lake, interval, vectors, config)
    out_dir = Path(out_dir)
    if (out_dir / INFO).exists() and TrainingSet(out_dir).info.fingerprint == plan.fingerprint:
        progress(f"training set {interval}: unchanged")
        return TrainingSet(out_dir)
    if not any(plan.day_rows.values()):
        source = "actions" if plan.scheme == SAMPLED else plan.scheme
        raise NoTrainingRows(f"there is nothing to learn from between {start} and {end}: no {source}")
    progress(f"training set {interval}: {plan.coverage}, {plan.scheme} rows")
    _claim(out_dir, plan.fingerprint)
    builder = RowBuilder(lake, features, plan, Catalogue.of(lake, vectors), history_of(lake, end), words)
    days: dict[str, DayStats] = {}
    for chunk in plan.chunks(out_dir):
        if not all(day_file(out_dir, day).exists() for day in chunk):
            builder.write(out_dir, chunk)
        for day in chunk:
            days[day.date().isoformat()] = DayStats.read(day_file(out_dir, day))
        progress(f"training set: {chunk[-1]:%Y-%m-%d}, {sum(d.rows for d in days.values()):,} rows")
    info = summary(plan, days)
    _replace(out_dir / INFO, info.model_dump_json(indent=2).encode())
    return TrainingSet(out_dir)


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


def _replace(path: Path, content: bytes) -> None:
    staged = path.with_suffix(".tmp")
    staged.write_bytes(content)
    staged.replace(path)
