"""The kernels of a feed, recorded from real requests of a home's release and run again by themselves.

A kernel is work that no serving code could spare: a read of the feature store, a search or fetch of a vector
index, a walk, a forward pass, today's interests, a call of the trees, the ranker, the calibrator or the
diversifier, and the interactions between a user and the candidates. Merging, filters, assembly, cards as JSON
and HTTP are not.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

from bentos.catalogue import ActiveUsers
from bentos.engines import Engines, LocalRanking, LocalRetrieval
from bentos.feast_features import FeastFeatures
from bentos.feed_service import FeedService
from bentos.impressions import Impressions, ServedPins
from bentos.loader import ReleaseLoader
from bentos.messages import FeedRequest
from bentos.parts import one_thread
from bentos.pool import Pool
from bentos.registry import ModelRegistry
from bentos.release import ServingRelease
from bentos.settings import Settings
from infra.home import Home
from training.models.light_ranking import SHORTLIST
from validation.lake import Lake
from validation.tables import EntityKind

REQUESTS = 48


@dataclass(frozen=True)
class Kernels:
    """The kernels of some requests, to be run again, and ids to make load with."""

    recorder: Recorder
    requests: int
    users: list[Any]
    """Active users, as the outside names them."""
    pins: list[Any]
    rounds: list[Counter[str]] = field(default_factory=list)

    def run(self) -> None:
        """One more round of all of them. A machine that others share is faster now and slower then: rounds are
        to be run in turns with what they are held against."""
        self.rounds.append(self.recorder.spent_ms())

    @property
    def cpu_ms(self) -> dict[str, float]:
        """CPU ms of each kernel in a request, mean over users and rounds."""
        spent = sum(self.rounds, Counter[str]())
        return {name: ms / (self.requests * len(self.rounds)) for name, ms in spent.items()}

    @property
    def total_ms(self) -> float:
        return sum(self.cpu_ms.values())

    def print(self) -> None:
        print("\n| kernel alone | CPU ms a request |\n|---|---|")
        for name, ms in sorted(self.cpu_ms.items(), key=lambda item: -item[1]):
            print(f"| {name} | {ms:.2f} |")


class Recorder:
    """Keeps the calls of wrapped functions, none of which calls another, to be made again."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Callable[[], Any]]] = []

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, partial(function, *args, **kwargs)))
            return function(*args, **kwargs)

        return recorded

    def spent_ms(self) -> Counter[str]:
        """CPU ms of all calls by name, in the order of the requests."""
        spent: Counter[str] = Counter()
        for name, call in self.calls:
            begin = time.thread_time()
            call()
            spent[name] += (time.thread_time() - begin) * 1000
        return spent


def kernels_of(home: Home, version: int, limit: int) -> Kernels:
    """Load the release here, answer REQUESTS feeds while recording, to be run again: feeds of users
    spread as those that load is made with, from the busiest to the quietest."""
    one_thread()
    settings = Settings.from_environment()
    loader = ReleaseLoader(settings, ModelRegistry(settings.mlflow_uri), FeastFeatures.open(settings))
    release = loader.load(version)
    loader.check(release)
    active = ActiveUsers.of(Lake(home.lake)).user_ids
    users = release.ids.outside(EntityKind.USER, active)
    some = users[:: max(1, len(users) // REQUESTS)][:REQUESTS]
    pool, recorder = Pool(1), Recorder()
    service = FeedService(
        lambda: release,
        Engines(pool, LocalRetrieval(pool), LocalRanking(pool), shortlist=settings.shortlist or SHORTLIST),
        Impressions(None, ServedPins()),
    )
    try:
        for user in some:  # what is compiled at first use
            asyncio.run(service.homefeed(FeedRequest(user_id=user, limit=limit)))
        with _recording(recorder, release):
            for user in some:
                answer = asyncio.run(service.homefeed(FeedRequest(user_id=user, limit=limit)))
    finally:
        pool.close()
    recorder.spent_ms()  # the first round counts for nothing
    return Kernels(recorder, len(some), users, [pin.pin_id for pin in answer.pins])


def _recording(recorder: Recorder, release: ServingRelease) -> ExitStack:
    """The release's kernels wrapped, until the stack is left."""
    from bentos import ranking_features, ranking_stages
    from bentos.sources import pinnersage
    from training.models import interests, pinnerformer, two_tower
    from training.models.pixie import Pixie

    stack = ExitStack()

    def replace(owner: Any, attribute: str, name: str) -> None:
        wrapped = recorder.wrap(name, getattr(owner, attribute))
        if isinstance(owner, type) or type(owner).__name__ == "module":
            stack.enter_context(mock.patch.object(owner, attribute, wrapped))
            return
        object.__setattr__(owner, attribute, wrapped)
        stack.callback(lambda: object.__delattr__(owner, attribute))

    for read in ("user", "pins", "vectors", "cards", "popular", "boards"):
        replace(release.features, read, f"features: {read}")
    for space, index in release.indexes.items():
        replace(index, "search", f"index: search {space}")
        replace(index, "fetch", f"index: fetch {space}")
    replace(Pixie, "recommend", "model: pixie")
    replace(pinnersage, "recent_interests", "model: pinnersage")
    replace(pinnerformer, "embed_users", "model: pinnerformer")
    replace(interests, "user_embeddings", "model: dcm")
    replace(interests, "topic_embeddings", "model: conditional")
    replace(two_tower, "user_vectors", "model: two-tower")
    replace(ranking_features, "request_interactions", "features: interactions")
    replace(ranking_stages, "diversify", "model: diversity")
    if release.light is not None:
        replace(release.light, "score", "model: trees")
    if release.ranker is not None:
        replace(release.ranker, "score_heads", "model: ranker")
    if release.calibrator is not None:
        replace(release.calibrator, "calibrate", "model: calibration")
    return stack
