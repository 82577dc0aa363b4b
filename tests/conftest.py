"""What begins and ends with a test process."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.feature_repo.vectors.servers import stop_shared

settings.register_profile("loaded machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded machine")


def pytest_sessionfinish() -> None:
    stop_shared()
