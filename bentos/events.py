"""The `Events` service: what users do, durably logged before it is answered, and in the next feed.

bentoml serve bentos.events:Events
"""

from __future__ import annotations

from dataclasses import dataclass

import bentoml

from bentos.access import guarded
from bentos.errors import NamedErrors, named_errors
from bentos.feast_features import FeastFeatures
from bentos.intake import EventIntake
from bentos.messages import EventsAnswer, EventsRequest
from bentos.opened_service import OpenedService
from bentos.parts import one_thread, open_intake
from bentos.pool import Pool
from bentos.service_config import CONFIG
from bentos.settings import Settings
from validation.lake import Lake


@dataclass(frozen=True)
class EventsParts:
    pool: Pool
    intake: EventIntake
    ready: bool = True

    def close(self) -> None:
        self.intake.close()
        self.pool.close()


def open_parts(settings: Settings) -> EventsParts:
    """The parts of an events process. Raises LakeError, LogInUse."""
    one_thread()
    pool = Pool(settings.threads)
    return EventsParts(pool, open_intake(settings, FeastFeatures.open(settings), Lake(settings.lake), pool))


@bentoml.service(**CONFIG)
class Events(OpenedService[EventsParts]):
    """Takes what users do: logged durably, merged into their sequence, reflected in their next feed."""

    def _open(self, settings: Settings) -> EventsParts:
        return open_parts(settings)

    @bentoml.api(route="/events")
    @named_errors
    async def events(self, request: EventsRequest, /) -> EventsAnswer:
        """Keep events. The answer means that they are on disk; a repeat of an event id changes nothing."""
        return await self._parts.get().intake.accept(request)


Events.add_asgi_middleware(guarded())
Events.add_asgi_middleware(NamedErrors)
