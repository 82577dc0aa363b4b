"""The home feed without its HTTP: requests in, answers out. `homefeed.py` puts it behind BentoML."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bentos import why
from bentos.candidate_log import CandidateLog
from bentos.candidates import Candidates
from bentos.engines import Engines
from bentos.errors import (
    OneSubject,
    RequestError,
    StoreUnavailable,
)
from bentos.failing import needed
from bentos.features import Card, rising
from bentos.feed import Feed, Surface
from bentos.funnel import FUNNELS
from bentos.impressions import Impressions, new_request_id
from bentos.known import check_count, check_limit, known_board, known_pin
from bentos.load import LoadShedder
from bentos.messages import (
    ExternalId,
    FeedAnswer,
    FeedPin,
    FeedRequest,
    InterestReport,
    PinsAnswer,
    PinsRequest,
    RelatedAdsRequest,
    RelatedRequest,
    SearchRequest,
    SuggestionsAnswer,
    SuggestionsRequest,
)
from bentos.metrics import observe
from bentos.policy_file import ServedPolicy
from bentos.pool import Pool
from bentos.ranking_log import RankingLog
from bentos.release import ServingRelease
from bentos.searching import check_length, query_of, searchable
from bentos.shown import as_feed_pins, as_pins, interests_of, utility_of
from bentos.stages import Stage, fail_open
from training.models.lexical import Reading
from validation.tables import EntityKind

CARDS_DEADLINE_MS = 800
LOOKUP_DEADLINE_MS = 2_000
WORDS_DEADLINE_MS = 300


def _clock_ms() -> int:
    return int(time.time() * 1000)


def _defaults(release: ServingRelease) -> ServedPolicy:
    return ServedPolicy(release.policy)


class NoCards(RuntimeError):
    """The store knows none of a whole page's pins: it is the store that is wrong, not the pins."""


@dataclass(frozen=True)
class FeedService:
    """Answers feeds, related pins and pins. Every answer runs on the one release that `release` gave it."""

    release: Callable[[], ServingRelease]
    """The release being served; raises NoRelease before the first is loaded."""
    engines: Engines
    impressions: Impressions
    candidates: CandidateLog | None = None
    """Where a sample of requests logs what it fetched; None logs nothing."""
    rankings: RankingLog | None = None
    """Where a sample of answers logs what their ranking saw; None logs nothing."""
    clock_ms: Callable[[], int] = _clock_ms
    policy: Callable[[ServingRelease], ServedPolicy] = _defaults
    """What pages of a release are made by, now."""
    load: LoadShedder = field(default_factory=LoadShedder.never)

    async def homefeed(self, request: FeedRequest) -> FeedAnswer:
        """A feed for a user; a stranger gets what is popular.

        Raises LimitOutOfRange, BadId, Overloaded, NoRelease.
        """
        with self.load.request() as quality:
            return await self._homefeed(request, quality)

    async def _homefeed(self, request: FeedRequest, quality: float) -> FeedAnswer:
        release = self.release()
        check_limit(request.limit)
        check_count("exclude", request.exclude)

        feed = self._feed(release, Surface.HOMEFEED, request.limit, quality)
        await self._whose(feed, request.user_id, request.exclude)
        feed.served = self.impressions.served(feed.user_id)
        return await self._answer(feed, request.user_id)

    async def related(self, request: RelatedRequest) -> FeedAnswer:
        """Pins related to a pin, or to the pins of a board.

        Raises PinNotFound or BoardNotFound for what the data set does not hold, OneSubject unless one of the
        two is named, LimitOutOfRange, BadId, NoRelease, and StoreUnavailable where a name cannot be looked up
        in the id map.
        """
        with self.load.request() as quality:
            return await self._related(request, quality)

    async def _related(self, request: RelatedRequest, quality: float) -> FeedAnswer:
        release = self.release()
        check_limit(request.limit)
        if (request.pin_id is None) == (request.board_id is None):
            raise OneSubject(
                "related pins are of one pin or of one board: name pin_id or board_id, one of them"
            )
        feed = self._feed(release, Surface.RELATED, request.limit, quality)

        await self._whose(feed, request.user_id)
        if request.pin_id is not None:
            feed.pin_id = await self._subject(feed, EntityKind.PIN, request.pin_id, known_pin)
        if request.board_id is not None:
            feed.board_id = await self._subject(feed, EntityKind.BOARD, request.board_id, known_board)
        return await self._answer(feed, request.user_id)

    async def related_ads(self, request: RelatedAdsRequest) -> FeedAnswer:
        """Ads for the page of pins related to a pin: by expected value, each at its place of the page.

        Raises PinNotFound for what the data set does not hold, LimitOutOfRange, BadId, NoRelease, and
        StoreUnavailable where a name cannot be looked up in the id map.
        """
        with self.load.request() as quality:
            return await self._related_ads(request, quality)

    async def _related_ads(self, request: RelatedAdsRequest, quality: float) -> FeedAnswer:
        release = self.release()
        check_limit(request.limit)
        feed = self._feed(release, Surface.RELATED_ADS, request.limit, quality)

        await self._whose(feed, request.user_id)
        feed.pin_id = await self._subject(feed, EntityKind.PIN, request.pin_id, known_pin)
        return await self._answer(feed, request.user_id)

    async def search(self, request: SearchRequest) -> FeedAnswer:
        """Pins for a query, found by words and by meaning; popular ones where nothing is.

        Raises EmptyQuery, QueryTooLong, LimitOutOfRange, BadId, Overloaded, NoRelease, and NoSearch for a
        release that can do neither.
        """
        with self.load.request() as quality:
            return await self._search(request, quality)

    async def _search(self, request: SearchRequest, quality: float) -> FeedAnswer:
        release = self.release()
        check_limit(request.limit)
        feed = self._feed(release, Surface.SEARCH, request.limit, quality)
        feed.query = searchable(release, request.query)

        await self._whose(feed, request.user_id)
        feed.reading = await self._reading(feed)
        return await self._answer(feed, request.user_id)

    async def _whose(self, feed: Feed, user_id: ExternalId | None, exclude: Sequence[ExternalId] = ()) -> None:
        """Fill `feed.user_id` and `feed.exclude`; those that need the id map fail open to nobody, and nothing.
        Raises BadId."""
        ids = feed.release.ids
        given = {EntityKind.PIN: exclude, EntityKind.USER: () if user_id is None else (user_id,)}

        def inside(kinds: Sequence[EntityKind]) -> dict[EntityKind, np.ndarray]:
            return {kind: ids.all_inside(kind, given[kind]) for kind in kinds}

        counted = [kind for kind in given if ids.counted(kind)]
        named = [kind for kind in given if kind not in counted]
        found: dict[EntityKind, np.ndarray] = {}
        try:
            found = inside(counted)
            if named:
                found |= await self._pool.call("ids", LOOKUP_DEADLINE_MS, lambda: inside(named))
        except RequestError:
            raise
        except Exception as error:
            # Without the id map nobody can be told from a stranger, who is served too.
            fail_open(feed, "ids", error)
        feed.exclude = found.get(EntityKind.PIN, feed.exclude)
        who = found.get(EntityKind.USER, ())
        feed.user_id = int(who[0]) if len(who) else 0

    async def _subject(
        self,
        feed: Feed,
        kind: EntityKind,
        given: ExternalId,
        known: Callable[[ServingRelease, ExternalId], int],
    ) -> int:
        """The lake id of what is asked about, as `known` finds it. Where that cannot read its store, a number
        is taken at its word: what is not there has no neighbours, and the answer is what is popular.

        Raises what `known` raises of the request, and StoreUnavailable for a name that needs the id map.
        """
        release = feed.release
        try:
            return await needed(self._pool, "subject", LOOKUP_DEADLINE_MS, lambda: known(release, given))
        except StoreUnavailable as error:
            if not release.ids.counted(kind):
                raise
            fail_open(feed, "subject", error)
            return release.ids.inside(kind, given)

    async def _reading(self, feed: Feed) -> Reading | None:
        """What the query's words are read as; None where that fails, which no other request may feel."""
        index = feed.release.lexical
        if index is None:
            return None
        try:
            return await self._pool.call("words", WORDS_DEADLINE_MS, lambda: index.read(feed.query))
        except Exception as error:
            # The sources read the query as it was typed.
            fail_open(feed, "words", error)
            return None

    async def suggestions(self, request: SuggestionsRequest) -> SuggestionsAnswer:
        """What people search for that begins as `prefix` does; nothing where too few search.

        Raises LimitOutOfRange, QueryTooLong, NoRelease.
        """
        release = self.release()
        check_limit(request.limit, "suggestions")
        check_length("prefix", request.prefix)
        found = release.popular_queries.starting(request.prefix, request.limit)
        return SuggestionsAnswer(release=release.version, queries=[query for query, _ in found])

    async def pins(self, request: PinsRequest) -> PinsAnswer:
        """Cards of pins, in the order asked for; unknown ones are named apart.

        Raises LimitOutOfRange, BadId, NoRelease.
        """
        release = self.release()
        check_count("pin_ids", request.pin_ids, least=1)

        def read() -> PinsAnswer:
            ids = release.ids.all_inside(EntityKind.PIN, request.pin_ids)
            cards = release.features.cards(np.unique(ids[ids > 0]))
            pairs = list(zip(request.pin_ids, ids.tolist(), strict=True))
            known = [cards[i] for _, i in pairs if i in cards]
            return PinsAnswer(
                pins=as_pins(release, known), unknown=[given for given, i in pairs if i not in cards]
            )

        return await needed(self._pool, "cards", LOOKUP_DEADLINE_MS, read)

    @property
    def _pool(self) -> Pool:
        return self.engines.pool

    def _feed(self, release: ServingRelease, surface: Surface, limit: int, quality: float) -> Feed:
        now = self.clock_ms()
        request_id = new_request_id(now)
        served = self.policy(release)
        return Feed(
            surface,
            release,
            now,
            limit,
            request_id=request_id,
            seed=request_id,
            quality=quality,
            policy=served.policy,
            policy_refused=served.refused,
        )

    async def _answer(self, feed: Feed, user_id: ExternalId | None) -> FeedAnswer:
        made = self._made(feed, user_id)
        return await (self._pool.drive(made) if self.engines.here else made)

    async def _made(self, feed: Feed, user_id: ExternalId | None) -> FeedAnswer:
        started = time.perf_counter()
        await run(feed, self.engines, FUNNELS[feed.surface])
        with feed.stage("cards"):
            pins, interests = await self._shown(feed)
        with feed.stage("log"):
            self.impressions.record(feed)
            for sampled in (self.candidates, self.rankings):
                if sampled is not None:
                    sampled.record(feed)
        seconds = time.perf_counter() - started
        observe(feed, seconds)
        return FeedAnswer(
            request_id=feed.request_id,
            user_id=user_id,
            release=feed.release.version,
            spaces=feed.release.spaces,
            pins=pins,
            stages=feed.stages,
            sources=feed.sources,
            interests=interests,
            query=query_of(feed),
            utility=utility_of(feed),
            policy_refused=feed.policy_refused,
            quality=round(feed.quality, 3),
            missing=feed.missing,
            fallback=feed.fallback,
            ms=round(seconds * 1000, 3),
        )

    async def _shown(self, feed: Feed) -> tuple[list[FeedPin], list[InterestReport]]:
        """The answer's pins with their cards and reasons, and the user's interests; pins that left the
        catalogue are dropped."""
        release = feed.release

        def read() -> tuple[Candidates, list[FeedPin], list[InterestReport]]:
            anchors = np.array(why.anchor_pins(feed.candidates), np.int64)
            wanted = rising(np.concatenate([feed.candidates.pin_ids, anchors]))
            cards = release.features.cards(wanted) if len(wanted) else {}
            kept = feed.candidates.take(np.array([i in cards for i in feed.candidates.pin_ids.tolist()], bool))
            if len(feed.candidates) and not len(kept):
                raise NoCards(f"none of {len(feed.candidates)} pins has a card")
            return kept, as_feed_pins(feed, kept, cards), interests_of(feed)

        try:
            feed.candidates, pins, interests = await self._pool.call("cards", CARDS_DEADLINE_MS, read)
        except Exception as error:
            # Ids in the right order are still an answer; whoever asked may hold the cards.
            fail_open(feed, "cards", error)
            return await self._bare(feed), []
        return pins, interests

    async def _bare(self, feed: Feed) -> list[FeedPin]:
        """The answer's pins without cards; where the id map fails too, those whose names are in memory."""
        if feed.release.ids.counted(EntityKind.PIN, EntityKind.TOPIC):
            return _bare(feed, feed.candidates)
        try:
            return await self._pool.call("ids", CARDS_DEADLINE_MS, lambda: _bare(feed, feed.candidates))
        except Exception as error:
            # The cards may have failed by the names that are on them.
            fail_open(feed, "names", error)
            feed.candidates = _nameable(feed)
            return _bare(feed, feed.candidates)


def _bare(feed: Feed, candidates: Candidates) -> list[FeedPin]:
    return as_feed_pins(feed, candidates, {pin_id: Card(pin_id) for pin_id in candidates.pin_ids.tolist()})


def _nameable(feed: Feed) -> Candidates:
    """The candidates whose names are in memory, for reasons that name nothing which is not: asks no id map."""
    candidates = feed.candidates
    kept = candidates.take(feed.release.ids.held(EntityKind.PIN, candidates.pin_ids))
    return replace(kept, anchors=np.zeros_like(kept.anchors))


async def run(feed: Feed, engines: Engines, stages: Sequence[Stage]) -> None:
    """Take a feed through the stages of a funnel."""
    for stage in stages:
        with feed.stage(stage.name):
            await stage.run(feed, engines)


def run_blocking(feed: Feed, engines: Engines, stages: Sequence[Stage]) -> Feed:
    """`run` on a loop of its own, for a thread that has none (warming a release)."""
    asyncio.run(run(feed, engines, stages))
    return feed
