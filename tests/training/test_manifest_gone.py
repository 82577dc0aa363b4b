"""A release whose folder somebody took away is named with its mend, wherever its manifest is read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from infra import local
from infra.cli import app
from infra.events import walked_until
from infra.home import Home
from tests.training import planted_releases as planted
from training import release
from training.ledger import Ledger, LedgerEntry, Move
from training.promotion import check
from training.registry import Registry
from training.release import compose, load_manifest, register
from validation.manifest import CHALLENGER, CHAMPION, RELEASE_MODEL, ReleaseManifest
from validation.part_files import FilesGone


@pytest.fixture
def registry(
    tmp_path: Path, give_registry: Callable[[Path], Registry], monkeypatch: pytest.MonkeyPatch
) -> Registry:
    """Releases 1 to 3, of which 2 was promoted over 1 and 3 is the challenger."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(local, "ensure_milvus", lambda home: None)
    registry = give_registry(tmp_path)
    for number in (1, 2, 3):
        register(planted.context(tmp_path), planted.manifest(number))
    registry.set_alias(RELEASE_MODEL, CHAMPION, 2)
    for champion, before in ((1, None), (2, 1)):
        Ledger(planted.ledger(tmp_path)).append(
            LedgerEntry(
                at=planted.WHEN, move=Move.PROMOTE, champion=champion, previous=before, replaced=before,
                by="someone", git_commit="0" * 40,
            )
        )  # fmt: skip
    return registry


def take_away(registry: Registry, version: int) -> Path:
    """The folder of a release, which is not there any more."""
    folder = Path(registry._location(RELEASE_MODEL, version).removeprefix("file://"))
    shutil.rmtree(folder)
    return folder


@pytest.mark.parametrize(
    ("command", "gone"),
    [("diff 1 2", 1), ("diff 1 2", 2), ("gc --dry-run", 2), ("promote", 3), ("rollback", 1)],
)
def test_commands_name_the_release_and_its_folder(
    registry: Registry, tmp_path: Path, command: str, gone: int
) -> None:
    folder = take_away(registry, gone)
    answer = CliRunner().invoke(app, ["--home", str(tmp_path), *command.split()], env={"COLUMNS": "300"})
    assert answer.exit_code == 1
    assert f"error: homefeed@{gone} has no manifest.json; " in answer.output and str(folder) in answer.output


def test_a_manifest_alone_that_is_gone_is_named(registry: Registry, tmp_path: Path) -> None:
    Path(registry._location(RELEASE_MODEL, 1).removeprefix("file://"), "manifest.json").unlink()
    with pytest.raises(FilesGone, match=r"homefeed@1 has no manifest.json; run `corkboard forget`"):
        load_manifest(planted.context(tmp_path), 1)


def test_events_are_not_compacted_without_knowing_what_graphs_are_made_of(
    registry: Registry, tmp_path: Path
) -> None:
    take_away(registry, 2)
    with pytest.raises(FilesGone, match="homefeed@2"):
        walked_until(Home.at(tmp_path))


def test_a_release_is_composed_without_one_that_is_gone(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_away(registry, 2)
    read: list[ReleaseManifest] = []

    def stop(registry: object, parts: object, before: list[ReleaseManifest]) -> None:
        read.extend(before)
        raise InterruptedError

    monkeypatch.setattr(release.Bench, "of", lambda *given: SimpleNamespace(registry=registry))
    monkeypatch.setattr(release, "with_digests", stop)
    with pytest.raises(InterruptedError):
        compose(planted.context(tmp_path), {})
    assert read == [planted.manifest(3), planted.manifest(1)]


def test_a_release_is_registered_after_one_that_is_gone(registry: Registry, tmp_path: Path) -> None:
    take_away(registry, 3)
    assert register(planted.context(tmp_path), planted.manifest(3)) == 4
    assert registry.alias(RELEASE_MODEL, CHALLENGER) == 4


def test_a_champion_whose_manifest_is_gone_fails_a_gate(registry: Registry, tmp_path: Path) -> None:
    take_away(registry, 2)
    failed = [gate for gate in check(planted.context(tmp_path), planted.manifest(3), 2) if not gate.passed]
    assert [gate.name for gate in failed] == ["champion/manifest"]
    assert re.search("not compared with champion 2: homefeed@2 has no manifest.json", failed[0].message)
