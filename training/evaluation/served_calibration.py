"""What serving foretold of the pins it showed, beside what came of them: calibration as it is lived.

Impressions of the event log carry the probabilities that decided their places. Actions answer them by the same
rule that labels training rows, so that a gap here is a gap in the model or the world, not in the bookkeeping.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from training.data.labels import attribute, multi_hot
from training.evaluation.calibration_metrics import CalibrationRow, calibration_table
from training.evaluation.ranker_metrics import NEW_USER_POSITIVES
from training.evaluation.slices import slices_of
from training.models.ranker import ENGAGE
from validation.events import SEGMENT_SUFFIX, ActionRecord, AnyRecord, ImpressionRecord, from_line
from validation.lake import Lake
from validation.tables import (
    ACTION,
    ACTIONS,
    EVENT_ID,
    PIN_ID,
    RELATED_ADS,
    REQUEST_ID,
    TIMESTAMP,
    USER_ID,
    Polarity,
    Vocabulary,
)

Flags = NDArray[np.bool_]

IDS = (EVENT_ID, REQUEST_ID, USER_ID, PIN_ID)


@dataclass(frozen=True)
class ServedCalibration:
    """One ranker version's probabilities against what happened."""

    ranker: str
    calibrated: bool
    """False where its scores were served as they are."""
    rows: tuple[CalibrationRow, ...]
    """By head and slice; there is no `before`, since the log holds what was served."""
    ads: bool = False
    """Whether it prices ads, and orders nothing else."""


@dataclass
class _Log:
    """Columns of the log's records."""

    shown: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    """event, request, user, pin, time in ms"""
    of: list[ImpressionRecord] = field(default_factory=list)
    acted: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)


def served_calibration(
    events: Path, lake: Lake, *, start: datetime, end: datetime, within: timedelta
) -> tuple[ServedCalibration, ...]:
    """Every ranker version that ordered impressions of `start` <= time < `end`, the newest first.

    An action counts for `within` after its impression: `end` should lie as far back, or the newest impressions
    seem to have come to nothing. Slices are those of `slices_of`. Empty where nothing of that time was ranked.
    """
    vocabulary = lake.contract().vocabulary
    log = _read(events, vocabulary, start, end, within)
    shown, acted = _frame(log.shown), _frame(log.acted).assign(**{ACTION: np.array(log.codes, np.int8)})
    if not len(shown):
        return ()
    labels = multi_hot(
        attribute(shown, acted, within), acted[ACTION].to_numpy(), len(shown), len(vocabulary.names)
    )
    new = _positives_before(shown, _positives(lake, acted, vocabulary, end)) < NEW_USER_POSITIVES
    versions = np.array([f"{r.ranker} {r.calibrated}" for r in log.of])
    found = []
    for version in dict.fromkeys(versions[::-1].tolist()):
        mine = np.flatnonzero(versions == version)
        found.append(_measured([log.of[i] for i in mine.tolist()], labels[mine], new[mine], vocabulary))
    return tuple(found)


def _measured(
    of: list[ImpressionRecord], labels: NDArray[np.int8], new: Flags, vocabulary: Vocabulary
) -> ServedCalibration:
    first = of[0]
    heads = tuple(first.heads or ())
    p = np.array([[(r.heads or {}).get(head, np.nan) for head in heads] for r in of], np.float32)
    slices = slices_of([r.surface for r in of], [r.source for r in of], new)
    answered = np.column_stack([_answers(labels, head, vocabulary) for head in heads])
    rows = calibration_table(answered, None, p, heads, slices)
    ads = all(r.surface == RELATED_ADS for r in of)
    return ServedCalibration(first.ranker or "", bool(first.calibrated), rows, ads)


def _answers(labels: NDArray[np.int8], head: str, vocabulary: Vocabulary) -> NDArray[np.int8]:
    """Which rows a head's action came of, (n,); any positive action for ENGAGE."""
    codes = vocabulary.codes(Polarity.POSITIVE) if head == ENGAGE else (vocabulary.code(head),)
    return labels[:, [code - 1 for code in codes]].max(axis=1)


def _read(events: Path, vocabulary: Vocabulary, start: datetime, end: datetime, within: timedelta) -> _Log:
    """Ranked impressions of the interval, and the actions that may answer them."""
    log = _Log()
    first, last, latest = (int(t.timestamp() * 1000) for t in (start, end, end + within))
    for record in _records(events):
        key = (record.user_id, record.pin_id, record.timestamp_ms)
        if isinstance(record, ImpressionRecord) and record.heads and first <= record.timestamp_ms < last:
            log.shown.append((record.event_id, record.request_id, *key))
            log.of.append(record)
        if isinstance(record, ActionRecord) and first <= record.timestamp_ms <= latest:
            log.acted.append((record.event_id, record.request_id or 0, *key))
            log.codes.append(vocabulary.code(record.action))
    return log


def _records(events: Path) -> Iterator[AnyRecord]:
    """Every record of the log; a torn or foreign line is no record."""
    for segment in sorted(events.glob(f"*{SEGMENT_SUFFIX}")):
        with segment.open("rb") as lines:
            for line in lines:
                try:
                    yield from_line(line)
                except ValidationError:
                    continue  # the ingest counts and keeps it


def _frame(rows: Sequence[tuple[int, int, int, int, int]]) -> pd.DataFrame:
    columns = np.array(rows, np.int64).reshape(len(rows), 5)
    made = pd.DataFrame({name: columns[:, place] for place, name in enumerate(IDS)})
    return made.assign(**{TIMESTAMP: pd.to_datetime(columns[:, 4], unit="ms", utc=True)})


def _positives(lake: Lake, acted: pd.DataFrame, vocabulary: Vocabulary, end: datetime) -> pd.DataFrame:
    """user_id and timestamp of every positive action before `end`, of the lake and the log, each once."""
    columns = [EVENT_ID, USER_ID, TIMESTAMP, ACTION]
    known = [acted[columns]]
    if lake.has(ACTIONS.name):
        known.append(lake.read(ACTIONS.name, columns, end=end))
    every = pd.concat(known).drop_duplicates(EVENT_ID)
    return every.loc[every[ACTION].isin(vocabulary.codes(Polarity.POSITIVE)), [USER_ID, TIMESTAMP]]


def _positives_before(shown: pd.DataFrame, positives: pd.DataFrame) -> NDArray[np.int64]:
    """How many positive actions each impression's user had taken before it, (n,)."""
    mine = positives[positives[USER_ID].isin(shown[USER_ID].unique())].sort_values(TIMESTAMP, kind="stable")
    counted = mine.assign(count=mine.groupby(USER_ID).cumcount() + 1, **{TIMESTAMP: _us(mine)})
    asked = shown[[USER_ID]].assign(row=np.arange(len(shown)), **{TIMESTAMP: _us(shown)})
    joined = pd.merge_asof(
        asked.sort_values(TIMESTAMP, kind="stable"),
        counted,
        on=TIMESTAMP,
        by=USER_ID,
        allow_exact_matches=False,
    )
    return joined.sort_values("row")["count"].fillna(0).to_numpy(np.int64)


def _us(rows: pd.DataFrame) -> pd.Series:
    return rows[TIMESTAMP].astype("datetime64[us, UTC]")


def as_dict(found: Sequence[ServedCalibration]) -> list[Mapping[str, object]]:
    """Every number but the diagrams, for JSON."""
    return [
        {
            "ranker": one.ranker,
            "calibrated": one.calibrated,
            "rows": [
                {
                    "head": row.head,
                    "slice": row.slice,
                    "rows": row.rows,
                    "positives": row.positives,
                    "total_error": row.after.total_error,
                    "ece": row.after.ece,
                    "ece_by_chance": row.ece_by_chance,
                    "log_loss": row.after.log_loss,
                }
                for row in one.rows
            ],
        }
        for one in found
    ]


def interval(days: float, within: timedelta, now: datetime | None = None) -> tuple[datetime, datetime]:
    """The newest `days` of which every answer is in by `now`."""
    end = (now or datetime.now(UTC)) - within
    return end - timedelta(days=days), end
