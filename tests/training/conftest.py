"""One empty MLflow database a session: making one takes seconds, copying it does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from training.registry import Registry


@pytest.fixture(scope="session")
def give_registry(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Registry]:
    """Puts an empty registry into a home folder: `mlflow/mlflow.db` and `mlflow/artifacts`."""
    template = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Registry(f"sqlite:///{template}").client.get_experiment("0")

    def give(root: Path) -> Registry:
        folder = root / "mlflow"
        folder.mkdir(parents=True)
        shutil.copy(template, folder / "mlflow.db")
        return Registry(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts")

    return give
