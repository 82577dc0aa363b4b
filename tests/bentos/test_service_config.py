"""What services are told of BentoML's middleware."""

from __future__ import annotations

import importlib

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer

from bentos import service_config


@pytest.mark.parametrize(("said", "excluded"), [("true", "."), ("", None)])
def test_where_telemetry_is_off_no_request_is_traced(
    monkeypatch: pytest.MonkeyPatch, said: str, excluded: str | None
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", said)
    config = importlib.reload(service_config).CONFIG
    assert config.get("tracing", {}).get("excluded_urls") == excluded
    assert "excluded_urls" in BentoMLContainer.config.tracing.get(), "BentoML still knows the setting"
    monkeypatch.undo()
    importlib.reload(service_config)
