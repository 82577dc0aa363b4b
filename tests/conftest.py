"""What begins and ends with a test process."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.feature_repo.vectors.servers import stop_shared

settings.register_profile("loaded machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded machine")


LONGEST = "test_main_job.py"
"""It gets a process first, while others serve: each compiles kernels that the other then finds compiled."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name != LONGEST)


def pytest_sessionfinish() -> None:
    stop_shared()
