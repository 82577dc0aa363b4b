"""What begins and ends with a test process."""

from __future__ import annotations

from tests.feature_repo.vectors.servers import stop_shared


def pytest_sessionfinish() -> None:
    stop_shared()
