"""What services share once they are started."""

from __future__ import annotations

import asyncio
from pathlib import Path

import bentoml
import pytest

from bentos.opened_service import OpenedService
from bentos.settings import Settings


class Nothing:
    ready = True

    def close(self) -> None: ...


class Asked(OpenedService[Nothing]):
    def _open(self, settings: Settings) -> Nothing:
        return Nothing()

    @bentoml.api
    async def twice(self, number: int) -> int:
        return 2 * number


def test_an_api_is_bound_once_and_is_still_bentomls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORKBOARD_HOME", str(tmp_path))

    async def scenario() -> None:
        service = Asked()
        assert service.twice is not service.twice
        service.start()
        assert service.twice is service.twice
        assert await service.twice(4) == await service.twice.local(4) == 8  # type: ignore[attr-defined]
        await service.stop()

    asyncio.run(scenario())
