"""What one build of a training set is made from: its days, their sizes, and a fingerprint of every input."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from training.data.splits import Interval
from training.data.training_set_facts import (
    IMPRESSIONS,
    SAMPLED,
    DayStats,
    PinVectors,
    TrainingSetConfig,
    TrainingSetInfo,
    day_file,
)
from training.models.interactions import INTERACTION_FEATURES
from training.models.query_features import QUERY_FEATURES
from validation.lake import Lake
from validation.surfaces import of_surfaces
from validation.tables import LEARNED_TABLES, SURFACE, Vocabulary

_ROOT = Path(__file__).parents[2]
_CODE = (
    "feature_repo/jobs/*.py",
    "feature_repo/sequence.py",
    "feature_repo/sequence_kernels.py",
    "feature_repo/point_in_time.py",
    "training/models/interactions.py",
    "training/models/query_features.py",
    "training/models/lexical/*.py",
    "training/data/feature_join.py",
    "training/data/labels.py",
    "training/data/sampled_negatives.py",
    "training/data/point_in_time.py",
    "training/data/training_rows.py",
    "validation/surfaces.py",
)


@dataclass(frozen=True)
class Plan:
    """What a build is made from."""

    interval: Interval
    config: TrainingSetConfig
    vocabulary: Vocabulary
    scheme: Literal["impressions", "sampled"]
    coverage: str
    """Which of the days with actions have impressions, in words."""
    space: str | None
    data_end: datetime
    fingerprint: str
    day_rows: dict[datetime, int]

    @classmethod
    def of(cls, lake: Lake, interval: Interval, vectors: PinVectors | None, config: TrainingSetConfig) -> Plan:
        contract = lake.contract()
        wanted = {day.date() for day in interval.days()}
        acted, shown = wanted & set(lake.days("actions")), wanted & set(lake.days(IMPRESSIONS))
        enough = lake.has(IMPRESSIONS) and (
            config.ads or len(acted & shown) >= config.impression_days * len(acted)
        )
        scheme = IMPRESSIONS if enough else SAMPLED
        source = IMPRESSIONS if scheme == IMPRESSIONS else "actions"
        made_of = {
            "interval": str(interval),
            "config": config.model_dump(exclude={"chunk_rows"}),
            "lake": lake.digest(LEARNED_TABLES),
            "scheme": scheme,
            "vocabulary": contract.vocabulary.model_dump(mode="json"),
            "space": vectors.space if vectors else None,
            "vectors": _digest(vectors) if vectors else None,
            "columns": [*USER_SCALARS, *PIN_SCALARS, *INTERACTION_FEATURES, *QUERY_FEATURES],
            "code": _code(),
        }
        fingerprint = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
        return cls(
            interval=interval,
            config=config,
            vocabulary=contract.vocabulary,
            scheme=scheme,
            coverage=f"impressions on {len(acted & shown)} of {len(acted)} days with actions"
            if shown
            else "no impressions",
            space=vectors.space if vectors else None,
            data_end=lake.interval()[1],
            fingerprint=fingerprint,
            day_rows={
                day: _shown(lake.file(source, day.date()), config.ads)
                if scheme == IMPRESSIONS
                else _rows_of(lake.file(source, day.date()))
                for day in interval.days()
            },
        )

    def chunks(self, out_dir: Path) -> list[list[datetime]]:
        """Days in order, grouped until a group has `chunk_rows`; finished and unfinished days apart."""
        groups: list[list[datetime]] = []
        rows, done = 0, None
        factor = 1 if self.scheme == IMPRESSIONS else 1 + self.config.negatives_per_positive
        for day, count in self.day_rows.items():
            finished = day_file(out_dir, day).exists()
            if not groups or rows + count * factor > self.config.chunk_rows or finished != done:
                groups.append([])
                rows, done = 0, finished
            groups[-1].append(day)
            rows += count * factor
        return groups


def _digest(vectors: PinVectors) -> str:
    sha = hashlib.sha256(np.ascontiguousarray(vectors.pin_ids))
    sha.update(np.ascontiguousarray(vectors.vectors))
    return sha.hexdigest()


def _code() -> str:
    """Digest of the code that decides what rows hold: a mended feature is never taken for the old one."""
    sha = hashlib.sha256()
    for pattern in _CODE:
        for file in sorted(_ROOT.glob(pattern)):
            sha.update(file.read_bytes())
    return sha.hexdigest()


def _shown(file: Path, ads: bool) -> int:
    if not file.exists():
        return 0
    surfaces = pq.read_table(file, columns=[SURFACE]).column(0)
    return int(of_surfaces(surfaces, ads).sum())


def _rows_of(file: Path) -> int:
    return pq.read_metadata(file).num_rows if file.exists() else 0


_NOTES = {
    IMPRESSIONS: "one row an impression; an action answers the impression of its request, or without one the "
    "latest impression of the pin in the {window:g} hours before it",
    SAMPLED: "{coverage}: one page an acted-on (user, pin, day), with {k} draws of other pins by (actions "
    "so far + 1) ** {power:g}; positions and base rates mean nothing",
}


def summary(plan: Plan, days: dict[str, DayStats]) -> TrainingSetInfo:
    config, stats = plan.config, list(days.values())
    rows = sum(d.rows for d in stats)
    return TrainingSetInfo(
        start=plan.interval.start,
        end=plan.interval.end,
        scheme=plan.scheme,
        scheme_note=_NOTES[plan.scheme].format(
            coverage=plan.coverage,
            window=config.label_window_h,
            k=config.negatives_per_positive,
            power=config.popularity_power,
        ),
        rows=rows,
        positives=sum(d.positives for d in stats),
        label_sums={a: sum(d.label_sums[a] for d in stats) for a in plan.vocabulary.names},
        actions=sum(d.actions for d in stats),
        actions_answering=sum(d.answering for d in stats),
        immature_rows=sum(d.immature for d in stats),
        has_position=any(d.positioned for d in stats),
        has_propensity=rows > 0 and sum(d.with_propensity for d in stats) == rows,
        has_query=any(d.with_query for d in stats),
        vocabulary=plan.vocabulary,
        space=plan.space,
        config=config,
        fingerprint=plan.fingerprint,
        days={day: d.rows for day, d in days.items() if d.rows},
    )
