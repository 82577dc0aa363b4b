"""A service that starts while MLflow is down goes by what was served last."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bentos.registry import ModelRegistry
from bentos.settings import Settings
from tests.bentos.fakes import manifest
from training.models import MODEL_FILES
from validation.kept_release import KeptRelease
from validation.manifest import MANIFEST_FILE


class FakeClient:
    """MLflow over a folder; refuses while it is `down`."""

    down = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get_model_version_by_alias(self, model: str, alias: str) -> SimpleNamespace:
        self._enter()
        return SimpleNamespace(version="3")

    def get_model_version_download_uri(self, model: str, version: str) -> str:
        self._enter()
        return str(self.folder / model / version)

    def _enter(self) -> None:
        if self.down:
            raise ConnectionError("refused")


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """Over files on this machine, which MLflow hands out where they lie; importing it would cost seconds."""
    artifacts = SimpleNamespace(download_artifacts=lambda uri, tracking_uri: uri)
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(artifacts=artifacts))
    client = FakeClient(tmp_path / "mlflow")
    for model, version in (("homefeed", 3), ("pixie", 3), ("content", 1)):
        (client.folder / model / str(version) / MODEL_FILES).mkdir(parents=True)
    (client.folder / "homefeed" / "3" / MANIFEST_FILE).write_text(manifest(3).model_dump_json())
    return client


def registry(home: Path, client: FakeClient) -> ModelRegistry:
    """Of a process that has just started."""
    made = ModelRegistry.of(Settings(home=home, mlflow_uri="http://127.0.0.1:9"), "homefeed")
    made.__dict__["client"] = client
    return made


def test_what_was_served_last_is_found_again_without_mlflow(tmp_path: Path, client: FakeClient) -> None:
    before = registry(tmp_path, client)
    before.files("pixie", 3)
    before.files("content", 1)
    before.keep("champion", before.manifest(3), 3)
    client.down = True
    after = registry(tmp_path, client)
    assert after.served_last("champion") == 3 and after.manifest(3) == manifest(3)
    assert after.files("pixie", 3) == client.folder / "pixie" / "3" / MODEL_FILES
    assert after.served_last("challenger") is None
    with pytest.raises(ConnectionError):
        after.version_of("champion")  # the note is no answer of the registry's
    with pytest.raises(ConnectionError):
        after.files("pixie", 2)
    shutil.rmtree(client.folder / "content" / "1")
    with pytest.raises(ConnectionError):
        after.files("content", 1)


def test_without_a_note_that_can_be_read_nothing_is_known(tmp_path: Path, client: FakeClient) -> None:
    assert registry(tmp_path, client).served_last("champion") is None
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "served-homefeed.json").write_text("{")
    assert registry(tmp_path, client).served_last("champion") is None


def test_a_note_is_of_one_release_whole(tmp_path: Path, client: FakeClient) -> None:
    one = registry(tmp_path, client)
    one.files("content", 1)
    one.files("pixie", 3)
    one.keep("champion", manifest(2), 2)
    assert one.kept is not None
    assert KeptRelease.read(one.kept) == KeptRelease(
        alias="champion",
        version=2,
        folders={"content@1": str(client.folder / "content" / "1")},
    )
