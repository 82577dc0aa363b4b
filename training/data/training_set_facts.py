"""What a training set is made of: its configuration, its columns, and the facts that are kept beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from training.models.query_features import ON_SEARCH, QUERY_FEATURES
from validation.tables import (
    PIN_ID,
    POSITION,
    PROPENSITY,
    REQUEST_ID,
    SOURCE,
    SURFACE,
    TIMESTAMP,
    USER_ID,
    Vocabulary,
)

IMPRESSIONS, SAMPLED = "impressions", "sampled"
"""Where the rows of a set come from."""

LABEL, WEIGHT = "label", "weight"
LABEL_PREFIX = "label_"
KEYS = (REQUEST_ID, USER_ID, PIN_ID, POSITION, TIMESTAMP, SURFACE, SOURCE, PROPENSITY)


class TrainingSetError(RuntimeError):
    """A training set that would be wrong, or cannot be made; the message says which rule broke and where."""


class NoTrainingRows(TrainingSetError):
    """The interval holds nothing to learn from; nothing is wrong with what it holds."""


class TrainingSetConfig(BaseModel):
    """How rows are labelled, weighted and, without impressions, drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label_window_h: float = Field(24.0, gt=0)
    """An action answers an impression at most so many hours old."""
    weight: Literal["uniform", "inverse_propensity"] = "uniform"
    """`inverse_propensity` weighs a row by 1 / propensity: right where propensity is the rate at which rows
    were kept, noisy where it is a policy's chance to show a pin."""
    max_weight: float = Field(100.0, ge=1)
    impression_days: float = Field(0.5, ge=0, le=1)
    """Impressions are the rows where at least this share of the interval's days with actions has any; where
    fewer have (services began to log what they show only yesterday), negatives are drawn."""
    negatives_per_positive: int = Field(4, ge=1)
    """Only without impressions."""
    popularity_power: float = Field(0.75, ge=0)
    """Only without impressions."""
    ads: bool = False
    """Rows are the impressions of sponsored pins and no others; otherwise all impressions but those."""
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
    """False where every position is 0: there was no order, or nobody recorded it."""
    has_propensity: bool
    has_query: bool = False
    """Whether any row says what was searched for."""
    vocabulary: Vocabulary
    space: str | None
    """Space of the vectors behind the interaction features; None: no vectors, cosines are 0."""
    config: TrainingSetConfig
    fingerprint: str
    """Of everything the set was made from; equal fingerprints mean equal rows."""
    days: dict[str, int]
    """Rows by UTC day."""

    @property
    def query_features(self) -> tuple[str, ...]:
        """What rankers of these rows read of the query."""
        return QUERY_FEATURES if self.has_query else ()

    @property
    def calibration_features(self) -> tuple[str, ...]:
        """What calibrators of these rows read beside the score: pins that were searched for are opened at rates
        of their own."""
        return (ON_SEARCH,) if self.has_query else ()

    @property
    def action_names(self) -> tuple[str, ...]:
        return self.vocabulary.names

    @property
    def rate(self) -> float:
        """Share of rows with a positive label."""
        return self.positives / self.rows if self.rows else float("nan")


STATS = b"corkboard"


@dataclass(frozen=True)
class DayStats:
    """What was counted of one day, kept in its file's metadata."""

    rows: int
    positives: int
    label_sums: dict[str, int]
    answering: int
    actions: int
    immature: int
    positioned: int
    with_propensity: int
    with_query: int

    @classmethod
    def read(cls, file: Path) -> DayStats:
        return cls(**json.loads(pq.read_schema(file).metadata[STATS]))


def day_file(out_dir: Path, day: datetime) -> Path:
    """Where the rows of one UTC day are kept."""
    return out_dir / f"day={day:%Y-%m-%d}.parquet"
