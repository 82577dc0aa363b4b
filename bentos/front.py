"""A home feed whose answers are made by other processes: here are events, logs, and the line to the makers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bentos.answer_logs import open_streams
from bentos.event_log import EventLog
from bentos.feast_features import FeastFeatures
from bentos.intake import EventIntake
from bentos.maker_process import forked
from bentos.makers import Makers
from bentos.parts import one_thread, open_intake
from bentos.pool import Pool
from bentos.registry import ModelRegistry
from bentos.settings import Settings
from validation.lake import Lake


@dataclass(frozen=True)
class FrontParts:
    """What the home feed's process holds where makers answer."""

    pool: Pool
    makers: Makers
    logs: Sequence[EventLog]
    intake: EventIntake

    @property
    def ready(self) -> bool:
        return self.makers.ready

    @property
    def version(self) -> int:
        """The release that is served: while one goes round, the new one. Raises NoRelease before the first."""
        return self.makers.version

    async def answer(self, api: str, request: Any) -> bytes:
        """The JSON of what an API of REQUESTS answers. Raises what Makers does."""
        return await self.makers.answer(api, request)

    def close(self) -> None:
        with contextlib.ExitStack() as closing:  # in turn, whatever becomes of the others
            closing.callback(self.pool.close)
            for log in self.logs:
                closing.callback(log.close)
            closing.callback(self.intake.close)
            closing.callback(self.makers.close)


def open_front(settings: Settings, loop: asyncio.AbstractEventLoop) -> FrontParts:
    """The front of a home, whose makers live on `loop`.

    Raises LakeError before the first ingest, LogInUse while another process writes the home's events.
    """
    one_thread()
    features, lake, pool = FeastFeatures.open(settings), Lake(settings.lake), Pool(settings.threads)
    with contextlib.ExitStack() as opened:
        opened.callback(pool.close)
        streams = open_streams(settings)
        for log in streams:
            opened.callback(log.close)
        taken = open_intake(settings, features, lake, pool)
        opened.pop_all()
    registry = ModelRegistry.of(settings, "homefeed")
    makers = Makers(
        forked(settings),
        lambda: registry.version_of(settings.alias),
        {log.stream: log for log in streams},
        count=settings.makers,
        poll_s=settings.poll_s,
        served_last=lambda: registry.served_last(settings.alias),
    )
    asyncio.run_coroutine_threadsafe(makers.run(), loop)
    return FrontParts(pool, makers, streams, taken)
