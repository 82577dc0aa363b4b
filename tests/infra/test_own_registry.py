"""What is read of MLflow's database is what MLflow says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import jobs
from infra.home import Home
from infra.own_registry import own_aliases
from training.registry import Registry
from validation.manifest import RELEASE_MODEL


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Home.at(tmp_path)


def test_aliases_are_those_of_mlflow(home: Home, give_registry: Callable[[Path], Registry]) -> None:
    registry = give_registry(home.root)
    assert own_aliases(home, RELEASE_MODEL) == {} == jobs.aliases(home)
    for model in (RELEASE_MODEL, "pixie"):
        registry.ensure_model(model)
        for _ in range(3):
            registry.client.create_model_version(model, source=home.root.as_uri())
    registry.set_alias(RELEASE_MODEL, "champion", 2)
    registry.set_alias(RELEASE_MODEL, "challenger", 3)
    registry.set_alias(RELEASE_MODEL, "other", 1)
    registry.set_alias("pixie", "champion", 1)
    assert own_aliases(home, RELEASE_MODEL) == registry.aliases(RELEASE_MODEL)
    assert jobs.aliases(home) == {"champion": 2, "challenger": 3} and jobs.champion(home) == 2


def test_a_home_without_a_registry_has_no_aliases_and_gets_no_registry(home: Home) -> None:
    assert jobs.aliases(home) == {} and not list(home.root.iterdir())


def test_what_runs_is_shown_without_importing_mlflow(home: Home) -> None:
    shown = "import sys; from infra import jobs; from infra.home import Home; jobs.status(Home.at(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{shown}; sys.exit('mlflow' in sys.modules)", str(home.root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
