"""The planted home feed following releases of two spaces, for `bentoml serve`.

The file `champion` names the version. Odd ones live in `content@1`, even ones in `content@2`, of another
dimension and half of the catalogue each: a pin found by vectors, and the score of any pin, tell of which
release they are (`mixed` reads that). The check, the lease and the swap are the product's own. With
`CORKBOARD_PROFILE=separate` every process follows the file by itself, those behind the home feed later than it;
with `CORKBOARD_MAKERS=2` the home feed does for all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bentos import events, homefeed, ranking, retrieval
from bentos.answer_logs import STREAMS, logs_on, open_streams
from bentos.engines import Engines, RankingEngine, RetrievalEngine
from bentos.event_log import EventLog
from bentos.features import Floats, User
from bentos.front import FrontParts
from bentos.impressions import STREAM, Impressions, ServedPins
from bentos.intake import STREAM as ACTIONS
from bentos.intake import EventIntake
from bentos.loader import check_release
from bentos.maker import Line, LinesTo, Made
from bentos.maker_process import forked
from bentos.makers import Makers
from bentos.parts import HomefeedParts
from bentos.ranking import RankingParts
from bentos.release import ServingRelease
from bentos.retrieval import RetrievalParts
from bentos.sequences import SequenceWriter
from bentos.serving import Elsewhere, ReleaseHolder, nowhere
from bentos.settings import Settings
from bentos.walker import Walker
from feature_repo.vectors.replica import Replica
from feature_repo.vectors.rows import PinRows
from tests.bentos import fakes
from validation.lease import Lease, leases_of
from validation.manifest import CollectionCheck, Part, ReleaseManifest

DIMS = {1: fakes.DIM, 2: fakes.DIM + 8}
"""Space number -> dimension."""

BY_VECTORS = ("pinnersage", "similar_pins")
"""Sources that search the release's space."""

CHAMPION = "champion"
POLL_S = {"homefeed": 0.05, "retrieval": 0.4, "ranking": 0.7}
"""How often each process looks at it: the home feed sees a move first."""


def space_number(version: int) -> int:
    return 2 - version % 2


def spaces_of(version: int) -> list[str]:
    return [f"content@{space_number(version)}"]


def mixed(answer: Mapping[str, Any], *, is_ranked: bool) -> str | None:
    """What in an answer is not of the release that it names; None where all is.

    `is_ranked`: of a surface that the ranker orders, unless it missed its deadline.
    """
    version, number = answer["release"], space_number(answer["release"])
    if answer["spaces"] != spaces_of(version):
        return f"release {version} answers with spaces {answer['spaces']}"
    lost = [part for part in answer["missing"] if not part.endswith(("deadline", "busy"))]
    if lost:
        return f"release {version} answers without {lost}"
    ranked = answer["utility"] is not None or (is_ranked and not answer["missing"])
    ranker = (answer["utility"] or {}).get("ranker")
    if ranked and ranker != f"pinnability_lr@{version}":
        return f"release {version} is ranked by {ranker}"
    searched = () if answer["fallback"] else BY_VECTORS  # a pin that its space does not hold has popular ones
    for pin in answer["pins"]:
        if pin["source"] in searched and pin["pin_id"] % 2 != number % 2:
            return f"release {version} finds pin {pin['pin_id']}, which its space does not hold"
        if ranked and (pin["score"] > 0.5) != (number == 2):
            return f"release {version} scores a pin {pin['score']}, which its ranker never does"
    return None


class NothingServed(ServedPins):
    """Forgets what it is told, so that users never run out of pins."""

    def add(self, user_id: int, pin_ids: list[int]) -> None:
        pass


class TwoSpaces(fakes.FakeFeatures):
    """Planted features with every vector in both spaces."""

    def user(self, user_id: int, space: str | None, embedded: Any = (), **more: Any) -> User:
        user = super().user(user_id, space, embedded, **more)
        number = int((space or "content@1")[-1])
        vectors = _widened(user.interests.vectors, DIMS[number])
        return replace(user, interests=replace(user.interests, vectors=vectors))


def _widened(vectors: Floats, dim: int) -> Floats:
    return np.pad(vectors, ((0, 0), (0, dim - vectors.shape[1])))


def planted_two() -> TwoSpaces:
    planted = fakes.planted_features()
    features = TwoSpaces(planted.matrix, planted.users, planted.board_pins)
    features.spaces["content@2"] = _widened(planted.matrix, DIMS[2])
    return features


def load(folder: Path, features: TwoSpaces, walker: Walker, version: int) -> ServingRelease:
    """Release `version`, its index built anew, as a load does."""
    number, space = space_number(version), spaces_of(version)[0]
    held = np.arange(1, fakes.PINS + 1)
    held = held[held % 2 == number % 2]
    topics = [[fakes.topic_of(i)] for i in held.tolist()]
    vectors = _widened(features.matrix, DIMS[number])[held - 1]
    rows = PinRows.of(held, vectors, topics, np.full(len(held), fakes.NOW_MS), np.ones(len(held)))
    name = f"pins__content__{number}"
    return fakes.planted_release(
        folder,
        features,
        version=version,
        manifest=_manifest(version, len(held)),
        space=space,
        pin_space=space,
        indexes={space: Replica.of(name, rows)},
        walker=walker,
        ranker=replace(fakes.likes_the_near(), bias=-40.0 if number == 1 else 40.0),
        ranker_name=f"pinnability_lr@{version}",
    )


def _manifest(version: int, rows: int) -> ReleaseManifest:
    number, space = space_number(version), spaces_of(version)[0]
    name = f"pins__content__{number}"
    parts = {
        "content": Part(model="content", version=number, space=space, collection=name),
        "pinnersage": Part(model="pinnersage", version=version, space=space),
        "pixie": Part(model="pixie", version=version),
        "ranker": Part(model="pinnability_lr", version=version),
    }
    check = CollectionCheck(
        collection=name, space=space, dim=DIMS[number], rows=rows, recall_at_100=1.0, filtered_fill=1.0
    )
    return fakes.manifest(version, parts=parts, collections=(check,))


def following(home: Path, service: str, **given: Any) -> tuple[fakes.Stack, ReleaseHolder]:
    """A planted stack of a process's own, and what follows the home's file in it, once it is started."""
    own = home / service
    own.mkdir(exist_ok=True)
    features = planted_two()
    stack = fakes.planted_stack(own, features)
    stack.service.impressions.close()
    walker = stack.release.walker
    assert walker is not None
    holder = ReleaseHolder(
        lambda: int((home / CHAMPION).read_text()),
        lambda version: load(own, features, walker, version),
        check_release,
        poll_s=POLL_S.get(service, 60),
        lease=Lease.take(leases_of(home), service),
        **given,
    )
    return stack, holder


def intake_of(home: Path, stack: fakes.Stack) -> EventIntake:
    return EventIntake(
        EventLog.open(home / "events", ACTIONS),
        SequenceWriter(stack.features).start(),
        stack.features,
        stack.release.ids,
        stack.release.contract.vocabulary,
        stack.pool,
        clock_ms=lambda: fakes.NOW_MS,
    )


def open_homefeed(
    settings: Settings,
    *,
    with_events: bool,
    retrieval: RetrievalEngine | None = None,
    ranking: RankingEngine | None = None,
    elsewhere: Elsewhere = nowhere,
    **_: Any,
) -> HomefeedParts:
    home = settings.home
    stack, holder = following(home, "homefeed", elsewhere=elsewhere)
    local = stack.service.engines
    engines = Engines(stack.pool, retrieval or local.retrieval, ranking or local.ranking)
    shown = Impressions(EventLog.open(home / "events", STREAM), NothingServed())
    service = replace(stack.service, release=holder.current, impressions=shown, engines=engines)
    (home / "service.pid").write_text(str(os.getpid()))
    intake = intake_of(home, stack) if with_events else None
    return HomefeedParts(stack.pool, holder.start(), service, intake, None)  # type: ignore[arg-type]


def open_front(settings: Settings, loop: asyncio.AbstractEventLoop) -> FrontParts:
    home = settings.home
    own = home / "front"
    own.mkdir(exist_ok=True)  # a front that was killed comes again
    stack = fakes.planted_stack(own)
    logs = open_streams(settings)
    makers = Makers(
        forked(settings, open_maker, preload=__name__),
        lambda: int((home / CHAMPION).read_text()),
        {log.stream: log for log in logs},
        count=settings.makers,
        poll_s=POLL_S["homefeed"],
    )
    asyncio.run_coroutine_threadsafe(makers.run(), loop)
    (home / "service.pid").write_text(str(os.getpid()))
    return FrontParts(stack.pool, makers, logs, intake_of(home, stack))


def open_maker(settings: Settings, line: Line) -> Made:
    stack, holder = following(settings.home, f"maker-{os.getpid()}")
    logs = logs_on(settings, NothingServed(), [LinesTo(stream, line) for stream in STREAMS])
    service = replace(stack.service, release=holder.current, impressions=logs.impressions)
    parts = HomefeedParts(stack.pool, holder, service, None, None)  # type: ignore[arg-type]
    return Made(parts, NothingServed())


def open_retrieval(settings: Settings) -> RetrievalParts:
    stack, holder = following(settings.home, "retrieval")
    return RetrievalParts(stack.pool, holder.start())


def open_ranking(settings: Settings) -> RankingParts:
    stack, holder = following(settings.home, "ranking")
    return RankingParts(stack.pool, holder.start())


def open_events(settings: Settings) -> events.EventsParts:
    own = settings.home / "intake"
    own.mkdir(exist_ok=True)
    stack = fakes.planted_stack(own)
    return events.EventsParts(stack.pool, intake_of(settings.home, stack))


events.open_parts = open_events  # type: ignore[assignment]
retrieval.open_parts = open_retrieval  # type: ignore[assignment]
ranking.open_parts = open_ranking  # type: ignore[assignment]
homefeed.open_homefeed = open_homefeed  # type: ignore[assignment]
homefeed.open_front = open_front  # type: ignore[assignment]

Homefeed = homefeed.Homefeed
