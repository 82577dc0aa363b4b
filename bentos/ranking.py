"""The `Ranking` service: light and heavy scores of candidates, for a home feed that runs elsewhere.

bentoml serve bentos.ranking:Ranking
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import bentoml
import numpy as np

from bentos import ad_scores, light_scores
from bentos.access import guarded
from bentos.candidates import Candidates
from bentos.engines import heads_of
from bentos.errors import BadId, LimitOutOfRange, NamedErrors, NoRelease, named_errors
from bentos.failing import needed
from bentos.feast_features import FeastFeatures
from bentos.features import Floats
from bentos.feed import Feed, Surface
from bentos.heads import Heads
from bentos.hop_messages import (
    MAX_BROUGHT,
    MAX_CANDIDATES,
    HeldAnswer,
    HeldRequest,
    LightAnswer,
    LightRequest,
    RankAnswer,
    RankRequest,
    SeenAnswer,
)
from bentos.last_good import LastGoodUsers
from bentos.loader import Role
from bentos.opened_service import OpenedService
from bentos.parts import one_thread, open_holder
from bentos.pool import Pool
from bentos.ranking_features import Seen, seen
from bentos.service_config import CONFIG
from bentos.serving import ReleaseHolder
from bentos.settings import Settings
from bentos.stages import PAST_DEADLINE_MS, read_past, read_pins, read_user

READ_DEADLINE_MS = 500
LIGHT_DEADLINE_MS = 200
RANK_DEADLINE_MS = 800


@dataclass(frozen=True)
class RankingParts:
    pool: Pool
    holder: ReleaseHolder
    last_good: LastGoodUsers = field(default_factory=LastGoodUsers)

    @property
    def ready(self) -> bool:
        return self.holder.ready

    def close(self) -> None:
        self.holder.close()
        self.pool.close()


def open_parts(settings: Settings) -> RankingParts:
    """The parts of a ranking process: light ranker, ranker and online features, no vector index."""
    one_thread()
    return RankingParts(
        Pool(settings.threads), open_holder(settings, FeastFeatures.open(settings), Role.RANK).start()
    )


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
    await read_user(feed, parts.pool, READ_DEADLINE_MS, parts.last_good)
    await read_pins(feed, parts.pool, READ_DEADLINE_MS)
    if release.reads_history:
        await read_past(feed, parts.pool, PAST_DEADLINE_MS)

    def ranked() -> RankAnswer:
        return _answer(feed, heads_of(feed), seen(feed) if request.seen else None)

    return await needed(parts.pool, "rank", RANK_DEADLINE_MS, ranked)


async def ads(parts: RankingParts, request: RankRequest) -> RankAnswer:
    """Calibrated probabilities of the request's pins as ads beside `anchor`, in their order.

    Raises LimitOutOfRange, BadId (also without `anchor`), NoRelease (also where the release has no ads model),
    ReleaseMismatch,
    StoreUnavailable when they miss their deadline or fail.
    """
    if request.anchor <= 0:
        raise BadId(f"anchor {request.anchor}: ads are priced beside a pin; send its id, a number from 1")
    feed = feed_of(parts, request)
    release = feed.release
    if release.ads is None:
        raise NoRelease(release.no_ads)
    feed.pin_id = request.anchor
    await read_user(feed, parts.pool, READ_DEADLINE_MS, parts.last_good)
    await read_pins(feed, parts.pool, READ_DEADLINE_MS)
    return _answer(feed, await needed(parts.pool, "ads", RANK_DEADLINE_MS, lambda: ad_scores.score(feed)))


def _answer(feed: Feed, heads: Heads, read: Seen | None = None) -> RankAnswer:
    return RankAnswer(
        release=feed.release.version,
        ranker=heads.ranker,
        heads=list(heads.names),
        reads_query=heads.reads_query,
        probabilities=_numbers(heads.p).T.tolist(),
        missing=feed.missing,
        seen=None if read is None else _told(read),
    )


def _told(read: Seen) -> SeenAnswer:
    return SeenAnswer(features=list(read.features), values=_numbers(read.values).tolist(), **asdict(read.depth))


def _numbers(values: Floats) -> np.ndarray:
    """As JSON has them: None for what is no number."""
    return np.where(np.isfinite(values), values, None)


async def light(parts: RankingParts, request: LightRequest) -> LightAnswer:
    """Light scores of the request's pins, in their order, by the release's trees or its two-tower.

    Raises LimitOutOfRange, BadId (the trees: also for a pin that no source brought), NoRelease (also where the
    release has neither), ReleaseMismatch, StoreUnavailable when the scores miss their deadline or fail.
    """
    feed = feed_of(parts, request)
    release = feed.release
    if release.light is None and release.networks.two_tower is None:
        raise NoRelease(
            f"release {release.version} has no light ranker and no two-tower; its manifest says why under"
            " `skipped`"
        )
    feed.parts = brought(request, release.light.spec.sources if release.light else ())
    await read_user(feed, parts.pool, READ_DEADLINE_MS, parts.last_good)
    if release.light_by == light_scores.LIGHT:
        check_all_brought(request)
        await read_pins(feed, parts.pool, READ_DEADLINE_MS)
    scores = await needed(parts.pool, "light", LIGHT_DEADLINE_MS, lambda: light_scores.score(feed))
    return LightAnswer(release=release.version, scores=scores.tolist(), missing=feed.missing)


def brought(request: LightRequest, known: Sequence[str]) -> list[Candidates]:
    """What the sources of a request brought; the names of those not `known` say nothing to the trees, and are
    one. Raises LimitOutOfRange, BadId."""
    total = sum(len(one.pin_ids) for one in request.brought)
    if total > MAX_BROUGHT:
        raise LimitOutOfRange(f"the sources brought {total} pins; send at most {MAX_BROUGHT}")
    for one in request.brought:
        if len(one.pin_ids) != len(one.scores):
            raise BadId(f"source {one.source} has {len(one.pin_ids)} pins and {len(one.scores)} scores")
    return [
        Candidates.of(one.source if one.source in known else "other", one.pin_ids, one.scores, 0, "")
        for one in request.brought
    ]


def check_all_brought(request: LightRequest) -> None:
    """Raises BadId for a candidate that no source brought: the trees know nothing of it."""
    known = {pin for one in request.brought for pin in one.pin_ids}
    missing = next((pin for pin in request.pin_ids if pin not in known), None)
    if missing is not None:
        raise BadId(f"pin {missing} is a candidate that no source brought; send what each source brought")


def feed_of(parts: RankingParts, request: RankRequest) -> Feed:
    """The request as a feed whose candidates are its pins. Raises LimitOutOfRange, BadId, ReleaseMismatch,
    NoRelease."""
    if not 1 <= len(request.pin_ids) <= MAX_CANDIDATES:
        raise LimitOutOfRange(f"pin_ids names {len(request.pin_ids)} candidates; send 1 to {MAX_CANDIDATES}")
    if min(request.pin_ids) <= 0:
        raise BadId(f"pin id {min(request.pin_ids)}: ids are whole numbers from 1; 0 is padding")
    feed = Feed(
        Surface.SEARCH if request.query else Surface.HOMEFEED,
        parts.holder.at(request.release),
        now_ms=request.now_ms or int(time.time() * 1000),
        limit=0,
        user_id=request.user_id,
        query=request.query,
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
    async def light(self, request: LightRequest, /) -> LightAnswer:
        """Light scores, in the order of the candidates given."""
        return await light(self._parts.get(), request)

    @bentoml.api(route="/rank")
    @named_errors
    async def rank(self, request: RankRequest, /) -> RankAnswer:
        """Probabilities of each head, in the order of the candidates given."""
        return await rank(self._parts.get(), request)

    @bentoml.api(route="/ads")
    @named_errors
    async def ads(self, request: RankRequest, /) -> RankAnswer:
        """Calibrated probabilities of sponsored pins, in the order given."""
        return await ads(self._parts.get(), request)

    @bentoml.api(route="/held")
    @named_errors
    async def held(self, request: HeldRequest, /) -> HeldAnswer:
        """Whether this process answers by a release."""
        return HeldAnswer(release=self._parts.get().holder.at(request.release).version)


Ranking.add_asgi_middleware(guarded())
Ranking.add_asgi_middleware(NamedErrors)
