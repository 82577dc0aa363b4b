"""Rows for the quality tables, and the runs made on them: trained, calibrated, scored, kept on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_repo.history import ShownLog
from feature_repo.jobs.history import read_shown
from feature_repo.schema import SHOWN_DAYS
from feature_repo.sequence import SequenceLog
from infra.home import Home
from infra.jobs import context
from tests.benchmarks.ranking_planted import chances_of
from tests.benchmarks.ranking_variants import WITHOUT_SEQUENCE, Variant
from training.data.splits import DAY, time_split
from training.data.training_rows import history_of
from training.data.training_set import Block, TrainingSet
from training.digests import digest_of
from training.evaluation.hit_at_k import hit_at_k
from training.evaluation.ranking import RankingData
from training.evaluation.ranking_models import Gbdt, Logistic
from training.models.calibration import CalibrationConfig, fit, restore_rate, uniform_sample
from training.models.interactions import INTERACTION_FEATURES
from training.models.pinnability import FeatureSpec
from training.models.pinnerformer import PinnerFormerConfig
from training.models.transact import Head, SequenceConfig, TransAct, TransActConfig
from training.models.utility import UtilityWeights, utility
from training.pinnerformer.batches import Sampling
from training.pinnerformer.timelines import read_timelines
from training.pinnerformer.trainer import PinnerFormerTraining
from training.pinnerformer.trainer import train_network as train_pinnerformer
from training.pipelines.catalogues import catalogue_of, space_part
from training.pipelines.pinnability import SET
from training.pipelines.pinnerformer import rules_of
from training.pipelines.pinnerformer_users import user_vectors
from training.registry import Registry
from training.transact.examples import Examples, Known, PinTable, UserVectors
from training.transact.fitting import TransActRecipe, config_of
from training.transact.starting import begun
from training.transact.teacher import taught
from training.transact.trainer import predict, train_network
from validation.lake import Lake
from validation.tables import SURFACE, Polarity

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
    planted: NDArray[np.float64] | None  # the same in chances, where the world's laws are known


@dataclass(frozen=True)
class Data:
    """Training, validation and test rows, in that order in every pair of arrays."""

    rows: RankingData
    blocks: tuple[Block, Block, Block]
    log: SequenceLog
    pins: PinTable
    long_term: UserVectors | None
    positives: tuple[int, ...]
    kept: float
    chances: NDArray[np.float64] | None = None
    """(n, H) of every answer to the test rows, each looked at; None where no truth stands beside the data."""
    shown: ShownLog | None = None

    @property
    def heads(self) -> tuple[str, ...]:
        return self.rows.heads

    @property
    def space(self) -> str | None:
        return self.rows.rows.info.space

    @property
    def utility(self) -> dict[str, float]:
        return dict(zip(self.heads, self._weights.tolist(), strict=True))

    @property
    def _weights(self) -> Floats:
        return UtilityWeights.default(self.rows.rows.info.vocabulary).vector(self.heads)

    @cached_property
    def test_labels(self) -> NDArray[np.int8]:
        return self.rows.labels(self.blocks[2])

    def best(self) -> NDArray[np.float64]:
        """Planted HIT@3 (H,) of the order that the world's own chances make; only where they are known."""
        keys = self.blocks[2].keys
        score = utility(self.chances.astype(np.float32), self._weights)
        return hit_at_k(keys["user_id"], keys["request_id"], score, self.chances, TOP).hit()

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

    def known(self, variant: Variant) -> Known:
        log = self.positive_log if variant.positive_only else self.log
        if variant.one_type:
            log = replace(log, actions=np.ones_like(log.actions))
        return Known(log, self.pins, self.long_term if variant.long_term else None)

    def spec(self, variant: Variant) -> FeatureSpec:
        names = INTERACTION_FEATURES if variant.everything else WITHOUT_SEQUENCE
        return FeatureSpec(
            space=self.space,
            interactions=names,
            position=variant.position,
            query=self.rows.rows.info.query_features,
        )

    def examples(self, variant: Variant) -> list[Examples]:
        """The three parts as `variant` reads them; after training at the position that serving has."""
        known, spec, made = self.known(variant), self.spec(variant), []
        for place, block in enumerate(self.blocks):
            # answers dated before what they answer are found in the whole log, whatever is read of it
            part = Examples.of(block, self.log, self.pins, spec, known.users, serving=bool(place))
            places = self.pins.places(known.log.pin_ids)
            made.append(replace(part, log=known.log, log_places=places, shown=self.shown))
        return made

    def run(self, validation: Floats, test: Floats, name: str) -> Run:
        """Calibrate on the validation rows, order by utility, count."""
        labels = self.rows.labels(self.blocks[1])
        config, beside = CalibrationConfig(min_positives=50), self.rows.rows.info.calibration_features
        known = self.blocks[1].columns(beside) if beside else None
        calibrator = fit(
            validation,
            labels,
            self.heads,
            ranker=name,
            config=config,
            features=known,
            feature_names=beside,
        )
        made, keys = calibrator.calibrate(test, self.blocks[2].columns(beside)), self.blocks[2].keys
        score = utility(made, self._weights)
        ids = keys["user_id"], keys["request_id"]
        hits = hit_at_k(*ids, score, self.test_labels, TOP).values
        planted = None if self.chances is None else hit_at_k(*ids, score, self.chances, TOP).values
        return Run(test, made, hits, planted)

    def on(self, surface: str | None) -> tuple[Data, Bools]:
        """The same with the test rows of one surface alone (all of them for None), and which those are, bool
        (n,)."""
        test = self.blocks[2]
        chosen = np.ones(len(test), bool) if surface is None else test.keys[SURFACE].to_numpy() == surface
        chances = None if self.chances is None else self.chances[chosen]
        return replace(self, blocks=(*self.blocks[:2], _of(test, chosen)), chances=chances), chosen

    def facts(self) -> str:
        sizes = "; ".join(f"{name} {len(b):,} rows" for name, b in zip(_PARTS, self.blocks, strict=True))
        counts = self.test_labels.sum(axis=0).tolist()
        spans = "; ".join(
            f"{name} {getattr(self.rows.split, name)}" for name in ("train", "validation", "test")
        )
        return f"{spans}\n{sizes}; test positives {dict(zip(self.heads, counts, strict=True))}"


_PARTS = ("training", "validation", "test")


def load(home: Home, days: tuple[int, int, int], kept: float, share: float, with_users: bool) -> Data:
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
    space = space_part(Registry(ctx.mlflow_uri, ctx.mlflow_artifacts), str(info.space))
    pins = catalogue_of(ctx, space)
    table = PinTable(pins.ids, np.ascontiguousarray(pins.vectors, np.float32))
    nights = (split.train.start, split.validation.start, split.test.start)
    vectors = long_term(lake, table, split.train.start, nights) if with_users else None
    positives = tuple(info.vocabulary.codes(Polarity.POSITIVE))
    chances = chances_of(home, data.heads, blocks[2], data.labels(blocks[2]))
    log = history_of(lake, info.end)
    shown = read_shown(lake, log, split.train.start - SHOWN_DAYS * DAY, info.end)
    return Data(data, blocks, log, table, vectors, positives, kept, chances, shown)


@dataclass(frozen=True)
class Runs:
    """Scores by ranker and seed, made once and kept in `folder`."""

    folder: Path
    data: Data
    recipe: TransActRecipe
    surface: str | None = None
    """Whose test rows are measured; None: all."""

    @cached_property
    def shown(self) -> tuple[Data, Bools]:
        """What is measured, and which of the test rows it is, bool (n,)."""
        return self.data.on(self.surface)

    def network(self, variant: Variant, seed: int) -> Run:
        # what trees tell is the same whatever else a ranker reads: only the one with every feature is taught
        recipe = self.recipe if variant.everything else self.recipe.model_copy(update={"teacher": None})

        def made() -> tuple[Floats, Floats]:
            train, *others = self.data.examples(variant)
            network = self._trained(variant, recipe, train, seed)
            validation, test = (predict(network, part, batch_rows=256) for part in others)
            return restore_rate(validation, self.data.kept), restore_rate(test, self.data.kept)

        left_out = {"max_reads", *(["teacher"] if recipe.teacher is None else [])}  # the rows are `load`'s
        return self._kept(variant.name, seed, (repr(variant), recipe.model_dump_json(exclude=left_out)), made)

    def _trained(self, variant: Variant, recipe: TransActRecipe, train: Examples, seed: int) -> TransAct:
        data = self.data
        sequence = SequenceConfig.model_validate(recipe.sequence.model_dump() | variant.sequence)
        heads = tuple(Head(action=head) for head in data.heads)
        changed = recipe.model_copy(update={"sequence": sequence})
        config = config_of(heads, data.spec(variant), changed, data.known(variant))
        config = TransActConfig.model_validate(config.model_dump() | variant.network)
        actions = data.rows.rows.info.action_names
        attention = None if variant.drawn else recipe.attention_start
        start = begun(config, train, actions, seed, attention)
        if recipe.teacher is not None:
            train = replace(train, targets=taught(recipe.teacher, config, train, actions, seed)[0])
        training = recipe.training.model_copy(update={"seed": seed, "epochs": recipe.max_epochs})
        return train_network(config, train, actions, training, start=start).network

    def baseline(self, name: str, seed: int) -> Run:
        """Pinnability's, one model a head, on the same rows with every feature."""
        model = Gbdt() if "gbdt" in name else Logistic()

        def made() -> tuple[Floats, Floats]:
            found = model.scores(self.data.rows, seed)
            return restore_rate(found.validation, self.data.kept), restore_rate(found.test, self.data.kept)

        return self._kept(name, seed, (repr(model),), made)

    def _kept(self, name: str, seed: int, settings: tuple[str, ...], made) -> Run:  # type: ignore[no-untyped-def]
        file = self.folder / f"{digest_of(name, seed, self.data.facts(), *settings)[:16]}.npz"
        if not file.exists():
            started = time.process_time()
            validation, test = made()
            self.folder.mkdir(parents=True, exist_ok=True)
            np.savez(file, validation=validation, test=test)
            print(f"{name}, seed {seed}: {time.process_time() - started:.0f} CPU s", flush=True)
        found = np.load(file)
        shown, rows = self.shown
        return shown.run(found["validation"], found["test"][rows], name)


def _of(block: Block, chosen: Bools) -> Block:
    """The chosen rows, bool (n,)."""
    return Block(**{f.name: getattr(block, f.name)[chosen] for f in fields(block)})


def long_term(lake: Lake, pins: PinTable, cut: datetime, nights: Sequence[datetime]) -> UserVectors:
    """PinnerFormer's vectors as of each of `nights`, by a network that knew what was before `cut`."""
    config = PinnerFormerConfig(dim=USER_DIM, hidden=64, layers=2, heads=2, length=64)
    settings = PinnerFormerTraining(epochs=8, learning_rate=3e-3, sampling=Sampling())
    lines = read_timelines(lake, pins.ids, cut, rules_of(lake, cut))
    network = train_pinnerformer(config, lines, pins.content, settings).network
    made = [user_vectors(network, lake, pins.ids, pins.content, night) for night in nights]
    ids = np.concatenate([part.users for part in made])
    times = np.repeat([int(night.timestamp() * 1000) for night in nights], [len(part) for part in made])
    order = np.lexsort((times, ids))
    vectors = np.concatenate([part.vectors for part in made])[order]
    return UserVectors(ids[order], times[order].astype(np.int64), vectors)
