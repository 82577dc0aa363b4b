"""The `Retrieval` service: candidates of every source, for a home feed that runs elsewhere.

bentoml serve bentos.retrieval:Retrieval
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import bentoml

from bentos.access import guarded
from bentos.engines import LocalRetrieval, answer_of
from bentos.errors import NamedErrors, named_errors
from bentos.feast_features import FeastFeatures
from bentos.feed import Feed, Surface
from bentos.funnel import sources_of
from bentos.hop_messages import HeldAnswer, HeldRequest, RetrieveAnswer, RetrieveRequest
from bentos.last_good import LastGoodUsers
from bentos.loader import Role
from bentos.opened_service import OpenedService
from bentos.parts import one_thread, open_holder
from bentos.pool import Pool
from bentos.service_config import CONFIG
from bentos.serving import ReleaseHolder
from bentos.settings import Settings
from bentos.stages import read_user

USER_DEADLINE_MS = 500


@dataclass(frozen=True)
class RetrievalParts:
    pool: Pool
    holder: ReleaseHolder
    last_good: LastGoodUsers = field(default_factory=LastGoodUsers)

    @property
    def ready(self) -> bool:
        return self.holder.ready

    def close(self) -> None:
        self.holder.close()
        self.pool.close()


def open_parts(settings: Settings) -> RetrievalParts:
    """The parts of a retrieval process: vector indexes, networks and online features, no ranker."""
    one_thread()
    return RetrievalParts(
        Pool(settings.threads), open_holder(settings, FeastFeatures.open(settings), Role.RETRIEVE).start()
    )


async def retrieve(parts: RetrievalParts, request: RetrieveRequest) -> RetrieveAnswer:
    """Candidates of every source of the surface. Raises NoRelease, ReleaseMismatch."""
    feed = Feed(
        Surface(request.surface),
        parts.holder.at(request.release),
        now_ms=request.now_ms or int(time.time() * 1000),
        limit=0,
        seed=request.seed,
        user_id=request.user_id,
        pin_id=request.pin_id,
        board_id=request.board_id,
        query=request.query,
        quality=request.quality,
    )
    await read_user(feed, parts.pool, USER_DEADLINE_MS, parts.last_good)
    await LocalRetrieval(parts.pool).retrieve(feed, sources_of(feed.surface))
    return answer_of(feed)


@bentoml.service(**CONFIG)
class Retrieval(OpenedService[RetrievalParts]):
    """Candidates for a user or around a pin, by the lake's int64 ids."""

    def _open(self, settings: Settings) -> RetrievalParts:
        return open_parts(settings)

    @bentoml.api(route="/retrieve")
    @named_errors
    async def retrieve(self, request: RetrieveRequest, /) -> RetrieveAnswer:
        """Candidates of every source, source after source, before the merge."""
        return await retrieve(self._parts.get(), request)

    @bentoml.api(route="/held")
    @named_errors
    async def held(self, request: HeldRequest, /) -> HeldAnswer:
        """Whether this process answers by a release."""
        return HeldAnswer(release=self._parts.get().holder.at(request.release).version)


Retrieval.add_asgi_middleware(guarded())
Retrieval.add_asgi_middleware(NamedErrors)
