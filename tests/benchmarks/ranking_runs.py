"""Rows for the quality tables, and the runs made on them: trained, calibrated, scored, kept on disk."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_repo.sequence import SequenceLog
from infra.home import Home
from infra.jobs import context
from tests.benchmarks.ranking_variants import Variant
from training.data.splits import DAY, TimeSplit, time_split
from training.data.training_rows import history_of
from training.data.training_set import Block, TrainingSet
from training.evaluation.hit_at_k import hit_at_k
from training.evaluation.ranking import RankingData
from training.evaluation.ranking_models import Gbdt, Logistic, features
from training.models.calibration import CalibrationConfig, fit, restore_rate, uniform_sample
from training.models.pinnerformer import PinnerFormerConfig
from training.models.utility import UtilityWeights, utility
from training.pinnerformer.batches import Sampling
from training.pinnerformer.timelines import read_timelines
from training.pinnerformer.trainer import PinnerFormerTraining
from training.pinnerformer.trainer import train_network as train_pinnerformer
from training.pipelines.content import content_part, load_catalogue
from training.pipelines.pinnability import SET
from training.pipelines.pinnerformer import rules_of, with_content
from training.pipelines.pinnerformer_users import user_vectors
from training.registry import Registry
from training.transact.examples import Examples, PinTable, UserVectors
from training.transact.trainer import TransActTraining, predict, train_network
from validation.lake import Lake
from validation.tables import Polarity

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
USER_DIM = 64
TOP = 3


@dataclass(frozen=True)
class Run:
    """One ranker under one seed, on the test rows."""

    raw: Floats  # (n, H) probabilities, corrected for thinned negatives
    made: Floats  # (n, H) calibrated
    hits: NDArray[np.float64]  # (users, H) HIT@3 of each user


@dataclass(frozen=True)
class Data:
    """Training, validation and test rows, in that order in every pair of arrays."""

    rows: RankingData
    blocks: tuple[Block, Block, Block]
    log: SequenceLog
    pins: PinTable
    long_term: tuple[UserVectors, UserVectors, UserVectors] | None
    positives: tuple[int, ...]
    kept: float

    @property
    def heads(self) -> tuple[str, ...]:
        return self.rows.heads

    @property
    def space(self) -> str | None:
        return self.rows.rows.info.space

    @property
    def user_dim(self) -> int:
        return 0 if self.long_term is None else USER_DIM

    @property
    def utility(self) -> dict[str, float]:
        return dict(zip(self.heads, self._weights.tolist(), strict=True))

    @property
    def _weights(self) -> Floats:
        return UtilityWeights.default(self.rows.rows.info.vocabulary).vector(self.heads)

    @cached_property
    def test_labels(self) -> NDArray[np.int8]:
        return self.rows.labels(self.blocks[2])

    @cached_property
    def positive_log(self) -> SequenceLog:
        """The log without actions that are no positive ones."""
        log = self.log
        users = np.repeat(log.users, np.diff(log.offsets))
        chosen = np.isin(log.actions, self.positives)
        names = ("event_ids", "pin_ids", "actions", "surfaces", "timestamps_ms", "durations_s")
        return SequenceLog.from_columns(
            [{"user_ids": users[chosen], **{n: getattr(log, n)[chosen] for n in names}}]
        )

    def examples(self, variant: Variant) -> list[Examples]:
        """The three parts as `variant` reads them; after training at the position that serving has."""
        log, spec = self.positive_log if variant.positive_only else self.log, variant.config.spec
        made = []
        for place, block in enumerate(self.blocks):
            users = self.long_term[place] if variant.long_term and self.long_term else None
            # answers dated before what they answer are found in the whole log, whatever is read of it
            part = Examples.of(block, self.log, self.pins, spec, users)
            part = replace(part, log=log, log_places=self.pins.places(log.pin_ids))
            made.append(replace(part, features=features(block, spec, serving=True)) if place else part)
        return made

    def run(self, validation: Floats, test: Floats, name: str) -> Run:
        """Calibrate on the validation rows, order by utility, count."""
        labels = self.rows.labels(self.blocks[1])
        config = CalibrationConfig(min_positives=50)
        calibrator = fit(validation, labels, self.heads, ranker=name, config=config)
        made, keys = calibrator.calibrate(test), self.blocks[2].keys
        score = utility(made, self._weights)
        hits = hit_at_k(keys["user_id"], keys["request_id"], score, self.test_labels, TOP)
        return Run(test, made, hits.values)

    def facts(self) -> str:
        sizes = "; ".join(f"{name} {len(b):,} rows" for name, b in zip(_PARTS, self.blocks, strict=True))
        counts = self.test_labels.sum(axis=0).tolist()
        spans = "; ".join(
            f"{name} {getattr(self.rows.split, name)}" for name in ("train", "validation", "test")
        )
        return f"{spans}\n{sizes}; test positives {dict(zip(self.heads, counts, strict=True))}"


_PARTS = ("training", "validation", "test")


def load(home: Home, days: tuple[int, int, int], kept: float, share: float, long_term: bool) -> Data:
    """The home's training set: the last `days[2]` test, `days[1]` before them validate, `days[0]` train."""
    ctx, rows = context(home), TrainingSet(home.training_sets / SET)
    info, lake = rows.info, Lake(home.lake)
    split = time_split(info.start, info.end, validation=days[1] * DAY, test=days[2] * DAY)
    split = replace(split, train=replace(split.train, start=split.train.end - days[0] * DAY))
    data, _ = RankingData.of(rows, split)
    answered = data.train.labels.any(axis=1)
    drawn = np.random.default_rng(0).random(len(answered)) < kept
    blocks = (
        _of(data.train, answered | drawn),
        *(
            _of(part, uniform_sample(part.keys["request_id"].to_numpy(np.int64), share))
            for part in (data.validation, data.test)
        ),
    )
    for name, block in zip(("train", "validation", "test"), blocks, strict=True):
        data.__dict__[name] = block
    version = int((info.space or "content@0").split("@")[1])
    part = content_part(Registry(ctx.mlflow_uri, ctx.mlflow_artifacts), version)
    pins = with_content(load_catalogue(ctx, part))
    table = PinTable(pins.ids, np.ascontiguousarray(pins.vectors, np.float32))
    vectors = _long_term(lake, table, split) if long_term else None
    positives = tuple(info.vocabulary.codes(Polarity.POSITIVE))
    return Data(data, blocks, history_of(lake, info.end), table, vectors, positives, kept)


@dataclass(frozen=True)
class Runs:
    """Scores by ranker and seed, made once and kept in `folder`."""

    folder: Path
    data: Data
    training: TransActTraining

    def network(self, variant: Variant, seed: int) -> Run:
        training = self.training.model_copy(update={"seed": seed})

        def made() -> tuple[Floats, Floats]:
            train, *others = self.data.examples(variant)
            actions = self.data.rows.rows.info.action_names
            network = train_network(variant.config, train, actions, training).network
            validation, test = (predict(network, part, batch_rows=256) for part in others)
            return restore_rate(validation, self.data.kept), restore_rate(test, self.data.kept)

        settings = (variant.config.model_dump_json(), training.model_dump_json(), str(variant.positive_only))
        return self._kept(variant.name, seed, settings, made)

    def baseline(self, name: str, seed: int) -> Run:
        """Pinnability's, one model a head, on the same rows with every feature."""
        model = Gbdt() if "gbdt" in name else Logistic()

        def made() -> tuple[Floats, Floats]:
            found = model.scores(self.data.rows, seed)
            return restore_rate(found.validation, self.data.kept), restore_rate(found.test, self.data.kept)

        return self._kept(name, seed, (repr(model),), made)

    def _kept(self, name: str, seed: int, settings: tuple[str, ...], made) -> Run:  # type: ignore[no-untyped-def]
        key = "\0".join((name, str(seed), self.data.facts(), *settings))
        file = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
        if not file.exists():
            started = time.process_time()
            validation, test = made()
            self.folder.mkdir(parents=True, exist_ok=True)
            np.savez(file, validation=validation, test=test)
            print(f"{name}, seed {seed}: {time.process_time() - started:.0f} CPU s", flush=True)
        found = np.load(file)
        return self.data.run(found["validation"], found["test"], name)


def _of(block: Block, chosen: Bools) -> Block:
    """The chosen rows, bool (n,)."""
    return Block(**{f.name: getattr(block, f.name)[chosen] for f in fields(block)})


def _long_term(lake: Lake, pins: PinTable, split: TimeSplit) -> tuple[UserVectors, UserVectors, UserVectors]:
    """PinnerFormer's vectors as of the first row of each part, by a network that knew what was before all."""
    cut = split.train.start
    config = PinnerFormerConfig(dim=USER_DIM, hidden=64, layers=2, heads=2, length=64)
    settings = PinnerFormerTraining(epochs=8, learning_rate=3e-3, sampling=Sampling())
    lines = read_timelines(lake, pins.ids, cut, rules_of(lake, cut))
    network = train_pinnerformer(config, lines, pins.content, settings).network

    def as_of(when: datetime) -> UserVectors:
        made = user_vectors(network, lake, pins.ids, pins.content, when)
        return UserVectors(made.users, made.vectors)

    return as_of(cut), as_of(split.validation.start), as_of(split.test.start)
