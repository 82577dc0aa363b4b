"""A home may be moved or copied: what its registry names is its own."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra import relocation
from infra.home import Home
from infra.own_registry import RegistryUnreadable
from infra.relocation import PLACES, settle
from tests.training import planted_releases as planted
from training.model_log import FLAVOURS, ModelLog, columns_signature
from training.models import MODEL_FILES
from training.registry import Registry
from training.release import load_manifest, register
from validation.kept_release import KeptRelease, note_of, notes

WHEN = datetime(2026, 3, 1, tzinfo=UTC)


def registry(home: Home) -> Registry:
    return Registry(home.mlflow_uri, home.mlflow_artifacts)


def log_model(home: Home, said: str) -> int:
    files = home.root / "made" / Path(MODEL_FILES).name
    files.mkdir(parents=True, exist_ok=True)
    (files / "weights.txt").write_text(said)
    return registry(home).log_model_version(
        ModelLog(
            name="content",
            files=files,
            flavour=next(FLAVOURS.glob("*.py")),
            description="planted",
            params={},
            metrics={},
            interval=(WHEN, WHEN),
            datasets=(),
            signature=columns_signature({"x": "float"}),
            requirements=("numpy",),
            inputs=said,
        )
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with a model and a release."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = Home.at(tmp_path / "original")
    log_model(home, "one")
    register(planted.context(home.root), planted.manifest(1))
    return home


def test_a_copied_home_reads_and_writes_its_own_files_alone(home: Home, tmp_path: Path) -> None:
    note = KeptRelease(alias="champion", version=1, folders={"content@1": str(home.mlflow_artifacts)})
    note.save(note_of(home.root, "homefeed"))
    copy = Home.at(shutil.copytree(home.root, tmp_path / "a copy, elsewhere"))
    assert settle(copy) and not settle(copy) and not settle(home)
    assert [*notes(copy.root)] == [] and len([*notes(home.root)]) == 1, "a note names files of the original"
    for place in [row[0] for t, c in PLACES for row in rows(copy, f"SELECT {c} FROM {t}")]:
        assert not place.startswith(home.mlflow_artifacts.as_uri()), place
    kept = sorted(home.mlflow_artifacts.rglob("*"))
    log_model(copy, "two")
    registry(copy).drop("content", 1)
    assert sorted(home.mlflow_artifacts.rglob("*")) == kept, "the original is untouched"
    assert (registry(home).download("content", 1) / "weights.txt").read_text() == "one"
    shutil.rmtree(home.root)
    found = registry(copy).download("content", 2)
    assert found.is_relative_to(copy.root) and (found / "weights.txt").read_text() == "two"
    assert load_manifest(planted.context(copy.root), 1) == planted.manifest(1)


def test_artifacts_that_are_no_homes_and_registries_elsewhere_stay(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(home, "UPDATE experiments SET artifact_location = 's3://models/mlflow/artifacts'")
    assert not settle(home) and not settle(Home.at(tmp_path / "empty"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert not settle(home)


def rows(home: Home, statement: str) -> list[tuple[str]]:
    with sqlite3.connect(home.root / "mlflow" / "mlflow.db") as db:
        found = db.execute(statement).fetchall()
    db.close()
    return found


def test_a_locked_registry_and_one_that_is_none_are_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Path(home.mlflow_uri.removeprefix("sqlite:///"))

    def locked(path: Path, here: str) -> None:
        raise sqlite3.OperationalError("database is locked")

    with monkeypatch.context() as held:
        held.setattr(relocation, "_moved", locked)
        with pytest.raises(RegistryUnreadable, match=r"mlflow.db: database is locked; if it is locked, wait"):
            settle(home)
    database.write_bytes(b"no database at all, whatever its name says" * 99)
    with pytest.raises(RegistryUnreadable, match=r"mlflow.db: file is not a database"):
        settle(home)
