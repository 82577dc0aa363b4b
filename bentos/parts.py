"""Opens what services are made of from a home's settings. Everything blocks; run it off the event loop."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import BaseModel

from bentos import intake
from bentos.answer_logs import Logs, open_logs
from bentos.catalogue import ActiveUsers
from bentos.engines import Engines, LocalRanking, LocalRetrieval, RankingEngine, RetrievalEngine
from bentos.event_log import EventLog
from bentos.failing import needed
from bentos.feast_features import FeastFeatures
from bentos.features import Features
from bentos.feed_service import FeedService
from bentos.ids import Ids
from bentos.intake import EventIntake
from bentos.load import LoadRules, LoadShedder
from bentos.loader import WHOLE, ReleaseLoader, Role
from bentos.log_segments import read
from bentos.messages import (
    FeedRequest,
    PinsRequest,
    RelatedAdsRequest,
    RelatedRequest,
    SearchRequest,
    SuggestionsRequest,
    UsersRequest,
)
from bentos.policy_file import PolicyFile
from bentos.pool import Pool
from bentos.registry import ModelRegistry
from bentos.release import ServingRelease
from bentos.sequences import SequenceWriter, replay
from bentos.serving import Elsewhere, ReleaseHolder, nowhere
from bentos.settings import Settings
from bentos.tombstones import Tombstones
from training.models.light_ranking import SHORTLIST
from validation.event_compaction import sequences_from_ms
from validation.events import ActionRecord
from validation.lake import Lake
from validation.lease import Lease, leases_of

logger = logging.getLogger("corkboard.service")

UTILITY = "utility.yaml"
"""The home's file of utility weights and diversity."""


REQUESTS: dict[str, type[BaseModel]] = {
    "homefeed": FeedRequest,
    "related": RelatedRequest,
    "related_ads": RelatedAdsRequest,
    "search": SearchRequest,
    "suggestions": SuggestionsRequest,
    "pins": PinsRequest,
    "users": UsersRequest,
}
"""What each API that a feed service answers takes."""

USERS_DEADLINE_MS = 10_000


@dataclass(frozen=True)
class HomefeedParts:
    """What the home feed's process holds. `intake` is None where events have a process of their own."""

    pool: Pool
    holder: ReleaseHolder
    feed: FeedService
    intake: EventIntake | None
    lake: Lake

    @functools.cached_property
    def users(self) -> ActiveUsers:
        """Users for the page to pick from; read on first use, which blocks."""
        return ActiveUsers.of(self.lake)

    @property
    def ready(self) -> bool:
        return self.holder.ready

    @property
    def version(self) -> int:
        """The release being served. Raises NoRelease."""
        return self.holder.current().version

    async def answer(self, api: str, request: Any) -> bytes:
        """The JSON of what an API of REQUESTS answers. Raises what FeedService does."""
        if api != "users":
            return written(await getattr(self.feed, api)(request))
        release = self.holder.current()
        return written(
            await needed(self.pool, api, USERS_DEADLINE_MS, lambda: self.users.sketch(release, request.limit))
        )

    def close(self) -> None:
        self.holder.close()
        if self.intake is not None:
            self.intake.close()
        for sampled in (self.feed.candidates, self.feed.rankings):
            if sampled is not None:
                sampled.close()
        self.feed.impressions.close()
        self.pool.close()


def written(answer: BaseModel) -> bytes:
    """An answer's JSON, without validating a second time what was built as the answer's own type, in half
    the time that pydantic takes."""
    try:
        return orjson.dumps(answer, default=vars)
    except TypeError:  # ids that a request made up and the answer repeats may be past 64 bits
        return answer.model_dump_json().encode()


def one_thread() -> None:
    """BLAS, OpenMP and faiss on one thread each: two cost a small product nine times its throughput."""
    import faiss
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    faiss.omp_set_num_threads(1)


def open_homefeed(
    settings: Settings,
    *,
    role: Role,
    retrieval: RetrievalEngine | None = None,
    ranking: RankingEngine | None = None,
    with_events: bool,
    elsewhere: Elsewhere = nowhere,
) -> HomefeedParts:
    """The home feed's parts; engines not given run in this process, `elsewhere` speaks for those given.

    Raises LakeError before the first ingest, LogInUse while another process writes the home's events.
    """
    one_thread()
    features = FeastFeatures.open(settings)
    pool = Pool(settings.threads)
    lake = Lake(settings.lake)
    with contextlib.ExitStack() as opened:  # what was opened is let go of if the rest cannot be
        opened.callback(pool.close)
        logs = open_logs(settings, lake)
        opened.callback(logs.close)
        taken = open_intake(settings, features, lake, pool) if with_events else None
        opened.pop_all()
    holder = open_holder(settings, features, role, elsewhere).start()
    feed = feed_service(settings, holder.current, pool, logs, retrieval, ranking)
    return HomefeedParts(pool, holder, feed, taken, lake)


def feed_service(
    settings: Settings,
    release: Callable[[], ServingRelease],
    pool: Pool,
    logs: Logs,
    retrieval: RetrievalEngine | None = None,
    ranking: RankingEngine | None = None,
) -> FeedService:
    """A feed service by the settings; engines not given run in this process."""
    engines = Engines(
        pool,
        retrieval or LocalRetrieval(pool),
        ranking or LocalRanking(pool),
        shortlist=settings.shortlist or SHORTLIST,
    )
    policy = PolicyFile(settings.utility or settings.home / UTILITY, named=settings.utility is not None)
    load = LoadShedder(LoadRules(target_ms=settings.p99_ms))
    return FeedService(
        release, engines, logs.impressions, logs.candidates, logs.rankings, policy=policy.current, load=load
    )


def open_holder(
    settings: Settings,
    features: Features,
    role: Role,
    elsewhere: Elsewhere = nowhere,
) -> ReleaseHolder:
    """What follows the settings' alias once it is started, loading what `role` needs; a lease in the home says
    what is held."""
    name = "homefeed" if role is WHOLE else str(role.name).lower()
    loader = ReleaseLoader(settings, ModelRegistry.of(settings, name), features, role)
    lease = Lease.take(leases_of(settings.home), name)
    return ReleaseHolder(
        loader.newest,
        loader.load,
        loader.check,
        poll_s=settings.poll_s,
        lease=lease,
        elsewhere=elsewhere,
        served_last=loader.served_last,
        served=loader.served,
    )


def open_intake(
    settings: Settings, features: Features, lake: Lake, pool: Pool, *, now: datetime | None = None
) -> EventIntake:
    """The event log, with the sequences brought up to it.

    What was logged of the time after the newest batch sequences is merged again, which is harmless: the merge
    knows events by their id. `now` is the clock's time if not given.
    """
    contract = lake.contract()
    log = EventLog.open(settings.events, intake.STREAM)
    try:
        writer = SequenceWriter(features).start()
        since = sequences_from_ms(lake, now or datetime.now(UTC))
        logged = (
            r for r in read(settings.events, intake.STREAM, since_ms=since) if isinstance(r, ActionRecord)
        )
        count = replay(writer, logged, contract.vocabulary)
    except BaseException:
        log.close()
        raise
    logger.info("%d logged events are in the sequences", count)
    ids = Ids(lake.id_map(), contract.string_ids, Tombstones(lake.path))
    return EventIntake(log, writer, features, ids, contract.vocabulary, pool)
