"""Releases over a planted world: parts that belong together, measured as they serve, promoted and taken back.

Everything is real (lake, MLflow, Milvus Lite, trained parts) but Feast's join, which a naive one stands for.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bentos.registry import ModelRegistry
from feature_repo.schema import PIN_SCALARS
from feature_repo.vectors.milvus import connect
from tests.feature_repo.vectors.servers import shared_lite
from tests.training import planted_releases as planted
from tests.training.data.lakes import write_lake
from tests.training.data.oracle import NaivePointInTime
from tests.training.data.worlds import tiny_world
from training import index, promotion, release, release_comparison, release_evaluation, release_parts
from training.context import TrainingContext
from training.data.splits import Interval
from training.data.training_set import Block, PinVectors, TrainingSet, build
from training.interests.trainer import InterestsTraining
from training.ledger import Ledger, LedgerEntry, Move
from training.models.content import ContentConfig
from training.models.interactions import Pins
from training.models.interests import InterestsConfig, Method
from training.models.pinnerformer import PinnerFormerConfig
from training.models.pinnersage import PinnerSageConfig
from training.models.pixie import PixieConfig, PixieSettings
from training.models.transact import SequenceConfig
from training.models.two_tower import TwoTowerConfig
from training.pinnerformer.batches import Sampling
from training.pinnerformer.trainer import PinnerFormerTraining
from training.pipelines.catalogues import catalogue_of
from training.pipelines.content import load_catalogue, train_content
from training.pipelines.fitting import GbdtConfig
from training.pipelines.interests import InterestsPipeline, train_conditional, train_dcm
from training.pipelines.lexical import train_lexical
from training.pipelines.pinnability import SET, Kind, PinnabilityConfig, split_of, train_pinnability
from training.pipelines.pinnerformer import PinnerFormerPipeline, train_pinnerformer
from training.pipelines.pinnersage import train_pinnersage
from training.pipelines.pixie import PixiePipeline, train_pixie
from training.pipelines.retrievers import LEARNED
from training.pipelines.steps import STEPS
from training.pipelines.transact import train_transact
from training.pipelines.transact_settings import TransActPipeline
from training.pipelines.two_tower import TwoTowerPipeline, train_two_tower
from training.promotion import NothingToPromote, RollbackImpossible, promote, rollback
from training.registry import Registry
from training.release import card, compose, load_manifest
from training.release_comparison import Bench, compare
from training.release_evaluation import NothingTested
from training.release_parts import LEVEL, RANKERS, ReleaseError, newest_parts, registry_of
from validation.gate_bounds import GateBounds
from validation.gate_results import GateFailed
from validation.gates import run_gates
from validation.lake import Lake
from validation.lake_check import check_lake
from validation.leakage import LabelLeak
from validation.manifest import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    RELEASE_MODEL,
    DataChecks,
    Part,
    ReleaseManifest,
)
from validation.tables import Polarity

pytestmark = pytest.mark.slow

SMALL_CONTENT = ContentConfig(dim=32, hash_bits=12, text_encoder="ngrams")
FORMER = PinnerFormerPipeline(
    network=PinnerFormerConfig(dim=32, hidden=64, layers=1, heads=2, length=64),
    training=PinnerFormerTraining(
        epochs=10,
        learning_rate=4e-3,
        sampling=Sampling(users=32, positions=16, in_batch=128, random=128),
    ),
)
INTERESTS = InterestsPipeline(
    network=Method.DCM.config(InterestsConfig(dim=32, interests=4, length=32)),
    training=InterestsTraining(epochs=6, batch=256),
)
TOWERS = TwoTowerPipeline(
    network=TwoTowerConfig(dim=32, hidden=48), training=InterestsTraining(epochs=8, learning_rate=4e-3)
)
SLICE = "recall_at_100/tail_topics"
WALK = PixiePipeline(settings=PixieSettings(walk=PixieConfig(steps=20_000)))
SMALL_TRANSACT = TransActPipeline(
    sequence=SequenceConfig(length=16, action_dim=8, pin_dim=8, layers=1, ffn=16, k=2, mask_hours=0),
    deep=(32,),
    max_reads=10_000,
    min_positives=20,
)
SMALL = PinnabilityConfig(gbdt=GbdtConfig(rounds=15, depth=4, threads=1))


def naive(ctx: TrainingContext) -> NaivePointInTime:
    frames, contract = tiny_world().frames, tiny_world().contract
    return NaivePointInTime(frames["actions"], frames["follows"], contract.vocabulary.codes(Polarity.POSITIVE))


@cache
def checked(start: datetime, end: datetime) -> DataChecks:
    return check_lake(tiny_world().lake, start, end)


def fill(ctx: TrainingContext, content: Part, pins: Pins, vectors: np.ndarray | None = None) -> None:
    """Build the part's collection, with `vectors` in place of the pins' own where given."""
    assert content.space is not None
    given = pins.vectors if vectors is None else vectors
    index.build(
        ctx.milvus_uri, content.space, pins.ids, given, pins.topics, pins.created_at_ms, np.ones(len(pins.ids))
    )


def train_learned(ctx: TrainingContext, content: Part) -> None:
    """The learned retrievers on the content space, their collections built."""
    for part in (
        train_pinnerformer(ctx, content, FORMER),
        train_dcm(ctx, content, INTERESTS),
        train_conditional(ctx, content, INTERESTS),
        train_two_tower(ctx, content, TOWERS),
    ):
        fill(ctx, part, catalogue_of(ctx, part))


def train_all(ctx: TrainingContext, content: Part, pins: Pins, kinds: tuple[Kind, ...] = tuple(Kind)) -> None:
    """Words, Pixie, PinnerSage and rankers on the content space, the latter on the last three days."""
    train_lexical(ctx)
    train_pixie(ctx, content, pins, WALK)
    train_pinnersage(ctx, content, PinnerSageConfig(alpha=1.0))
    end = tiny_world().config.end_time
    rows = build(
        Lake(ctx.lake),
        naive(ctx),
        ctx.training_sets / SET,
        start=end - timedelta(days=3),
        end=end,
        vectors=PinVectors(content.space or "", pins.ids, pins.vectors),
    )
    for kind in kinds:
        train_pinnability(ctx, kind, rows, content, SMALL)
    if kinds == tuple(Kind):
        train_transact(ctx, rows, content, pins, SMALL_TRANSACT)


@dataclass(frozen=True)
class Trained:
    """Three releases: one, the same trained anew over a second content space, and one whose collection is wrong
    and which has no learned retrievers."""

    ctx: TrainingContext
    first: int
    second: int
    scrambled: int


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, give_registry: Callable[[Path], Registry]
) -> Iterator[Trained]:
    root = tmp_path_factory.mktemp("home")
    give_registry(root)
    ctx = TrainingContext(
        lake=tiny_world().lake.path,
        features=root / "features",
        training_sets=root / "training_sets",
        feast_home=str(root),
        mlflow_uri=f"sqlite:///{root / 'mlflow' / 'mlflow.db'}",
        mlflow_artifacts=root / "mlflow" / "artifacts",
        milvus_uri=shared_lite(),
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(release_evaluation, "point_in_time", naive)
        # One lake for all: the suites take seconds.
        patched.setattr(release, "check_lake", lambda lake, start, end: checked(start, end))
        content = train_content(ctx, SMALL_CONTENT)
        pins = load_catalogue(ctx, content)
        fill(ctx, content, pins)
        train_learned(ctx, content)
        train_all(ctx, content, pins)
        first = release.release(ctx, planted.ledger(root))

        again = train_content(ctx, SMALL_CONTENT, force=True)
        fill(ctx, again, pins)
        train_learned(ctx, again)
        train_all(ctx, again, pins, (Kind.LOGISTIC,))
        second = release.release(ctx, planted.ledger(root))

        third = train_content(ctx, SMALL_CONTENT, force=True)
        fill(ctx, third, pins, np.random.default_rng(0).permutation(pins.vectors))
        train_all(ctx, third, pins, (Kind.LOGISTIC,))
        scrambled = release.release(ctx, planted.ledger(root))
        yield Trained(ctx, first, second, scrambled)


@pytest.fixture
def ledger(trained: Trained, tmp_path: Path) -> Path:
    """An empty ledger, and no alias on any release."""
    client = registry_of(trained.ctx).client
    for alias in (CHAMPION, CHALLENGER, PREVIOUS):
        client.delete_registered_model_alias(RELEASE_MODEL, alias)
    return tmp_path / "releases" / "ledger.jsonl"


def manifest(trained: Trained, version: int) -> ReleaseManifest:
    return load_manifest(trained.ctx, version)


def aliases(trained: Trained) -> dict[str, int | None]:
    registry = registry_of(trained.ctx)
    return {a: registry.alias(RELEASE_MODEL, a) for a in (CHAMPION, PREVIOUS, CHALLENGER)}


def test_a_release_names_parts_of_one_space(trained: Trained) -> None:
    said = manifest(trained, trained.first)
    assert set(said.parts) == {"content", "lexical", "pixie", *LEARNED, "pinnersage", "ranker"}
    assert said.skipped["pinsage"] == said.skipped["searchsage"] == "the last training run left it out"
    assert "no light ranker is trained over the scores of pinnersage@1" in said.skipped["light"]
    assert set(said.skipped) == {"pinsage", "searchsage", "light"} and said.light_by == "two_tower"
    assert {part.model for part in said.parts.values()} <= set(STEPS), "each can be trained by its name"
    models = sorted(["content", *LEARNED])
    assert said.spaces() == tuple(f"{model}@1" for model in models)
    assert [c.collection for c in said.collections] == [f"pins__{model}__1" for model in models]
    assert {c.rows for c in said.collections} == {len(tiny_world().frames["pins"])}
    for name in LEARNED:
        part = said.parts[name]
        assert (part.space, part.collection) == (f"{name}@1", f"pins__{name}__1")
        assert part.feature_service == f"{name}_v1"
    assert said.sources == (
        "pinnersage",
        "pinnerformer",
        "dcm",
        "conditional",
        "two_tower",
        "pixie",
        "followed_boards",
        "followed_topics",
        "popular_by_topic",
        "saved_together",
        "similar_pins",
        "lexical",
    )
    assert said.dataset == tiny_world().contract.name
    assert said.data_end == tiny_world().config.end_time
    assert manifest(trained, trained.second).spaces() == tuple(f"{model}@2" for model in models)
    losses = {model: registry_of(trained.ctx).metrics(model, 1)["log_loss"] for model in RANKERS}
    assert len(losses) == 3 and max(losses.values()) <= (1 + LEVEL) * min(losses.values())
    assert said.parts["ranker"].model == "transact", "all are level, and it has a head an action"


def test_services_read_the_same_manifest(trained: Trained) -> None:
    assert ModelRegistry(trained.ctx.mlflow_uri).manifest(trained.first) == manifest(trained, trained.first)


def test_its_metrics_are_those_of_the_planted_world(trained: Trained) -> None:
    metrics = manifest(trained, trained.first).metrics
    chance = metrics["chance/recall_at_100"]
    assert metrics["pinnersage/recall_at_100"] > 2 * chance
    assert metrics["pinnersage/recall_at_100"] > 1.2 * metrics["popularity/recall_at_100"]
    assert metrics["pinnersage/users"] >= 30
    assert metrics["pixie/recall_at_100"] > 2 * chance
    for name in LEARNED:
        assert metrics[f"{name}/recall_at_100"] > 1.5 * chance and f"{name}/{SLICE}" in metrics
        measured = registry_of(trained.ctx).metrics(name, 1)[f"{name}/recall_at_100"]
        assert metrics[f"{name}/recall_at_100"] == pytest.approx(measured), "the days no weights have seen"
    assert metrics["conditional/users"] < metrics["dcm/users"], "who follows nothing is not served"
    assert 0.55 < metrics["ranker/auc"] < 1
    assert metrics["ranker/normalized_entropy"] < 1
    assert 0 < metrics["ranker/max_drift"] < GateBounds().max_drift
    assert metrics["index/coverage/content@1"] == pytest.approx(1.0)
    assert all(0 < metrics[f"latency/{role}_cpu_ms"] < 100 for role in (*LEARNED, "ranker", "lexical"))
    checks = manifest(trained, trained.first).data_checks
    assert checks is not None and checks.failed == () and checks.expectations > 50
    assert checks.rows["actions"] > 1000 and checks.rows["pins"] == len(tiny_world().frames["pins"])
    scrambled = manifest(trained, trained.scrambled).metrics
    assert scrambled["pinnersage/recall_at_100"] < 0.7 * metrics["pinnersage/recall_at_100"]


def ranked_by(trained: Trained, model: str) -> ReleaseManifest:
    """The first release with another ranker."""
    one, registry = manifest(trained, trained.first), registry_of(trained.ctx)
    part = Part(model=model, version=1, space="content@1", metrics=registry.metrics(model, 1))
    return one.model_copy(update={"parts": {**one.parts, "ranker": part}})


def test_rankers_of_other_heads_are_compared_on_the_same_rows(trained: Trained) -> None:
    """By the chance of any positive action, which each has: what was registered is what is compared."""
    many, one = (ranked_by(trained, model) for model in ("transact", "pinnability_logistic"))
    registry = registry_of(trained.ctx)
    pairs = {p.metric: p for p in compare(trained.ctx, many, one, trained.first).metrics}
    pair = pairs["ranker/log_loss"]
    assert pair.n == registry.metrics("transact", 1)["rows"] and not pair.larger_is_better
    assert pair.candidate == pytest.approx(registry.metrics("transact", 1)["log_loss"], abs=1e-6)
    assert pair.champion == pytest.approx(registry.metrics("pinnability_logistic", 1)["log_loss"], abs=1e-6)
    assert "ranker/log_loss/new_users" in pairs
    metrics = compose(trained.ctx, many.parts).metrics
    assert {"ranker/heads/save/auc", "ranker/heads/engage/ece", "ranker/heads/save/ece_raw"} <= set(metrics)


def test_a_ranker_with_another_versions_calibrator_is_not_released(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = ranked_by(trained, "pinnability_logistic").parts
    two = parts["ranker"].model_copy(update={"version": 2})
    files = Bench.files

    def swapped(bench: Bench, part: Part) -> Path:
        return files(bench, parts["ranker"] if part.name == two.name else part)

    monkeypatch.setattr(Bench, "files", swapped)
    with pytest.raises(ReleaseError, match=r"for pinnability_logistic@1, not pinnability_logistic@2; fit it"):
        compose(trained.ctx, {**parts, "ranker": two})
    bare = tmp_path / "model"
    shutil.copytree(registry_of(trained.ctx).download("pinnability_logistic", 1), bare)
    (bare / "calibration.json").unlink()
    monkeypatch.setattr(
        Bench, "files", lambda bench, part: bare if part.name == two.name else files(bench, part)
    )
    with pytest.raises(ReleaseError, match=r"@2 has no calibrator .* --model pinnability_logistic --force"):
        compose(trained.ctx, {**parts, "ranker": two})


def test_a_planted_leak_stops_every_ranker_and_nothing_is_registered(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, registry = trained.ctx, registry_of(trained.ctx)
    rows, content = TrainingSet(ctx.training_sets / SET), manifest(trained, trained.scrambled).parts["content"]
    versions = [registry.versions(model) for model in RANKERS]
    honest = TrainingSet.block

    def leaky(given: TrainingSet, days: Interval | None = None) -> Block:
        """The likes of a counter that was read after the impression."""
        block = honest(given, days)
        block.pin_scalars[:, 0] = block.label
        return block

    monkeypatch.setattr(TrainingSet, "block", leaky)
    says = rf"pin_{PIN_SCALARS[0]} equals label engage"
    for kind in Kind:
        with pytest.raises(LabelLeak, match=says):
            train_pinnability(ctx, kind, rows, content, SMALL, force=True)
    with pytest.raises(LabelLeak, match=says):
        train_transact(ctx, rows, content, load_catalogue(ctx, content), SMALL_TRANSACT, force=True)
    assert [registry.versions(model) for model in RANKERS] == versions


@pytest.mark.parametrize("model", RANKERS)
def test_a_release_measures_how_far_its_rankers_features_moved(
    trained: Trained, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, part = Bench.of(trained.ctx, ()), ranked_by(trained, model).parts["ranker"]
    assert bench.rows is not None
    block = bench.rows.block(split_of(bench.rows.info).test)
    monkeypatch.setattr(Bench, "tested", lambda *_: block)
    moved = bench.drift(part)
    assert 0 < moved["ranker/max_drift"] < GateBounds().max_drift
    assert moved["ranker/drift_rows"] == len(block)
    block.pin_scalars[:, PIN_SCALARS.index("title_words")] += 1000
    moved = bench.drift(part)
    assert moved["ranker/max_drift"] == moved["ranker/drift/pin_title_words"] > GateBounds().max_drift
    monkeypatch.setattr(release_comparison, "kept_baseline", lambda _: None)
    assert bench.drift(part) == {}


def test_no_day_is_tested_that_a_ranker_has_learned_from(trained: Trained) -> None:
    rows = Bench.of(trained.ctx, ()).rows
    assert rows is not None
    test = split_of(rows.info).test
    tested_days = release_evaluation.tested_days
    assert tested_days(rows, test.start - timedelta(days=1)) == test == tested_days(rows)
    with pytest.raises(NothingTested, match="learned until"):
        tested_days(rows, test.end)


def test_the_same_parts_are_not_released_twice(trained: Trained, ledger: Path) -> None:
    newest = registry_of(trained.ctx).latest(RELEASE_MODEL)
    assert newest == trained.scrambled
    assert release.release(trained.ctx, ledger) == newest
    assert registry_of(trained.ctx).latest(RELEASE_MODEL) == newest
    assert registry_of(trained.ctx).alias(RELEASE_MODEL, CHALLENGER) == newest


def test_half_a_training_run_is_not_released(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("training.release_parts.content_pipeline.MODEL", "nothing_trained")
        with pytest.raises(ReleaseError, match="corkboard train"):
            newest_parts(trained.ctx)
    monkeypatch.setattr(release_parts, "_newest", lambda *_: None)
    with pytest.raises(ReleaseError, match="newest space is content@3, and pinnersage@3 belongs to an older"):
        newest_parts(trained.ctx)


def test_parts_of_two_spaces_are_refused(trained: Trained) -> None:
    one, two = manifest(trained, trained.first).parts, manifest(trained, trained.second).parts
    mixed = {"content": two["content"], "pinnersage": one["pinnersage"]}
    with pytest.raises(ReleaseError, match=r"content@1.*content@2"):
        compose(trained.ctx, mixed)


def test_an_unknown_release_is_named(trained: Trained, ledger: Path) -> None:
    with pytest.raises(ReleaseError, match=r"no release 99; releases: 1, 2, 3"):
        load_manifest(trained.ctx, 99)
    with pytest.raises(ReleaseError, match="no release champion"):
        load_manifest(trained.ctx, CHAMPION)


def test_promotion_moves_the_aliases_and_keeps_a_line(trained: Trained, ledger: Path) -> None:
    with pytest.raises(NothingToPromote):
        promote(trained.ctx, ledger)
    assert promote(trained.ctx, ledger, trained.first) == trained.first
    assert aliases(trained) == {CHAMPION: 1, PREVIOUS: None, CHALLENGER: None}
    registry_of(trained.ctx).set_alias(RELEASE_MODEL, CHALLENGER, trained.second)
    assert promote(trained.ctx, ledger) == trained.second
    assert aliases(trained) == {CHAMPION: 2, PREVIOUS: 1, CHALLENGER: None}
    assert promote(trained.ctx, ledger) == trained.second, "promoting the champion changes nothing"

    one, two = promotion.history(ledger)
    assert (one.champion, one.replaced, two.champion, two.replaced, two.previous) == (1, None, 2, 1, 1)
    names = {g.name for g in two.gates}
    assert {
        "champion/pinnersage/recall_at_100",
        "champion/pixie/recall_at_100",
        *(f"champion/{name}/recall_at_100" for name in LEARNED),
        *(f"{name}/recall_at_100" for name in LEARNED),
        "champion/ranker/log_loss",
        "index/rows/content@2",
    } <= names
    assert not two.failed
    tag = registry_of(trained.ctx).version(RELEASE_MODEL, 2).tags["gates"]
    assert tag == "passed"


def test_a_release_worse_than_the_champion_stays_out(trained: Trained, ledger: Path) -> None:
    promote(trained.ctx, ledger, trained.first)
    with pytest.raises(GateFailed) as refused:
        promote(trained.ctx, ledger, trained.scrambled)
    failed = {r.name: r for r in refused.value.results if not r.passed}
    worse = failed["champion/pinnersage/recall_at_100"]
    champion = manifest(trained, trained.first).metrics["pinnersage/recall_at_100"]
    assert worse.value is not None and worse.bound == pytest.approx(0.9 * champion)
    assert worse.value < worse.bound and worse.n is not None and worse.n >= 30
    lost = failed["champion/dcm"]
    assert "the champion has a dcm, this release has none" in lost.message
    assert aliases(trained)[CHAMPION] == trained.first
    assert len(promotion.history(ledger)) == 1
    assert registry_of(trained.ctx).version(RELEASE_MODEL, str(trained.scrambled)).tags["gates"] == "failed"  # type: ignore[arg-type]


def test_floors_stop_a_first_release(trained: Trained, ledger: Path) -> None:
    with pytest.raises(GateFailed, match=r"ranker/auc: 0\.\d+ is below 0\.99, n = \d+"):
        promote(trained.ctx, ledger, trained.first, bounds=GateBounds(min_ranker_auc=0.99))
    assert aliases(trained)[CHAMPION] is None and promotion.history(ledger) == ()


def test_an_override_is_kept_with_what_it_overrode(trained: Trained, ledger: Path) -> None:
    strict = GateBounds(min_ranker_auc=0.99)
    with pytest.raises(promotion.EmptyOverride, match="empty"):
        promote(trained.ctx, ledger, trained.first, override="  ", bounds=strict)
    promote(trained.ctx, ledger, trained.first, override="holiday freeze ends today", bounds=strict)
    (entry,) = promotion.history(ledger)
    assert entry.override == "holiday freeze ends today"
    assert [g.name for g in entry.failed] == ["ranker/auc"]
    assert registry_of(trained.ctx).version(RELEASE_MODEL, 1).tags["gates"] == "overridden"


def test_rollback_goes_back_and_never_forth(trained: Trained, ledger: Path) -> None:
    with pytest.raises(RollbackImpossible, match="no champion came before"):
        rollback(trained.ctx, ledger)
    promote(trained.ctx, ledger, trained.first)
    promote(trained.ctx, ledger, trained.second)
    promote(trained.ctx, ledger, trained.scrambled, override="to be taken back")
    assert rollback(trained.ctx, ledger) == trained.second
    assert aliases(trained) == {CHAMPION: 2, PREVIOUS: 1, CHALLENGER: None}
    assert rollback(trained.ctx, ledger) == trained.first
    assert aliases(trained) == {CHAMPION: 1, PREVIOUS: None, CHALLENGER: None}
    with pytest.raises(RollbackImpossible):
        rollback(trained.ctx, ledger)
    assert [e.move for e in promotion.history(ledger)][3:] == [Move.ROLLBACK, Move.ROLLBACK]


@pytest.mark.parametrize("moved", ["nothing", "previous"])
def test_a_move_that_died_halfway_is_finished(
    trained: Trained, ledger: Path, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    """The ledger's line is on disk, the champion alias has not moved: the next command carries it out."""
    promote(trained.ctx, ledger, trained.first)

    honest = promotion._move

    def dies(registry: Registry, entry: LedgerEntry) -> None:
        if entry.champion != trained.second:
            return honest(registry, entry)
        if moved == "previous":
            registry.set_alias(RELEASE_MODEL, PREVIOUS, trained.first)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(promotion, "_move", dies)
        promote(trained.ctx, ledger, trained.second)
    assert aliases(trained)[CHAMPION] == trained.first
    assert Ledger(ledger).champions() == (1, 2)
    assert promote(trained.ctx, ledger) == trained.second
    assert aliases(trained) == {CHAMPION: 2, PREVIOUS: 1, CHALLENGER: None}
    assert len(promotion.history(ledger)) == 2, "finished, not done again"


def test_a_champion_without_its_collection_is_not_compared_and_not_returned_to(
    trained: Trained, ledger: Path
) -> None:
    promote(trained.ctx, ledger, trained.first)
    promote(trained.ctx, ledger, trained.second)
    milvus = connect(trained.ctx.milvus_uri)
    pins = load_catalogue(trained.ctx, manifest(trained, trained.first).parts["content"])
    try:
        milvus.drop("pins__content__1")
        with pytest.raises(RollbackImpossible, match="pins__content__1"):
            rollback(trained.ctx, ledger)
        milvus.drop("pins__content__2")
        with pytest.raises(GateFailed, match="not compared with champion 2: no collection pins__content__2"):
            promote(trained.ctx, ledger, trained.scrambled)
    finally:
        for version in (trained.first, trained.second):
            fill(trained.ctx, manifest(trained, version).parts["content"], pins)
        milvus.close()
    assert aliases(trained)[CHAMPION] == trained.second


def test_comparison_is_pair_by_pair(trained: Trained) -> None:
    one = manifest(trained, trained.first)
    same = compare(trained.ctx, one, one, trained.first)
    assert {p.metric for p in same.metrics} >= {"pinnersage/recall_at_100", "ranker/log_loss"}
    assert all(p.candidate == p.champion and p.low == p.high == 0 for p in same.metrics)
    assert same.evaluation == compare(trained.ctx, one, manifest(trained, 2), 2).evaluation
    recall = next(p for p in same.metrics if p.metric == "pinnersage/recall_at_100")
    assert recall.candidate == pytest.approx(one.metrics["pinnersage/recall_at_100"])


@pytest.mark.parametrize("role", ["lexical", "searchsage", "ads", "ranker", "dcm"])
def test_a_part_that_a_release_lost_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    ctx = planted.context(tmp_path)
    monkeypatch.setattr(Bench, "of", lambda *_: Bench(ctx, Registry("none"), None, "", None))
    whole = planted.manifest(1, parts={role: Part(model=role, version=1)})
    found = compare(ctx, planted.manifest(2), whole, 1)
    assert found.missing == {role: f"the champion has a {role}, this release has none"}
    assert [r.passed for r in run_gates(planted.manifest(2), found) if r.name == f"champion/{role}"] == [False]
    assert compare(ctx, whole, planted.manifest(2), 2).missing == {}


def test_a_data_set_without_follows_says_which_sources_it_loses(trained: Trained, tmp_path: Path) -> None:
    source = trained.ctx.lake
    lake = tmp_path / "lake"
    lake.mkdir()
    for path in source.iterdir():
        if path.name != "follows":
            (lake / path.name).symlink_to(path)
    said = compose(replace(trained.ctx, lake=lake), manifest(trained, trained.first).parts)
    assert said.sources[-4:] == ("popular_by_topic", "saved_together", "similar_pins", "lexical")
    assert said.skipped == {s: "there is no follows table" for s in ("followed_boards", "followed_topics")}


def test_a_release_takes_whoever_keeps_most_of_what_users_act_on(trained: Trained) -> None:
    kept = {"light/kept": 0.5, "two_tower/kept": 0.6, "merge/kept": 0.4, "light/users": 100.0}
    light = Part(model="light_gbdt", version=9, metrics=kept)
    said = compose(trained.ctx, {**manifest(trained, trained.first).parts, "light": light})
    assert said.light_by == "two_tower" and "light" not in said.parts
    assert said.skipped["light"] == "light_gbdt@9 keeps 0.500 of engaged pins, two_tower 0.600"
    assert {name: said.metrics[name] for name in kept} == kept, "what the gate reads"
    assert "Candidates are ordered by: two_tower." in card(said)


@pytest.mark.parametrize(
    ("given", "lost"), [("topic_id", "board_id"), ("board_id", "topic_id")], ids=["topics only", "boards only"]
)
def test_follows_of_one_kind_give_one_source(given: str, lost: str, tmp_path: Path) -> None:
    follows = pd.DataFrame({"user_id": [1, 2], given: [3, 4]})
    follows["timestamp"] = pd.Timestamp("2026-01-01", tz="UTC")
    lake = write_lake(tmp_path / "lake", {"follows": follows})
    source = {"topic_id": "followed_topics", "board_id": "followed_boards"}
    skipped: dict[str, str] = {}
    assert release._sources(lake, {}, skipped) == (source[given], "popular_by_topic")
    assert skipped == {source[lost]: f"the follows table has no {lost}"}


def test_days_that_any_weights_have_seen_measure_nothing(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One part of five learned until two days before the end: only those two days test, for all of them."""
    end = tiny_world().config.end_time
    parts = manifest(trained, trained.first).parts
    assert Bench.of(trained.ctx, parts.values()).past.held.cut == end - timedelta(days=7)
    honest = Registry.learned_until

    def later(registry: Registry, name: str, version: int) -> datetime | None:
        return end - timedelta(days=2) if name == "dcm" else honest(registry, name, version)

    monkeypatch.setattr(Registry, "learned_until", later)
    bench = Bench.of(trained.ctx, parts.values())
    assert bench.past.held.cut == end - timedelta(days=2)
    assert bench.evaluation != manifest(trained, trained.first).evaluation
    two_towers = bench.retrieval("two_tower", parts["two_tower"])
    assert two_towers.metrics["two_tower/users"] == len(bench.past.held)
    monkeypatch.setattr(Registry, "learned_until", lambda *_: end)
    assert Bench.of(trained.ctx, parts.values()).past is None, "they have seen everything"
