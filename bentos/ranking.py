"""The `Ranking` service: light and heavy scores of candidates, for a home feed that runs elsewhere.

bentoml serve bentos.ranking:Ranking
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import bentoml
import numpy as np

from bentos import light_scores
from bentos.candidates import Candidates
from bentos.engines import heads_of
from bentos.errors import BadId, LimitOutOfRange, NamedErrors, NoRelease, named_errors
from bentos.feast_features import FeastFeatures
from bentos.feed import Feed, Surface
from bentos.loader import Role
from bentos.messages import MAX_CANDIDATES, LightAnswer, RankAnswer, RankRequest
from bentos.opened_service import OpenedService
from bentos.parts import one_thread, open_holder
from bentos.pool import Pool, needed
from bentos.service_config import CONFIG
from bentos.serving import ReleaseHolder
from bentos.settings import Settings
from bentos.stages import read_pins, read_user

READ_DEADLINE_MS = 500
LIGHT_DEADLINE_MS = 200
RANK_DEADLINE_MS = 800


@dataclass(frozen=True)
class RankingParts:
    pool: Pool
    holder: ReleaseHolder

    @property
    def ready(self) -> bool:
        return self.holder.ready

    def close(self) -> None:
        self.holder.close()
        self.pool.close()


def open_parts(settings: Settings) -> RankingParts:
    """The parts of a ranking process: the two-tower, the ranker and online features, no vector index."""
    one_thread()
    return RankingParts(Pool(settings.threads), open_holder(settings, FeastFeatures.open(settings), Role.RANK))


async def rank(parts: RankingParts, request: RankRequest) -> RankAnswer:
    """What the ranker foretells of the request's pins, in their order, uncalibrated.

    The home feed calibrates them, as it does where it ranks itself: it costs less than a hop, and fails by
    itself. Raises LimitOutOfRange, BadId, NoRelease (also where the release has no ranker), ReleaseMismatch,
    StoreUnavailable when the ranker misses its deadline or fails.
    """
    feed = feed_of(parts, request)
    release = feed.release
    if release.ranker is None:
        raise NoRelease(f"release {release.version} has no ranker; its manifest says why under `skipped`")
    await read_user(feed, parts.pool, READ_DEADLINE_MS)
    await read_pins(feed, parts.pool, READ_DEADLINE_MS)
    heads = await needed(parts.pool, "rank", RANK_DEADLINE_MS, lambda: heads_of(feed))
    return RankAnswer(
        release=release.version,
        ranker=heads.ranker,
        heads=list(heads.names),
        probabilities=np.where(np.isfinite(heads.p), heads.p, None).T.tolist(),
    )


async def light(parts: RankingParts, request: RankRequest) -> LightAnswer:
    """The two-tower's products of the request's pins with the user, in their order.

    Raises LimitOutOfRange, BadId, NoRelease (also where the release has no two-tower), ReleaseMismatch,
    StoreUnavailable when the scores miss their deadline or fail.
    """
    feed = feed_of(parts, request)
    release = feed.release
    if release.networks.two_tower is None:
        raise NoRelease(f"release {release.version} has no two-tower; its manifest says why under `skipped`")
    await read_user(feed, parts.pool, READ_DEADLINE_MS)
    scores = await needed(parts.pool, "light", LIGHT_DEADLINE_MS, lambda: light_scores.score(feed))
    return LightAnswer(release=release.version, scores=scores.tolist())


def feed_of(parts: RankingParts, request: RankRequest) -> Feed:
    """The request as a feed whose candidates are its pins. Raises LimitOutOfRange, BadId, ReleaseMismatch,
    NoRelease."""
    if not 1 <= len(request.pin_ids) <= MAX_CANDIDATES:
        raise LimitOutOfRange(f"pin_ids names {len(request.pin_ids)} candidates; send 1 to {MAX_CANDIDATES}")
    if min(request.pin_ids) <= 0:
        raise BadId(f"pin id {min(request.pin_ids)}: ids are whole numbers from 1; 0 is padding")
    feed = Feed(
        Surface.HOMEFEED,
        parts.holder.at(request.release),
        now_ms=request.now_ms or int(time.time() * 1000),
        limit=0,
        user_id=request.user_id,
    )
    feed.candidates = Candidates.of("request", request.pin_ids, np.zeros(len(request.pin_ids)), 0, "")
    return feed


@bentoml.service(**CONFIG)
class Ranking(OpenedService[RankingParts]):
    """Scores of candidates for a user, by the lake's int64 ids."""

    def _open(self, settings: Settings) -> RankingParts:
        return open_parts(settings)

    @bentoml.api(route="/light")
    @named_errors
    async def light(self, request: RankRequest, /) -> LightAnswer:
        """Light scores, in the order of the candidates given."""
        return await light(self._parts.get(), request)

    @bentoml.api(route="/rank")
    @named_errors
    async def rank(self, request: RankRequest, /) -> RankAnswer:
        """Probabilities of each head, in the order of the candidates given."""
        return await rank(self._parts.get(), request)


Ranking.add_asgi_middleware(NamedErrors)
