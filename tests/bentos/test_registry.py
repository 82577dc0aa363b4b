"""What a service asks the registry for, and how often."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bentos.registry import ModelRegistry
from training.models import MODEL_FILES


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
