"""What begins and ends with a test process, and one empty MLflow database for its whole run: making one takes
seconds, copying it does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.feature_repo.vectors.servers import stop_shared
from training.registry import Registry

settings.register_profile("loaded machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded machine")


LONGEST = "test_main_job.py"
"""It gets a process first, while others serve: each compiles kernels that the other then finds compiled."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name != LONGEST)


def pytest_sessionfinish() -> None:
    stop_shared()


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
