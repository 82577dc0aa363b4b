"""What importing Feast leaves out, and that nobody else goes without."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from unittest import mock

import pytest
import typeguard

import feature_repo  # noqa: F401
from feature_repo.store import FeatureStoreError, open_config


class _Asked:
    def twice(self, number: int) -> int:
        return number * 2


def test_classes_of_feast_are_left_as_they_are() -> None:
    theirs = type("Entity", (), {"__module__": "feast.entity"})
    assert typeguard.typechecked(theirs) is theirs
    assert typeguard.typechecked()(theirs) is theirs


def test_everybody_elses_are_checked() -> None:
    with pytest.raises(typeguard.TypeCheckError):
        typeguard.typechecked(_Asked)().twice("2")


def test_filters_of_warnings_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "feast"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import warnings\nwarnings.simplefilter('once', DeprecationWarning)\nFeatureStore = None\n"
    )
    (package / "repo_config.py").write_text("RepoConfig = None\n")
    (tmp_path / "store.yaml").write_text("project: ${NOT_GIVEN}")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(warnings.filters)
    with mock.patch.dict(sys.modules):
        for name in [name for name in sys.modules if name.partition(".")[0] == "feast"]:
            del sys.modules[name]
        sys.modules.pop("feature_repo.feast_import", None)
        with pytest.raises(FeatureStoreError, match="NOT_GIVEN"):
            open_config(tmp_path / "store.yaml", {})
        with monkeypatch.context() as patched, pytest.raises(FeatureStoreError, match="NOT_GIVEN"):
            patched.setattr(warnings, "catch_warnings", None)  # which another thread may be within
            open_config(tmp_path / "store.yaml", {})
    assert warnings.filters == before
