"""The `Homefeed` service: feeds, related pins, events and the page.

    bentoml serve bentos.homefeed:Homefeed

In the default profile one process holds everything; with `CORKBOARD_MAKERS=2` it hears clients and takes in
events, and processes of its own make the answers (`makers.py`). With `CORKBOARD_PROFILE=separate`, events,
retrieval and ranking are services of their own behind `bentoml.depends`, and this process keeps the funnel and
the page.
"""

from __future__ import annotations

import asyncio
from functools import partial

import bentoml
from pydantic import BaseModel
from starlette.responses import Response

from bentos.access import guarded
from bentos.engines import RemoteRanking, RemoteRetrieval
from bentos.errors import LogUnavailable, NamedErrors, named_errors
from bentos.events import Events
from bentos.front import FrontParts, open_front
from bentos.hop import holds, hop, speak_json
from bentos.hop_messages import HeldRequest, LightAnswer, RankAnswer, RetrieveAnswer
from bentos.loader import WHOLE, Role
from bentos.messages import (
    EventsAnswer,
    EventsRequest,
    FeedAnswer,
    FeedRequest,
    PinsAnswer,
    PinsRequest,
    RelatedAdsRequest,
    RelatedRequest,
    SearchRequest,
    SuggestionsAnswer,
    SuggestionsRequest,
    UsersAnswer,
    UsersRequest,
)
from bentos.opened_service import OpenedService
from bentos.page_app import front_door, page
from bentos.parts import HomefeedParts, open_homefeed, written
from bentos.ranking import Ranking
from bentos.ranking_log import is_drawn
from bentos.retrieval import Retrieval
from bentos.service_config import CONFIG
from bentos.settings import Profile, Settings, profile, service_url

ASKED_S = 10.0
"""Within which the services behind this one say what they hold; a loop that ends says nothing."""
EVENTS_DEADLINE_S = 8.0
"""Of the events service, where it is another process: past what its own deadlines sum up to."""

SEPARATE = profile() is Profile.SEPARATE


@bentoml.service(**CONFIG)
@bentoml.asgi_app(front_door(), path="/", name="front_door")
@bentoml.asgi_app(page(), path="/ui", name="page")
class Homefeed(OpenedService[HomefeedParts | FrontParts]):
    """Home feeds and related pins, with why each pin is there, what each stage did and which release chose."""

    if SEPARATE:
        events_service = bentoml.depends(Events, url=service_url("events"))
        retrieval_service = bentoml.depends(Retrieval, url=service_url("retrieval"))
        ranking_service = bentoml.depends(Ranking, url=service_url("ranking"))

    @bentoml.on_startup
    def start(self) -> None:
        if SEPARATE:
            for service in (self.events_service, self.retrieval_service, self.ranking_service):
                speak_json(service)
        super().start()

    def _open(self, settings: Settings) -> HomefeedParts | FrontParts:
        if settings.makers > 1:
            return open_front(settings, self._loop)
        if not SEPARATE:
            return open_homefeed(settings, role=WHOLE, with_events=True)
        return open_homefeed(
            settings,
            role=Role.FEED,
            retrieval=RemoteRetrieval(
                lambda request: hop(self.retrieval_service.retrieve(request.model_dump()), RetrieveAnswer)
            ),
            ranking=RemoteRanking(
                lambda request: hop(self.ranking_service.light(request.model_dump()), LightAnswer),
                lambda request: hop(self.ranking_service.rank(request.model_dump()), RankAnswer),
                lambda request: hop(self.ranking_service.ads(request.model_dump()), RankAnswer),
                logged=partial(is_drawn, share=settings.rankings_rate),
            ),
            with_events=False,
            elsewhere=self._without,
        )

    def _without(self, version: int) -> list[str]:
        """The services behind this one that do not hold release `version`. Blocks; not for the event loop."""
        return asyncio.run_coroutine_threadsafe(self._ask_behind(version), self._loop).result(ASKED_S)

    async def _ask_behind(self, version: int) -> list[str]:
        request = HeldRequest(release=version).model_dump()
        behind = {"retrieval": self.retrieval_service, "ranking": self.ranking_service}
        held = await asyncio.gather(*(holds(service.held(request)) for service in behind.values()))
        return [name for name, is_held in zip(behind, held, strict=True) if not is_held]

    @bentoml.api(route="/homefeed")
    @named_errors
    async def homefeed(self, request: FeedRequest, /) -> FeedAnswer:
        """A feed for a user. A user never seen gets what is popular, and the answer says so in `fallback`."""
        return await self._answer("homefeed", request)

    @bentoml.api(route="/related")
    @named_errors
    async def related(self, request: RelatedRequest, /) -> FeedAnswer:
        """Pins related to a pin or to a board. One never seen is a 404 named PinNotFound or BoardNotFound."""
        return await self._answer("related", request)

    @bentoml.api(route="/related_ads")
    @named_errors
    async def related_ads(self, request: RelatedAdsRequest, /) -> FeedAnswer:
        """Sponsored pins for a page of related ones, each with its place there; none is an answer too."""
        return await self._answer("related_ads", request)

    @bentoml.api(route="/search")
    @named_errors
    async def search(self, request: SearchRequest, /) -> FeedAnswer:
        """Pins for a query. What was read into it is in `query`; popular pins where nothing is found."""
        return await self._answer("search", request)

    @bentoml.api(route="/suggestions")
    @named_errors
    async def suggestions(self, request: SuggestionsRequest, /) -> SuggestionsAnswer:
        """Queries that begin like this one, of those that many people made."""
        return await self._answer("suggestions", request)

    @bentoml.api(route="/pins")
    @named_errors
    async def pins(self, request: PinsRequest, /) -> PinsAnswer:
        """Cards of pins, in the order asked for."""
        return await self._answer("pins", request)

    @bentoml.api(route="/users")
    @named_errors
    async def users(self, request: UsersRequest, /) -> UsersAnswer:
        """Users to pick from, from the busiest of the last day to the quietest."""
        return await self._answer("users", request)

    @bentoml.api(route="/events")
    @named_errors
    async def events(self, request: EventsRequest, /) -> EventsAnswer:
        """Keep events. The answer means that they are on disk; a repeat of an event id changes nothing."""
        parts = self._parts.get()
        if parts.intake is None:
            return _response(await self._passed_on(request))
        return _response(await parts.intake.accept(request, release=parts.version))

    async def _answer(self, api: str, request: BaseModel) -> Response:
        return Response(await self._parts.get().answer(api, request), media_type="application/json")

    async def _passed_on(self, request: EventsRequest) -> EventsAnswer:
        """The events service's answer. Raises LogUnavailable where it is not there."""
        try:
            asked = hop(self.events_service.events(request.model_dump()), EventsAnswer)
            return await asyncio.wait_for(asked, EVENTS_DEADLINE_S)
        except (ConnectionError, TimeoutError) as error:
            raise LogUnavailable(
                "the events service did not answer: what was sent may be kept or not; send it again, with the"
                " same event ids"
            ) from error


Homefeed.add_asgi_middleware(guarded())
Homefeed.add_asgi_middleware(NamedErrors)


def _response(answer: BaseModel) -> Response:
    return Response(written(answer), media_type="application/json")
