"""What a service asks the registry, and how often."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from bentos.registry import ModelRegistry
from training.models import MODEL_FILES
from validation.part_files import FilesGone


@dataclass
class Client:
    """MLflow's, as far as it is asked for aliases."""

    version: int = 1
    asked: list[str] = field(default_factory=list)

    def get_model_version_by_alias(self, model: str, alias: str) -> SimpleNamespace:
        self.asked.append(alias)
        return SimpleNamespace(version=str(self.version))


def registry(uri: str) -> tuple[ModelRegistry, Client]:
    made, client = ModelRegistry(uri), Client()
    made.__dict__["client"] = client
    return made, client


def grown(file: Path, *, age_s: float) -> None:
    """Written to, that long ago."""
    with file.open("ab") as out:
        out.write(b"a page")
    then = os.stat(file).st_mtime_ns - int(age_s * 1e9)
    os.utime(file, ns=(then, then))


@pytest.mark.parametrize("written", ["mlflow.db", "mlflow.db-wal"])
def test_a_registry_in_a_file_is_asked_where_the_file_has_changed(tmp_path: Path, written: str) -> None:
    database = tmp_path / "mlflow.db"
    grown(database, age_s=9)
    served, client = registry(f"sqlite:///{database}")
    assert [served.version_of("champion") for _ in range(3)] == [1, 1, 1] and client.asked == ["champion"]
    client.version = 2
    grown(tmp_path / written, age_s=5)
    assert [served.version_of("champion") for _ in range(3)] == [2, 2, 2] and len(client.asked) == 2
    served.version_of("challenger")
    assert client.asked[2:] == ["challenger"]


def test_a_file_that_has_just_changed_may_change_unseen_and_is_asked_again(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    grown(database, age_s=0)
    served, client = registry(f"sqlite:///{database}")
    assert served.version_of("champion") == 1
    client.version = 2  # within one tick of the file's clock
    assert served.version_of("champion") == 2


def test_a_server_is_asked_each_time_and_no_file_is_made(tmp_path: Path) -> None:
    served, client = registry("http://127.0.0.1:1")
    assert [served.version_of("champion") for _ in range(2)] == [1, 1] and len(client.asked) == 2
    absent, client = registry(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert absent.version_of("champion") is None and not client.asked and not list(tmp_path.iterdir())


def test_where_a_version_is_is_asked_once_and_again_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def uri_of(model: str, version: str) -> str:
        asked.append((model, version))
        return str(tmp_path / model / version)

    def download(uri: str, tracking_uri: str) -> str:
        Path(uri).mkdir(parents=True)
        return uri

    monkeypatch.setitem(
        sys.modules, "mlflow", SimpleNamespace(artifacts=SimpleNamespace(download_artifacts=download))
    )
    registry = ModelRegistry("sqlite:///none")
    registry.__dict__["client"] = SimpleNamespace(get_model_version_download_uri=uri_of)
    folder = tmp_path / "pixie" / "3"
    assert [registry.files("pixie", 3) for _ in range(3)] == [folder / MODEL_FILES] * 3
    assert registry.files("pixie", 4) == tmp_path / "pixie" / "4" / MODEL_FILES
    assert asked == [("pixie", "3"), ("pixie", "4")]
    shutil.rmtree(folder)
    assert registry.files("pixie", 3) == folder / MODEL_FILES and len(asked) == 3


@pytest.mark.parametrize(("place", "raised"), [("file://{}/3", FilesGone), ("s3://bucket{}/3", OSError)])
def test_files_that_are_gone_from_this_machine_are_told_from_a_store_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, raised: type[Exception]
) -> None:
    def download(uri: str, tracking_uri: str) -> str:
        raise OSError("No such artifact")

    monkeypatch.setitem(
        sys.modules, "mlflow", SimpleNamespace(artifacts=SimpleNamespace(download_artifacts=download))
    )
    registry = ModelRegistry("sqlite:///none")
    uri = place.format(tmp_path)
    registry.__dict__["client"] = SimpleNamespace(get_model_version_download_uri=lambda model, version: uri)
    with pytest.raises(raised) as failed:
        registry.files("pixie", 3)
    assert isinstance(failed.value, FilesGone) == (raised is FilesGone)
    if raised is FilesGone:
        assert "pixie@3 has no files; " in str(failed.value) and str(tmp_path / "3") in str(failed.value)
        (tmp_path / "3").mkdir()
        with pytest.raises(OSError, match="No such artifact"):
            registry.files("pixie", 3)  # they are there, and MLflow cannot read them
