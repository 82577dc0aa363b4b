"""Logged rankings made anew from history: do training and serving see the same features, and score alike?

    the side log `rankings`       what serving saw: features, scores, how long the sequence was
    lake and event log            every action there was, whether the lake has it by now or not; what was shown
                                  before the midnight that a user's history was cut at, of the lake alone
    Feast's historical retrieval  what was known of user and pin at the request's time
    the registry                  the release's ranker, calibrator, content vectors and words

Rows are joined by `FeatureJoin` and scored by `served_scores`, as training rows are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from feature_repo.history import ShownLog
from feature_repo.jobs.history import read_shown
from feature_repo.jobs.replay import logged_columns
from feature_repo.schema import SHOWN_DAYS
from feature_repo.sequence import SequenceLog
from training.context import TrainingContext
from training.data.feature_join import Catalogue, FeatureJoin
from training.data.splits import DAY, Interval, midnight
from training.data.training_set_facts import PinVectors
from training.evaluation.agreement import Agreement, Floats, Tolerance, agreement
from training.evaluation.ranking_records import (
    HISTORY,
    RELEASE,
    SEQUENCE,
    block_of,
    cut_at,
    histories,
    histories_seen,
    logged,
    rows_of,
    scored,
    seen,
    sequences,
)
from training.evaluation.served_scores import served_scores
from training.models.calibration import Calibrator
from training.models.interactions import polarity_signs
from training.models.lexical import LexicalIndex
from training.models.ranker import Ranker
from training.pipelines.catalogues import catalogue_of, space_part
from training.pipelines.night_vectors import night_vectors
from training.registry import Registry
from training.release import load_manifest
from training.release_evaluation import point_in_time
from training.release_files import released_files
from training.release_parts import LEXICAL, RANKER, ReleaseError, calibrated_ranker, registry_of, space_of
from training.transact.examples import Known, PinTable, UserVectors
from validation.events import RankingRecord
from validation.lake import Lake
from validation.manifest import Part
from validation.tables import PIN_ID, REQUEST_ID, TIMESTAMP

SCORE = "score_"
"""Before the names of heads."""


class NothingLogged(RuntimeError):
    """No ranking of the time asked for was logged; the message says how to log some."""


class UnknownFeatures(RuntimeError):
    """Serving logged what this code does not make; the message names it and says what to do."""


class ReplayConfig(BaseModel):
    """What is replayed, and what counts as agreement."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: datetime | None = None
    """Requests from then on (UTC); all that are in the log if left out."""
    max_requests: int = Field(2000, ge=1)
    """The newest so many."""
    tolerance: float = Field(1e-5, ge=0)
    """Of features: absolute, and relative to the offline value."""
    score_tolerance: float = Field(1e-3, ge=0)
    """Of probabilities, absolute. A CPU that ranks in lower precision may be off by 0.03."""

    def of(self, name: str) -> Tolerance:
        """What counts as agreement of a feature, or of a score."""
        if name.startswith(SCORE):
            return Tolerance(self.score_tolerance, 0.0)
        return Tolerance(self.tolerance, self.tolerance)


@dataclass(frozen=True)
class Sides:
    """The rows of one ranker, as served and as made anew."""

    keys: pd.DataFrame
    columns: Mapping[str, tuple[Floats, Floats]]
    """Of each feature, and each head with SCORE before it: (n,) online and (n,) offline."""


@dataclass(frozen=True)
class Replayed:
    """What serving and training say of the same rows."""

    requests: int
    rows: int
    releases: tuple[int, ...]
    agreements: tuple[Agreement, ...]
    """Of every feature and score."""
    examples: Mapping[str, str]
    """Of each that does not agree everywhere: its worst row, in words."""

    @property
    def share(self) -> float:
        """Of all values that agree."""
        return sum(a.agreeing for a in self.agreements) / max(sum(a.rows for a in self.agreements), 1)

    def below(self, least: float) -> tuple[Agreement, ...]:
        """Features and scores of which less than a share `least` agrees, the worst first."""
        return tuple(sorted((a for a in self.agreements if a.share < least), key=lambda a: a.share))


@dataclass(frozen=True)
class Scorer:
    """A release's ranker with what it reads beside the rows."""

    ranker: Ranker
    calibrator: Calibrator
    known: Known


def replay(ctx: TrainingContext, events_dir: Path, config: ReplayConfig) -> Replayed:
    """Replays the newest logged rankings.

    Raises NothingLogged, UnknownFeatures, LakeError, and ReleaseError for a release that is gone or ranks by
    another ranker.
    """
    records = logged(events_dir, config.since, ctx.progress)[-config.max_requests :]
    if not records:
        raise NothingLogged(
            f"{events_dir} holds no ranking to replay; services log a share of what they rank"
            " (CORKBOARD_RANKINGS_RATE; those started with 1 log all)"
        )
    lake = Lake(ctx.lake)
    history = SequenceLog.from_columns(logged_columns(lake, events_dir, ctx.progress))
    sides = []
    for own in kinds(records):
        ctx.progress(f"release {own[0].release or 0}, {own[0].ranker}: {len(own)} requests")
        sides.append(both(own, *_of_release(ctx, lake, history, own)))
    return compared(sides, config)


def kinds(records: Iterable[RankingRecord]) -> list[list[RankingRecord]]:
    """The records, each list of one ranker and with the same columns, in the order given."""
    found: dict[tuple[object, ...], list[RankingRecord]] = {}
    for record in records:
        key = (record.release or 0, record.ranker, record.calibrated, record.features, record.heads)
        found.setdefault(key, []).append(record)
    return list(found.values())


def both(records: list[RankingRecord], join: FeatureJoin, scorer: Scorer) -> Sides:
    """What `records`, all of one kind (`kinds`), saw, beside the same rows joined and scored anew. Raises
    UnknownFeatures."""
    first, rows = records[0], rows_of(records)
    made = join.of(rows, rows[TIMESTAMP])
    block = block_of(rows, made)
    shown, as_of_ms = scorer.known.shown, cut_at(records)
    raw = served_scores(scorer.ranker, block, scorer.known, as_of_ms=as_of_ms)
    beside = block.columns(scorer.calibrator.features)
    offline = {name: values[:, i] for group, values in made.groups() for i, name in enumerate(group)}
    offline |= dict(zip(SEQUENCE, sequences(rows, join.history).T, strict=True))
    online = dict(zip((*first.features, *SEQUENCE), seen(records).T, strict=True))
    if shown is not None:
        offline |= dict(zip(HISTORY, histories(rows, as_of_ms, join.history, shown).T, strict=True))
        online |= dict(zip(HISTORY, histories_seen(records).T, strict=True))
    heads = scorer.calibrator.calibrate(raw, beside) if first.calibrated else raw
    offline |= {SCORE + name: heads[:, i] for i, name in enumerate(scorer.ranker.heads)}
    online |= {SCORE + name: scores for name, scores in zip(first.heads, scored(records).T, strict=True)}
    return Sides(rows, beside_each_other(online, offline))


def beside_each_other(
    online: Mapping[str, Floats], offline: Mapping[str, Floats]
) -> dict[str, tuple[Floats, Floats]]:
    """What serving saw and what was made anew, by name. Raises UnknownFeatures for what only serving has."""
    unknown = [name for name in online if name not in offline]
    if unknown:
        raise UnknownFeatures(
            f"services logged {', '.join(unknown)}, which this version of the code does not make: replay with"
            " the version that served, or with `--since` what was logged after it"
        )
    return {name: (values, offline[name]) for name, values in online.items()}


def compared(sides: Iterable[Sides], config: ReplayConfig) -> Replayed:
    """The agreement over all rankers; what some of them do not have counts where it is."""
    sides = list(sides)
    keys = pd.concat([side.keys for side in sides])
    found: list[Agreement] = []
    examples: dict[str, str] = {}
    for name in dict.fromkeys(name for side in sides for name in side.columns):
        own = [side for side in sides if name in side.columns]
        online, offline = (np.concatenate([side.columns[name][i] for side in own]) for i in (0, 1))
        found.append(agreement(name, online, offline, config.of(name)))
        worst = found[-1].worst
        if worst is not None:
            row = pd.concat([side.keys for side in own]).iloc[worst]
            examples[name] = (
                f"request {row[REQUEST_ID]}, pin {row[PIN_ID]}, {row[TIMESTAMP]:%Y-%m-%d %H:%M:%S} UTC:"
                f" online {online[worst]:.6g}, offline {offline[worst]:.6g}"
            )
    releases = tuple(sorted(int(version) for version in keys[RELEASE].unique()))
    return Replayed(keys[REQUEST_ID].nunique(), len(keys), releases, tuple(found), examples)


def _of_release(
    ctx: TrainingContext, lake: Lake, history: SequenceLog, records: list[RankingRecord]
) -> tuple[FeatureJoin, Scorer]:
    """What the rows of a release's ranker are joined with, and what scored them."""
    manifest = load_manifest(ctx, records[0].release or 0)
    registry, part = registry_of(ctx), manifest.parts.get(RANKER)
    if part is None or part.name != records[0].ranker:
        raise ReleaseError(f"release {records[0].release} does not rank by {records[0].ranker}, as was logged")
    ranker, calibrator = calibrated_ranker(released_files(registry, part), part)
    space = space_of(part)
    pins = catalogue_of(ctx, space_part(registry, space))
    lexical = manifest.parts.get(LEXICAL)
    join = FeatureJoin(
        point_in_time(ctx),
        Catalogue.of(lake, PinVectors(space, pins.ids, pins.vectors)),
        history,
        polarity_signs(lake.contract().vocabulary),
        lambda: _words(registry, lexical),
    )
    users = _user_vectors(ctx, registry, ranker, records)
    shown = _shown(lake, history, records) if ranker.reads_history else None
    known = Known(history, PinTable(pins.ids, pins.vectors), users, ranker.user_space, shown)
    return join, Scorer(ranker, calibrator, known)


def _shown(lake: Lake, history: SequenceLog, records: list[RankingRecord]) -> ShownLog:
    """What people were shown before the records, which are in the order of time."""
    cuts = cut_at(records)
    first, last = (pd.Timestamp(at, unit="ms", tz="UTC").to_pydatetime() for at in (cuts.min(), cuts.max()))
    return read_shown(lake, history, first - SHOWN_DAYS * DAY, last)


def _words(registry: Registry, part: Part | None) -> LexicalIndex | None:
    return None if part is None else LexicalIndex.load(released_files(registry, part))


def _user_vectors(
    ctx: TrainingContext, registry: Registry, ranker: Ranker, records: list[RankingRecord]
) -> UserVectors | None:
    """Users' vectors of the nights before the records, which are in the order of time."""
    if ranker.user_space is None:
        return None
    first, last = (
        midnight(pd.Timestamp(record.timestamp_ms, unit="ms", tz="UTC").to_pydatetime())
        for record in (records[0], records[-1])
    )
    return night_vectors(ctx, space_part(registry, ranker.user_space), Interval(first, last + DAY))
