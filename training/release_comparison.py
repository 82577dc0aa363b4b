"""Two releases on one evaluation: what each part is measured on, and the comparison that gates read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from feature_repo.vectors.rows import PinRows
from training import index
from training.context import TrainingContext
from training.data.splits import DAY, Interval, midnight
from training.data.training_set import Block, TrainingSet
from training.evaluation.histories import Histories
from training.evaluation.measured import Measured, measure_baselines
from training.evaluation.paired import TAIL, paired
from training.evaluation.retrieval import EVALUATED_USERS, NothingHeldOut, hold_out_last
from training.evaluation.served import AtCut
from training.models.calibration import Calibrator
from training.models.calibration.calibrator import FILE as CALIBRATION
from training.models.pinnersage import PinnerSageConfig
from training.models.pixie import ReleasedPixie
from training.models.ranker import Ranker, load_ranker
from training.pipelines import content as content_pipeline
from training.pipelines import transact as transact_pipeline
from training.pipelines.catalogues import catalogue_of, space_part
from training.pipelines.clock import run_end
from training.pipelines.content import content_space_of
from training.pipelines.night_vectors import night_vectors
from training.pipelines.pixie import released_graph_at
from training.pipelines.ranker_features import drift_metrics, kept_baseline
from training.pipelines.transact import known_of
from training.registry import Registry
from training.release_evaluation import (
    evaluation_id,
    measure_learned,
    measure_pinnersage,
    measure_pixie,
    measure_ranker,
    ranking_rows,
    same_rows,
    tested_days,
    tested_rows,
)
from training.release_files import released_files
from training.release_parts import (
    LEXICAL,
    PINNERSAGE,
    PIXIE,
    RANKER,
    RANKERS,
    SEARCHSAGE,
    ReleaseError,
    calibrated_ranker,
    registry_of,
    space_of,
)
from training.transact.examples import Known, PinTable
from validation.gate_results import Comparison, Paired
from validation.gates import RETRIEVERS
from validation.lake import Lake
from validation.manifest import ADS, Part, ReleaseManifest, Space
from validation.surface_gates import CLICKS
from validation.tables import TIMESTAMP

REGISTERED = {
    f"{SEARCHSAGE}/recall_at_10": f"{SEARCHSAGE}/queries",
    f"{SEARCHSAGE}/judged_ndcg_at_10": f"{SEARCHSAGE}/judged_queries",
    CLICKS: f"{ADS}/positives/click/all",
}
"""Metrics that are compared as two manifests hold them, and the metric of each that counts its sample."""


@dataclass(frozen=True)
class Bench:
    """What releases are measured on, read once: held-out users, ranking rows, the vectors of each space."""

    ctx: TrainingContext
    registry: Registry
    past: Histories | None
    """The held-out users; None where nobody is."""
    no_past: str
    """Why nobody is held out."""
    rows: TrainingSet | None
    """The newest training set of rankers; its last days test."""
    _stored: dict[str, PinRows] = field(default_factory=dict)
    _measured: dict[str, Measured] = field(default_factory=dict)
    _at_cut: dict[str, AtCut] = field(default_factory=dict)
    """By content space."""

    @classmethod
    def of(cls, ctx: TrainingContext, parts: Iterable[Part]) -> Bench:
        """From the lake and the training set as they are now, for measuring `parts`.

        No day is held out that the weights of any of them have seen: the lake may have come to hold out more
        days than it did when they were trained.
        """
        past, no_past, lake, registry = None, "", Lake(ctx.lake), registry_of(ctx)
        found = [part for part in parts if part.model not in RANKERS]  # rankers have test days of their own
        learned = [registry.learned_until(part.model, part.version) for part in found]
        since = max((until for until in learned if until is not None), default=None)
        try:
            held = hold_out_last(lake, run_end(ctx), since=since).sample(EVALUATED_USERS, ctx.seed)
            past = Histories.before(lake, held)
        except NothingHeldOut as error:
            no_past = str(error)
        return cls(ctx, registry, past, no_past, ranking_rows(ctx))

    @property
    def evaluation(self) -> str:
        return evaluation_id(None if self.past is None else self.past.held, self.rows)

    @cached_property
    def baselines(self) -> dict[str, float]:
        """Popularity and chance on the held-out users; nothing where nobody is held out."""
        return {} if self.past is None else measure_baselines(Lake(self.ctx.lake), self.past)

    def stored(self, space: str) -> PinRows:
        """Everything the space's collection holds. Raises CollectionMissing."""
        if space not in self._stored:
            self._stored[space] = index.read(self.ctx.milvus_uri, space)
        return self._stored[space]

    def files(self, part: Part) -> Path:
        """Folder of a part's files. Raises ReleaseError where they are not those that were released."""
        return released_files(self.registry, part)

    def retrieval(self, role: str, part: Part) -> Measured:
        """A retriever as it would have served at the cut. Raises ReleaseError where nobody is held out."""
        if self.past is None:
            raise ReleaseError(self.no_past)
        key = f"{part.model}@{part.version} {part.space}"
        if key not in self._measured:
            self.ctx.progress(f"measuring {part.model}@{part.version} on {len(self.past.held)} users")
            measure = {PINNERSAGE: self._pinnersage, PIXIE: self._pixie}.get(role, self._learned)
            self._measured[key] = measure(self.past, part)
        return self._measured[key]

    def tested(self, part: Part, since: datetime | None) -> Block:
        """The rows a ranker is measured on, of the days from `since` on. Raises NothingTested."""
        assert self.rows is not None
        space, days = space_of(part), tested_days(self.rows, since)
        stored = None if self.rows.info.space == space else self.stored(space)
        return tested_rows(self.ctx, self.rows, space, stored, days)

    def ranking(self, part: Part, block: Block) -> Measured:
        """A ranker with its calibrator on `block`; one of a time before calibrators as it served, without.

        Raises ReleaseError where the calibrator is another version's.
        """
        assert self.rows is not None
        files = self.files(part)
        if (files / CALIBRATION).exists():
            ranker, calibrator = calibrated_ranker(files, part)
        else:
            ranker = load_ranker(files)
            calibrator = Calibrator.identity(f"{part.model}@{part.version}", ranker.heads)
        known = self._known(part, ranker, block) if part.model == transact_pipeline.MODEL else None
        return measure_ranker(ranker, calibrator, block, self.rows.info.action_names, known)

    def drift(self, part: Part) -> dict[str, float]:
        """How far features of the newest test days have moved from those a ranker learned from.

        See `drift_metrics`. Nothing without a training set, or where no baseline stands beside the version.
        """
        files = self.files(part)
        baseline = kept_baseline(files)
        if baseline is None or self.rows is None:
            return {}
        return drift_metrics(baseline, load_ranker(files).spec, self.tested(part, None))

    def _known(self, part: Part, ranker: Ranker, block: Block) -> Known:
        """What TransAct reads beside the rows of `block`, in the part's own spaces."""
        times, stored = block.keys[TIMESTAMP], self.stored(space_of(part))
        days = Interval(midnight(times.min().to_pydatetime()), midnight(times.max().to_pydatetime()) + DAY)
        users = None
        if ranker.user_space is not None:
            users = night_vectors(self.ctx, space_part(self.registry, ranker.user_space), days)
        pins = PinTable(stored.ids, stored.vectors)
        return known_of(
            Lake(self.ctx.lake),
            pins,
            days.end,
            users,
            ranker.user_space,
            histories_from=days.start if ranker.reads_history else None,
        )

    def _pinnersage(self, past: Histories, part: Part) -> Measured:
        config = PinnerSageConfig.load(self.files(part))
        return measure_pinnersage(self.ctx, past, self._rows_at(past, space_of(part)), config)

    def _pixie(self, past: Histories, part: Part) -> Measured:
        graph = released_graph_at(self.ctx, part, past.held.cut)
        return measure_pixie(self.ctx, past, graph, ReleasedPixie.load(self.files(part)).settings)

    def _learned(self, past: Histories, part: Part) -> Measured:
        space = content_space_of(self.registry, part)
        if space not in self._at_cut:
            content = catalogue_of(self.ctx, space_part(self.registry, space))
            self._at_cut[space] = AtCut.read(Lake(self.ctx.lake), content, past)
        return measure_learned(part.model, self.files(part), self._at_cut[space], self.ctx.seed)

    def _rows_at(self, past: Histories, space: str) -> PinRows:
        """The space's vectors as of the cut: as stored where they are of content alone, else made for then."""
        if Space.parse(space).model == content_pipeline.MODEL:
            return self.stored(space)
        pins = catalogue_of(self.ctx, space_part(self.registry, space), past.held.cut)
        topics = [row[row > 0] for row in pins.topics]
        rows = PinRows.of(pins.ids, pins.vectors, topics, pins.created_at_ms, np.ones(len(pins.ids)))
        return rows.take(np.flatnonzero(rows.vectors.any(axis=1)))


def compare(
    ctx: TrainingContext, candidate: ReleaseManifest, champion: ReleaseManifest, champion_version: int
) -> Comparison:
    """Both releases on the same users and the same rows of today's lake, pair by pair.

    What cannot be compared (a collection dropped, damaged files, rows that differ) is named with the reason,
    and a gate will fail on it. A part that the champion does not have needs no comparison. Search by meaning
    and ads are compared by the metrics that both manifests hold, where those are of one evaluation.
    """
    bench = Bench.of(ctx, [*candidate.parts.values(), *champion.parts.values()])
    pairs: list[Paired] = []
    missing = {
        role: f"the champion has a {role}, this release has none"
        for role in (*RETRIEVERS, RANKER, LEXICAL, SEARCHSAGE, ADS)
        if role in champion.parts and role not in candidate.parts
    }
    for role in (*RETRIEVERS, RANKER):
        if role not in champion.parts or role in missing:
            continue
        try:
            pairs += _compared(bench, role, candidate.parts[role], champion.parts[role])
        except (ReleaseError, LookupError, index.VectorIndexError) as error:
            missing[role] = str(error)
        except Exception as error:
            # Files that cannot be read raise what their formats raise.
            ctx.progress(f"{role} cannot be measured: {error!r}")
            missing[role] = f"it cannot be measured: {error!r}"
    beside, unlike = registered(candidate, champion)
    return Comparison(
        champion=champion_version,
        evaluation=bench.evaluation,
        metrics=(*pairs, *beside),
        missing=missing,
        unlike=unlike,
    )


def registered(candidate: ReleaseManifest, champion: ReleaseManifest) -> tuple[list[Paired], dict[str, str]]:
    """What both manifests say of search by meaning and of clicks on ads; and what of it is of two evaluations,
    with the reason.

    Manifests keep means alone, so the interval is one that holds for any two means of n values in [0, 1].
    """
    ours, theirs, pairs = candidate.metrics, champion.metrics, []
    for name, sample in REGISTERED.items():
        if all(name in metrics and sample in metrics for metrics in (ours, theirs)):
            n, gain = int(min(ours[sample], theirs[sample])), ours[name] - theirs[name]
            reach = float(ndtri(1 - TAIL)) * math.sqrt(2 * 0.25 / max(n, 1))
            low, high = gain - reach, gain + reach
            pairs.append(
                Paired(metric=name, candidate=ours[name], champion=theirs[name], low=low, high=high, n=n)
            )
    if candidate.evaluation == champion.evaluation:
        return pairs, {}
    why = "the champion was measured on another evaluation; release it again to compare"
    return [], {pair.metric: why for pair in pairs}


def _compared(bench: Bench, role: str, candidate: Part, champion: Part) -> list[Paired]:
    if role == RANKER:
        return _compared_rankers(bench, candidate, champion)
    ours, theirs = (bench.retrieval(role, part).units for part in (candidate, champion))
    return [paired(name, ours[name], theirs[name]) for name in ours if name in theirs]


def _compared_rankers(bench: Bench, candidate: Part, champion: Part) -> list[Paired]:
    if bench.rows is None:
        raise ReleaseError(f"{bench.ctx.training_sets} holds no training set to score both rankers on")
    parts = (candidate, champion)
    learned = [bench.registry.learned_until(part.model, part.version) for part in parts]
    since = max((until for until in learned if until is not None), default=None)
    blocks = [bench.tested(part, since) for part in parts]
    if not same_rows(*blocks):
        raise ReleaseError("the test rows differ between the two spaces")
    ours, theirs = (bench.ranking(part, block) for part, block in zip(parts, blocks, strict=True))
    return [
        paired(name, ours.units[name], theirs.units[name], ours.owners[name], larger_is_better=False)
        for name in ours.units
        if name in theirs.units
    ]
