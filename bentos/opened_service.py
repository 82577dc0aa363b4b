"""What the four services share: parts opened beside the health check, readiness, and a clean end."""

from __future__ import annotations

import asyncio
from typing import Generic, Protocol, TypeVar

import bentoml

from bentos.opening import Opening
from bentos.settings import Settings


class Parts(Protocol):
    """What a service is made of once it is open."""

    @property
    def ready(self) -> bool:
        """Whether requests can be answered."""
        ...

    def close(self) -> None: ...


P = TypeVar("P", bound=Parts)


class OpenedService(Generic[P]):
    """Base of a service class: `_open` makes its parts of the settings, `_parts.get()` has them."""

    def __init__(self) -> None:
        settings = Settings.from_environment()
        self._parts: Opening[P] = Opening(lambda: self._open(settings), lambda parts: parts.close())

    def _open(self, settings: Settings) -> P:
        raise NotImplementedError

    @bentoml.on_startup
    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parts.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Off the event loop, which may have to hear what is still to be kept."""
        await asyncio.to_thread(self._parts.close)

    async def __is_ready__(self) -> bool:
        return self._parts.opened and self._parts.get().ready
