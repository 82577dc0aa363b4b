"""Where a stage's work runs: in this process, or in a service of its own reached through BentoML."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from bentos import ad_scores, light_scores, ranking_features
from bentos.breaker import Breakers
from bentos.calls import Call, Outcome
from bentos.candidates import KINDS, SOURCES, Candidates
from bentos.failing import READ, why_missing
from bentos.features import Floats
from bentos.heads import Heads
from bentos.hop_messages import (
    Brought,
    LightAnswer,
    LightRequest,
    RankAnswer,
    RankRequest,
    RetrieveAnswer,
    RetrieveRequest,
    SeenAnswer,
)
from bentos.last_good import LastGoodUsers
from bentos.messages import SourceReport
from bentos.pool import Pool
from bentos.ranking_features import Depth, Seen
from training.models.light_ranking import SHORTLIST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from bentos.feed import Feed
    from bentos.stages import Source

logger = logging.getLogger("corkboard.funnel")

A = TypeVar("A")


class RetrievalEngine(Protocol):
    """Fills `feed.parts` and `feed.sources`."""

    async def retrieve(self, feed: Feed, sources: Sequence[Source]) -> None: ...


class RankingEngine(Protocol):
    """Scores `feed.candidates`."""

    async def light(self, feed: Feed, deadline_ms: float) -> Floats:
        """By the release's trees or two-tower, (n,) float32: for every candidate there is."""
        ...

    async def rank(self, feed: Feed, deadline_ms: float) -> Heads:
        """By the release's ranker, as it gives them: for the shortlist."""
        ...

    async def ads(self, feed: Feed, deadline_ms: float) -> Heads:
        """By the release's ads model, calibrated: for sponsored pins beside `feed.pin_id`."""
        ...


@dataclass(frozen=True)
class Engines:
    """What the stages of one process call."""

    pool: Pool
    retrieval: RetrievalEngine
    ranking: RankingEngine
    last_good: LastGoodUsers = field(default_factory=LastGoodUsers)
    shortlist: int = SHORTLIST
    """Candidates of a home feed that are ranked."""

    @property
    def here(self) -> bool:
        """Whether no stage leaves this process, so that a whole feed can be made on one thread of the pool."""
        return isinstance(self.retrieval, LocalRetrieval) and isinstance(self.ranking, LocalRanking)


@dataclass(frozen=True)
class LocalRetrieval:
    """Runs the sources on this process's threads."""

    pool: Pool

    async def retrieve(self, feed: Feed, sources: Sequence[Source]) -> None:
        left_out = [_left_out(feed, source) for source in sources]
        outcomes = iter(
            await self.pool.calls(
                [
                    Call(source.name, source.deadline_ms, partial(_brought, source, feed))
                    for source, why in zip(sources, left_out, strict=True)
                    if why is None
                ]
            )
        )
        for source, why in zip(sources, left_out, strict=True):
            if why is None:
                part, report = _told(feed, source, next(outcomes))
            else:
                part, report = Candidates.none(), SourceReport(name=source.name, count=0, ms=0.0, missing=why)
            feed.parts.append(part)
            feed.sources.append(report)
            if report.missing and report.missing != "skipped":
                feed.missing.append(f"{report.name}: {report.missing}")


def _left_out(feed: Feed, source: Source) -> str | None:
    """Why a source is not asked at all."""
    if not (source.always or feed.release.serves(source.name)):
        return "skipped"
    return "load" if feed.quality < source.quality else None


def _told(
    feed: Feed, source: Source, outcome: Outcome[tuple[Candidates, int]]
) -> tuple[Candidates, SourceReport]:
    """What a source brought; whatever goes wrong in one costs its candidates, never the answer."""
    part, missing = Candidates.none(), None
    if outcome.error is None:
        part, unfit = outcome.get()
        missing = f"{unfit} unfit candidates" if unfit else None
    else:
        missing = why_missing(outcome.error)
        told = source.name, feed.request_id, outcome.error
        logger.log(feed.log_level, "source %s brought nothing to request %d: %r", *told)
    return part, SourceReport(name=source.name, count=len(part), ms=round(outcome.ms, 3), missing=missing)


def _brought(source: Source, feed: Feed) -> tuple[Candidates, int]:
    """What a source brings within its budget, every pin once, and how many of its candidates were unfit."""
    return source.candidates(feed).fit(source.budget)


@dataclass(frozen=True)
class LocalRanking:
    """Runs the release's light ranker and ranker on this process's threads."""

    pool: Pool

    async def light(self, feed: Feed, deadline_ms: float) -> Floats:
        return await self.pool.call("light", deadline_ms, lambda: light_scores.score(feed))

    async def rank(self, feed: Feed, deadline_ms: float) -> Heads:
        return await self.pool.call("rank", deadline_ms, lambda: heads_of(feed))

    async def ads(self, feed: Feed, deadline_ms: float) -> Heads:
        return await self.pool.call("ads", deadline_ms, lambda: ad_scores.score(feed))


def heads_of(feed: Feed) -> Heads:
    """What the release's ranker foretells of `feed.candidates`. Raises NoRanker."""
    p = ranking_features.score_heads(feed)
    release = feed.release
    return Heads(
        release.ranker_name, release.heads, feed.candidates.pin_ids, p, reads_query=release.ranks_searches
    )


@dataclass(frozen=True)
class RemoteRetrieval:
    """Asks a retrieval service for the candidates of the same release."""

    ask: Callable[[RetrieveRequest], Awaitable[RetrieveAnswer]]
    breakers: Breakers = field(default_factory=Breakers)

    async def retrieve(self, feed: Feed, sources: Sequence[Source]) -> None:
        request = RetrieveRequest(
            surface=feed.surface.value,
            user_id=feed.user_id,
            pin_id=feed.pin_id,
            board_id=feed.board_id,
            query=feed.query,
            release=feed.release.version,
            seed=feed.seed,
            now_ms=feed.now_ms,
            quality=feed.quality,
        )
        deadline_s = max(source.deadline_ms for source in sources) / 1000 + HOP_S
        try:
            with self.breakers.of("retrieval").guarded():
                answer = await asyncio.wait_for(_twice(lambda: self.ask(request)), deadline_s)
        except Exception as error:
            # A retrieval service that is down leaves what is popular; the answer says which service it was.
            feed.missing.append(f"retrieval: {why_missing(error)}")
            logger.warning("request %d has no candidates: %r", feed.request_id, error)
            return
        feed.parts = parts_of(answer, [source.name for source in sources])
        feed.sources.extend(answer.reports)
        feed.fallback = feed.fallback or answer.fallback
        _without(feed, _read_there("retrieval", answer.missing))


@dataclass(frozen=True)
class RemoteRanking:
    """Asks a ranking service for the scores of the same release."""

    ask_light: Callable[[LightRequest], Awaitable[LightAnswer]]
    ask: Callable[[RankRequest], Awaitable[RankAnswer]]
    ask_ads: Callable[[RankRequest], Awaitable[RankAnswer]]
    logged: Callable[[Feed], bool] = lambda feed: False
    """Whether the log of rankings is to have what is read for this one."""
    breakers: Breakers = field(default_factory=Breakers)

    async def light(self, feed: Feed, deadline_ms: float) -> Floats:
        lists = light_scores.source_lists(feed.parts) if feed.release.light_by == light_scores.LIGHT else []
        request = LightRequest(
            **_asked(feed),
            brought=[
                Brought(source=one.source, pin_ids=one.pin_ids.tolist(), scores=one.scores.tolist())
                for one in lists
            ],
        )
        answer = await self._within("light", deadline_ms, lambda: self.ask_light(request))
        _without(feed, _read_there("light", answer.missing))
        return np.array(answer.scores, np.float32)

    async def rank(self, feed: Feed, deadline_ms: float) -> Heads:
        request = RankRequest(**_asked(feed), seen=self.logged(feed))
        return _heads(await self._within("rank", deadline_ms, lambda: self.ask(request)), feed)

    async def ads(self, feed: Feed, deadline_ms: float) -> Heads:
        answer = await self._within("ads", deadline_ms, lambda: self.ask_ads(RankRequest(**_asked(feed))))
        heads = _heads(answer, feed)
        return heads.with_calibrated(heads.p)

    async def _within(self, name: str, deadline_ms: float, ask: Callable[[], Awaitable[A]]) -> A:
        with self.breakers.of(name).guarded():
            return await asyncio.wait_for(_twice(ask), deadline_ms / 1000 + HOP_S)


def _asked(feed: Feed) -> dict[str, Any]:
    """What every ranking request says."""
    return {
        "user_id": feed.user_id,
        "pin_ids": feed.candidates.pin_ids.tolist(),
        "release": feed.release.version,
        "now_ms": feed.now_ms,
        "anchor": feed.pin_id,
        "query": feed.query,
    }


def _heads(answer: RankAnswer, feed: Feed) -> Heads:
    _without(feed, answer.missing)
    p = np.array(answer.probabilities, np.float32).T.reshape(-1, len(answer.heads))
    pin_ids, read = feed.candidates.pin_ids, None if answer.seen is None else _seen(answer.seen, feed)
    return Heads(answer.ranker, tuple(answer.heads), pin_ids, p, reads_query=answer.reads_query, seen=read)


def _seen(answer: SeenAnswer, feed: Feed) -> Seen:
    values = np.array(answer.values, np.float32).reshape(-1, len(answer.features))
    depth = Depth(**{one.name: getattr(answer, one.name) for one in fields(Depth)})
    return Seen(feed.candidates.pin_ids, values, depth, tuple(answer.features))


def _without(feed: Feed, missing: Sequence[str]) -> None:
    """The answer says what another process went without, once where both did."""
    feed.missing.extend(said for said in missing if said not in feed.missing)


def _read_there(stage: str, missing: Sequence[str]) -> list[str]:
    """What a stage of another process lacked, told apart from what the ranker lacks."""
    return [f"{stage}'s {said}" if said.startswith(READ) else said for said in missing]


HOP_S = 0.25
"""What a hop between processes may add to a deadline."""


async def _twice(ask: Callable[[], Awaitable[A]]) -> A:
    """Ask again once when the connection broke under the call: both services only read."""
    try:
        return await ask()
    except ConnectionError:
        return await ask()


def answer_of(feed: Feed) -> RetrieveAnswer:
    """A retrieval service's answer: the candidates of every source, source after source."""
    return RetrieveAnswer(
        release=feed.release.version,
        pin_ids=[i for part in feed.parts for i in part.pin_ids.tolist()],
        scores=[s for part in feed.parts for s in part.scores.tolist()],
        sources=[s for part in feed.parts for s in part.sources],
        anchors=[a for part in feed.parts for a in part.anchors.tolist()],
        kinds=[k for part in feed.parts for k in part.kinds],
        reports=feed.sources,
        fallback=feed.fallback,
        missing=feed.missing,
    )


def parts_of(answer: RetrieveAnswer, names: Sequence[str]) -> list[Candidates]:
    """The candidates of an answer by source, in the order of `names`."""
    whole = Candidates(
        np.array(answer.pin_ids, np.int64),
        np.array(answer.scores, np.float32),
        SOURCES.codes(answer.sources),
        np.array(answer.anchors, np.int64),
        KINDS.codes(answer.kinds),
    )
    return [whole.take(whole.source_codes == SOURCES.code(name)) for name in names]
