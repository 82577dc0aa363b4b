"""Train TransAct on the rankers' rows: heads of what users do, a calibrator beside them, metrics on days after.

A version is made from the same rows, days and checks as Pinnability's. With `ctx.warm_start` the newest version
learns on from its weights, on the rows since; with `ctx.keep_weights` the next version has the same weights,
and is calibrated and measured on the newest days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from feature_repo import history as history_module
from feature_repo.jobs import history as history_job
from feature_repo.jobs.history import read_shown
from feature_repo.schema import SEQUENCE_ARRAYS, SHOWN_DAYS
from feature_repo.sequence import SequenceLog
from training.context import TrainingContext
from training.cpu import tune_cpu
from training.data.splits import DAY, Interval, TimeSplit, midnight
from training.data.training_set import TrainingSet
from training.digests import digest_files, digest_of
from training.evaluation import served_scores
from training.models import calibration as calibration_module
from training.models import ranker as ranker_module
from training.models import transact as transact_module
from training.models.interactions import Pins
from training.models.transact import TransAct
from training.models.transact.ranker import TransActRanker
from training.pipelines import fitting as linear_module
from training.pipelines import night_vectors as night_vectors_module
from training.pipelines import ranker_calibration, ranker_features
from training.pipelines.night_vectors import newest_pinnerformer, night_vectors, rows_after
from training.pipelines.pinnability import newest, split_of
from training.pipelines.ranker_calibration import calibrate
from training.pipelines.ranker_features import keep_baseline, kept_baseline, spec_of, vetted
from training.pipelines.registering import Kept, kept_weights, register, unchanged
from training.pipelines.transact_card import MODEL, card, changed_settings
from training.pipelines.transact_settings import TransActPipeline, settings_of
from training.registry import LEARNED_UNTIL_TAG, Registry
from training.transact import fitting as fitting_module
from training.transact.examples import Known, PinTable, UserVectors
from training.transact.fitting import Fitted, fit_transact, in_space, misfit
from validation.drift import DriftBaseline
from validation.lake import Lake
from validation.manifest import Part, Space
from validation.tables import ACTION, SURFACE, TIMESTAMP

CODE = (
    Path(transact_module.__file__).parent,
    Path(fitting_module.__file__).parent,
    Path(calibration_module.__file__).parent,
    *(Path(m.__file__ or "") for m in (history_module, history_job)),
    *(Path(m.__file__ or "") for m in (ranker_module, linear_module, night_vectors_module)),
    *(Path(m.__file__ or "") for m in (ranker_calibration, ranker_features, served_scores)),
    Path(__file__),
)


@dataclass(frozen=True)
class Job:
    """One run under way: what is learned from, and where it goes."""

    ctx: TrainingContext
    registry: Registry
    config: TransActPipeline
    rows: TrainingSet
    split: TimeSplit
    """`train` is what this run may learn from."""
    content: Part
    former: Part | None
    """The PinnerFormer whose vectors are read."""
    no_former: str
    """Why there is none."""
    kept: Kept | None
    """The version to keep, or to go on from."""
    inputs: str

    @property
    def space(self) -> str | None:
        """Of users' vectors."""
        return None if self.former is None else self.former.space


def train_transact(
    ctx: TrainingContext,
    rows: TrainingSet,
    content: Part,
    pins: Pins,
    config: TransActPipeline | None = None,
    *,
    force: bool = False,
) -> Part:
    """Fit, calibrate, measure and register one version on a finished training set.

    `pins` are the catalogue in the content space. Split by time as Pinnability's (`split_of`). Unless `force`,
    the version already made from the same rows, configuration, start and code is returned as it is; so is the
    one a warm start would go on from, where it has learned every row under the same settings. A run that was
    cut short goes on from its last checkpoint. Without `config`, the home's settings are taken (`settings_of`).
    Raises TooShort, NothingToLearn, LabelLeak where a feature knows a label, and ValueError where the set's
    interactions are of another space.
    """
    if rows.info.space != content.space:
        raise ValueError(
            f"the training set compares vectors of {rows.info.space}, the release's are {content.space}"
        )
    config = config or settings_of(ctx, rows.info.vocabulary)
    job = _job(ctx, rows, content, config)
    version = unchanged(ctx, MODEL, job.inputs, force=force)
    if version is None and ctx.warm_start and not force and (version := _up_to_date(job)):
        ctx.progress(f"{MODEL}: no rows since {MODEL}@{version}")
    if version is not None:
        return transact_part(job.registry, version)
    tune_cpu()
    known = _known(job, pins)
    start = _start(job, known)
    if start is None and job.kept is not None:  # rows were chosen for a version that does not fit
        return train_transact(
            replace(ctx, keep_weights=False, warm_start=False), rows, content, pins, config, force=force
        )
    if start is not None and ctx.keep_weights:
        ctx.progress(f"{MODEL}: the weights of {MODEL}@{start.kept.learned_at}, calibrated anew")
        ranker = TransActRanker(start.network, job.space if start.network.config.user_dim else None)
        tags, rate, baseline = start.kept.tags, start.negative_rate, start.baseline
        facts: dict[str, object] = {"weights_of": start.kept.learned_at}
    else:
        fitted, baseline = _fit(job, known, start)
        ranker, rate, facts = fitted.ranker, fitted.negative_rate, _facts(job, fitted, start)
        tags = {LEARNED_UNTIL_TAG: job.split.validation.end.isoformat()}
    return _registered(job, known, ranker, rate, facts, tags, baseline)


def transact_part(registry: Registry, version: int) -> Part:
    """The release part of one version."""
    return Part(
        model=MODEL,
        version=version,
        space=registry.version(MODEL, version).tags["content_space"],
        feature_service=registry.version(MODEL, version).tags["feature_service"],
        metrics=registry.metrics(MODEL, version),
    )


def known_of(
    lake: Lake,
    pins: PinTable,
    end: datetime,
    users: UserVectors | None = None,
    space: str | None = None,
    *,
    histories_from: datetime | None = None,
) -> Known:
    """What rows before `end` are joined with; the log day by day, so that only its numbers are in memory.

    What people were shown is read for rows from `histories_from` on, where that is given.
    """
    columns = ["user_id", "event_id", "pin_id", ACTION, TIMESTAMP, SURFACE]
    pieces = []
    for day in Interval(lake.interval()[0], end).days():
        log = SequenceLog.from_actions(lake.read("actions", columns, day, min(day + DAY, end)))
        arrays = {name: getattr(log, name) for name in SEQUENCE_ARRAYS}
        pieces.append({"user_ids": np.repeat(log.users, np.diff(log.offsets)), **arrays})
    known = Known(SequenceLog.from_columns(pieces), pins, users, space)
    if histories_from is None:
        return known
    since = midnight(histories_from) - SHOWN_DAYS * DAY
    return replace(known, shown=read_shown(lake, known.log, since, end))


def _job(ctx: TrainingContext, rows: TrainingSet, content: Part, config: TransActPipeline) -> Job:
    registry, split = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts), split_of(rows.info)
    kept = kept_weights(registry, MODEL, content) if ctx.keep_weights or ctx.warm_start else None
    train = newest(rows, split.train, config.max_rows)
    former, why = (None, "none: not asked for")
    if config.user_vectors:
        former, why = newest_pinnerformer(registry, content)
    if former is not None:
        after, why = rows_after(registry, former, train, config.least_days)
        former, train = (None, train) if after is None else (former, after)
    if kept is not None and ctx.warm_start and kept.learned_until is not None:
        # The days before `learned_until` chose and calibrated that version, and taught it nothing.
        since = min(
            kept.learned_until - (split.validation.end - split.validation.start),
            train.end - config.warm_days * DAY,
        )
        train = Interval(min(max(train.start, midnight(since)), train.end), train.end)
    inputs = digest_of(
        MODEL,
        rows.info.fingerprint,
        config.model_dump_json(),
        ctx.seed,
        train,
        None if former is None else former.space,
        None if kept is None else kept.learned_at if ctx.keep_weights else f"on from {kept.version}",
        digest_files(CODE),
    )
    return Job(ctx, registry, config, rows, replace(split, train=train), content, former, why, kept, inputs)


def _known(job: Job, pins: Pins) -> Known:
    users = None
    if job.former is not None:
        users = night_vectors(job.ctx, job.former, Interval(job.split.train.start, job.split.test.end))
    return known_of(
        Lake(job.ctx.lake),
        PinTable(pins.ids, pins.vectors),
        job.split.test.end,
        users,
        job.space,
        histories_from=None if job.config.lifelong is None else job.split.train.start,
    )


@dataclass(frozen=True)
class _Start:
    """An earlier version in the space that is read now."""

    kept: Kept
    network: TransAct
    negative_rate: float
    baseline: DriftBaseline | None
    """Of the features that its weights were learned from."""


def _start(job: Job, known: Known) -> _Start | None:
    """The version to keep or to go on from; None where there is none or it does not fit, which is said."""
    ctx, kept = job.ctx, job.kept
    if kept is None:
        if ctx.keep_weights or ctx.warm_start:
            ctx.progress(f"{MODEL}: nothing reads vectors like {job.content.space}'s; one is trained anew")
        return None
    files = job.registry.download(MODEL, kept.version)
    ranker = TransActRanker.load(files)
    network = in_space(ranker.network, job.content.space)
    spec = spec_of(job.config.features, job.rows.info)
    why = misfit(network, spec, job.config, known) or _other_users(job, ranker.user_space)
    if why is not None:
        ctx.progress(f"{MODEL}: {MODEL}@{kept.version} does not fit: {why}; one is trained anew")
        return None
    rate = job.registry.params(MODEL, kept.version)["negative_rate"]
    return _Start(kept, network, float(rate), kept_baseline(files))


def _up_to_date(job: Job) -> int | None:
    """The version to go on from, where it has learned from all there is, as it is to be learned; else None."""
    kept = job.kept
    if kept is None or kept.learned_until is None or kept.learned_until < job.split.validation.end:
        return None
    if job.registry.version(MODEL, kept.version).tags["content_space"] != job.content.space:
        return None
    params, spec = job.registry.params(MODEL, kept.version), spec_of(job.config.features, job.rows.info)
    changed = changed_settings(params, job.config, spec)
    if changed:
        job.ctx.progress(f"{MODEL}: {MODEL}@{kept.version} was made with other {', '.join(changed)}")
    return None if changed else kept.version


def _other_users(job: Job, space: str | None) -> str | None:
    """Why vectors of users in `space` are not what this run reads; None where they are, by the same weights."""
    if space is None or space == job.space:
        return None
    ours, theirs = (Space.parse(s) for s in (job.space or space, space))
    same = [job.registry.weights_of(s.model, s.version) for s in (ours, theirs)]
    return None if same[0] == same[1] else f"it reads users in {space}, which {job.space} has replaced"


def _fit(job: Job, known: Known, start: _Start | None) -> tuple[Fitted, DriftBaseline]:
    info, ctx = job.rows.info, job.ctx
    train = job.rows.block(job.split.train)
    spec = spec_of(job.config.features, info)
    baseline = vetted(train, info.action_names, spec)
    went = f", on from {MODEL}@{start.kept.version}" if start else ""
    ctx.progress(f"{MODEL}: fitting on {len(train)} rows of {job.split.train}{went}")
    fitted = fit_transact(
        train,
        known,
        info.action_names,
        spec,
        job.config,
        seed=ctx.seed,
        start=None if start is None else start.network,
        checkpoints=ctx.training_sets / f"{MODEL}-{job.inputs}",
        progress=ctx.progress,
    )
    return fitted, baseline


def _facts(job: Job, fitted: Fitted, start: _Start | None) -> dict[str, object]:
    """What the card tells of how the weights came to be."""
    return {
        "rows_read": fitted.rows,
        "epochs_read": fitted.epochs,
        "final_loss": round(fitted.loss, 5),
        "started_from": "nothing" if start is None else f"{MODEL}@{start.kept.version}",
        **{f"no_head.{action}": why for action, why in fitted.left_out.items()},
        **{f"not_taught.{action}": why for action, why in fitted.untaught.items()},
    }


def _registered(
    job: Job,
    known: Known,
    ranker: TransActRanker,
    rate: float,
    facts: Mapping[str, object],
    tags: Mapping[str, str],
    baseline: DriftBaseline | None,
) -> Part:
    """Calibrate, measure, write the card."""
    made = calibrate(
        ranker,
        f"{MODEL}@{job.registry.next_version(MODEL)}",
        job.rows,
        job.split,
        known=known,
        negative_rate=rate,
        config=job.config.calibration,
        seed=job.ctx.seed,
    )

    def save(files: Path) -> None:
        ranker.save(files)
        made.calibrator.save(files)
        keep_baseline(baseline, files)

    number = register(job.ctx, card(job, ranker, made, rate, facts, tags), save)
    job.ctx.progress(f"{MODEL}: AUC {made.metrics['auc']:.4f} on {job.split.test}")
    return transact_part(job.registry, number)
