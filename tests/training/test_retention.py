"""Retention clears what nobody can go back to, and nothing else: five planted releases in real stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_repo.online.spaces import offline_spaces, online_spaces
from feature_repo.store import apply, materialize, open_store
from feature_repo.vectors.milvus import Milvus, connect
from feature_repo.vectors.rows import PinRows
from infra import releases
from infra.home import Home
from tests.feature_repo.vectors.servers import shared_lite
from tests.training.planted_releases import BYTES, DIM, ROWS, context, ledger, plant, whole_manifest
from training.context import TrainingContext
from training.ledger import Ledger, LedgerEntry, Move
from training.promotion import RollbackImpossible, check, rollback
from training.registry import Registry, VersionDropped
from training.release_difference import difference
from training.release_parts import registry_of
from training.retention import RetentionConfig, collect
from validation.lease import Lease, leases_of
from validation.manifest import CHALLENGER, CHAMPION, PREVIOUS, RELEASE_MODEL

pytestmark = pytest.mark.slow

RELEASES = 6
ONE = RetentionConfig(releases=1)


@pytest.fixture(scope="module")
def planted(
    tmp_path_factory: pytest.TempPathFactory, give_registry: Callable[[Path], Registry]
) -> Iterator[TrainingContext]:
    """Six releases: 3 is champion, 2 the one before, 1 came before that; a service still holds 4."""
    home = tmp_path_factory.mktemp("retention") / "home"
    home.mkdir()
    registry = give_registry(home)
    plant(home, registry, RELEASES)
    ctx = context(home, shared_lite())
    with milvus_of(ctx) as milvus:
        for name in _collections(milvus):
            milvus.drop(name)  # of tests that ran before
        for number in range(1, RELEASES + 1):
            fill(milvus, f"pins__content__{number}")
        milvus.client.create_alias("pins__content__5", "pins__content__1000")
    store = open_store(home)
    apply(store)
    materialize(store, ["pin_embedding", "user_embedding", "user_interests"])
    book = Ledger(ledger(home))
    for number in (1, 2, 3):
        book.append(entry(number))
    for alias, number in ((CHAMPION, 3), (PREVIOUS, 2)):
        registry.set_alias(RELEASE_MODEL, alias, number)
    registry.client.delete_registered_model_alias(RELEASE_MODEL, CHALLENGER)
    yield ctx
    with milvus_of(ctx) as milvus:
        for name in _collections(milvus):
            milvus.drop(name)


@contextmanager
def milvus_of(ctx: TrainingContext) -> Iterator[Milvus]:
    """A connection for a moment: an idle one pings more than Milvus Lite puts up with."""
    milvus = connect(ctx.milvus_uri)
    try:
        yield milvus
    finally:
        milvus.close()


def entry(number: int) -> LedgerEntry:
    return LedgerEntry(
        at=whole_manifest(1).created_at,
        move=Move.PROMOTE,
        champion=number,
        previous=number - 1 or None,
        replaced=number - 1 or None,
        by="someone@somewhere",
        git_commit="0" * 40,
    )


def fill(milvus: Milvus, name: str) -> None:
    vectors = np.eye(ROWS, DIM, dtype=np.float32)
    index = milvus.create(name, DIM)
    index.upsert(PinRows.of(np.arange(1, ROWS + 1), vectors, [[1]] * ROWS, np.ones(ROWS), np.ones(ROWS)))
    index.flush()


def _collections(milvus: Milvus) -> list[str]:
    return [name for name in milvus.collections() if name.startswith("pins__content__")]


def test_what_is_in_use_stays_and_the_rest_is_gone_everywhere(planted: TrainingContext) -> None:
    home, registry = Path(planted.feast_home), registry_of(planted)
    lease = Lease.take(leases_of(home), "homefeed")
    lease.hold([4])
    would = collect(planted, ledger(home), ONE, dry_run=True)
    assert {v: why.split("-")[0] for v, why in would.kept.releases.items()} == {
        2: "previous",
        3: "champion",
        4: "held by homefeed",
        6: "one of the newest 1",
    }
    named = {(leftover.kind, leftover.name) for leftover in would.cleared}
    assert ("collection", "pins__content__5") in named and ("model", "content@1") in named
    assert not {name for _, name in named if name.endswith(("@2", "@3", "@4", "@6"))}
    models = [leftover for leftover in would.cleared if leftover.kind == "model"]
    parts = ("content", "pinnerformer", "pinnersage", "pinnability_gbdt")
    assert {leftover.name for leftover in models} == {f"{model}@{n}" for model in parts for n in (1, 5)}
    assert sum(leftover.bytes for leftover in models) == len(models) * BYTES
    with milvus_of(planted) as milvus:
        assert len(_collections(milvus)) == RELEASES, "nothing was cleared yet"

    done = collect(planted, ledger(home), ONE)
    assert {(leftover.kind, leftover.name) for leftover in done.cleared} == named
    assert done.bytes == would.bytes > 0
    kept = (2, 3, 4, 6)
    with milvus_of(planted) as milvus:
        assert _collections(milvus) == [f"pins__content__{number}" for number in kept]
    spaces = {f"{model}@{number}" for model in ("content", "pinnerformer") for number in kept}
    assert {space for _, space, _ in offline_spaces(planted.features)} == spaces
    assert {space for _, space, _ in online_spaces(open_store(home))} == spaces
    for folder in ("replicas/pins__content__{}", "training_sets/pinnerformer-users/v{}"):
        left = [n for n in range(1, RELEASES + 1) if (home / folder.format(n)).exists()]
        assert tuple(left) == kept, folder
    assert not list(home.rglob("checkpoint.safetensors")), "their runs ended in versions"
    assert registry.versions("content") == list(kept)
    assert registry.versions(RELEASE_MODEL) == list(range(1, RELEASES + 1)), "manifests stay"
    assert registry.download("content", 2).is_dir()
    with pytest.raises(VersionDropped, match=r"content@5 were cleared away by `corkboard gc`"):
        registry.download("content", 5)
    assert registry.find("content", f"{5:032x}") is None and registry.find("content", f"{2:032x}") == 2
    assert collect(planted, ledger(home), ONE).cleared == (), "a second run has nothing to do"

    lease.close()
    freed = collect(planted, ledger(home), ONE, dry_run=True)
    assert 4 not in freed.kept.releases and "pins__content__4" in {leftover.name for leftover in freed.cleared}


def test_a_release_that_lost_its_parts_is_neither_rolled_back_to_nor_promoted(planted: TrainingContext) -> None:
    home = Path(planted.feast_home)
    assert rollback(planted, ledger(home)) == 2
    with pytest.raises(
        RollbackImpossible, match=r"content@1, pinnerformer@1, .*cleared away by .*no collection"
    ):
        rollback(planted, ledger(home))
    gate = check(planted, whole_manifest(5), None)[0]
    assert (gate.name, gate.passed, gate.value, gate.bound) == ("parts", False, 0.0, 4.0)
    assert registry_of(planted).alias(RELEASE_MODEL, CHAMPION) == 2


def test_releases_are_told_apart_even_where_one_is_gone(planted: TrainingContext) -> None:
    found = difference(planted, ledger(Path(planted.feast_home)), 1, 3)
    parts = {line.what: (line.a, line.b) for line in found.parts}
    assert parts["pinnersage"] == ("pinnersage@1, in content@1", "pinnersage@3, in content@3")
    facts = {line.what: (line.a, line.b) for line in found.facts}
    assert facts["commit"] == (f"{1:040}", f"{3:040}")
    assert facts["promotions"][1].startswith("2026-03-01 00:00 by someone@somewhere")
    assert next(line for line in found.gates if line.what == "ranker/auc").a == "FAIL: was not measured, n = 0"


def test_what_history_diff_and_gc_print(
    planted: TrainingContext, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CORKBOARD_MILVUS_URI", planted.milvus_uri)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(releases.console, "width", 200)
    home = Home.at(Path(planted.feast_home))

    def said() -> str:
        return " ".join(capsys.readouterr().out.split())

    releases.history(home)
    told = said()
    assert "2026-03-01 00:00:00 promote 3 2 someone@somewhere" in told and " rollback 2 3 " in told
    releases.diff(home, 1, 3)
    told = said()
    assert "pinnersage pinnersage@1, in content@1 pinnersage@3, in content@3" in told
    assert "neither was promoted over the other" in told
    releases.gc(home, releases=1, dry_run=True)
    told = said()
    assert "kept releases: 1 (previous), 2 (champion)" in told and "collection pins__content__4" in told
    assert told.endswith("bytes would be cleared away")


def test_a_home_without_releases_has_nothing_to_clear(
    planted: TrainingContext, tmp_path: Path, give_registry: Callable[[Path], Registry]
) -> None:
    give_registry(tmp_path)
    empty = replace(context(tmp_path), milvus_uri=planted.milvus_uri)
    assert collect(empty, ledger(tmp_path), dry_run=True).cleared == ()
