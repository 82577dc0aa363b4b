"""One dependency fails, in each way it can: a feed is served, what is missing is named, and it heals alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bentos.breaker import BreakerRules, Breakers
from bentos.engines import Engines, LocalRanking, LocalRetrieval
from bentos.features import PinStats
from bentos.funnel import FUNNELS
from bentos.last_good import LastGoodUsers
from bentos.messages import FeedAnswer, FeedRequest
from bentos.pool import Pool
from bentos.ranking_stages import Rank
from bentos.stages import Keep, LightRank, ReadPins, ReadUser, ReadVectors, Retrieve
from feature_repo.vectors.index import Hits
from tests.bentos.conftest import run, warmed
from tests.bentos.fakes import COOK, FOLLOWER, GARDENER, Stack, planted_stack

DEADLINE_MS = 150
CURED = 60.0


class Clock:
    """Seconds of breakers and caches, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Fault:
    """Stands before a callable: passes calls on, or does to them what `kind` says."""

    def __init__(self, target: Callable[..., Any], garbage: Any) -> None:
        self.target, self.garbage = target, garbage
        self.kind: str | None = None
        self.healed = threading.Event()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        match self.kind:
            case "raising":
                raise ConnectionError("down")
            case "hanging":
                self.healed.wait(30)
            case "garbage":
                return self.garbage(*args)
        return self.target(*args, **kwargs)

    def breaks(self, kind: str) -> None:
        self.kind = kind
        self.healed.clear()

    def heal(self) -> None:
        self.kind = None
        self.healed.set()


def _no_user(*_: Any) -> Any:
    raise ValueError("a sequence must be newest first")  # what the reader says of a garbled row


def _nan_pins(ids: np.ndarray) -> PinStats:
    stats = PinStats.absent(len(ids))
    return replace(stats, scalars=np.full_like(stats.scalars, np.nan), present=np.ones(len(ids), bool))


def _wrong_hits(queries: np.ndarray, k: int, *_: Any) -> Hits:
    return Hits(np.full((len(queries), k), -7), np.full((len(queries), k), np.nan, np.float32))


class Site:
    """A planted service whose dependencies can be broken one at a time, on a clock of its own."""

    def __init__(self, stack: Stack) -> None:
        self.clock = Clock()
        rules = BreakerRules(least=2)
        self.pool = Pool(8, Breakers(rules, self.clock))
        features, release = stack.features, stack.release
        index = next(iter(release.indexes.values()))
        ranker = release.ranker
        assert ranker is not None
        self.faults = {
            "user": Fault(features.user, _no_user),
            "pins": Fault(features.pins, _nan_pins),
            "popular": Fault(
                features.popular, lambda topics: {t: (np.array([-5]), np.array([np.nan])) for t in topics}
            ),
            "boards": Fault(features.boards, lambda boards: {b: np.array([-5]) for b in boards}),
            "cards": Fault(features.cards, lambda ids: {}),
            "milvus": Fault(index.search, _wrong_hits),
            "pixie": Fault(release.walker.now, lambda: None),  # type: ignore[union-attr]
            "ranker": Fault(ranker.score_heads, lambda *_: np.full((1, 1), np.nan, np.float32)),
        }
        for read in ("user", "pins", "popular", "boards", "cards"):
            setattr(features, read, self.faults[read])
        object.__setattr__(index, "search", self.faults["milvus"])
        object.__setattr__(release.walker, "now", self.faults["pixie"])
        object.__setattr__(ranker, "score_heads", self.faults["ranker"])
        last_good = LastGoodUsers(clock=self.clock)
        engines = Engines(self.pool, LocalRetrieval(self.pool), LocalRanking(self.pool), last_good)
        self.service = replace(stack.service, engines=engines)

    def feed(self, user: int = COOK) -> FeedAnswer:
        return run(self.service.homefeed(FeedRequest(user_id=user, limit=10)))

    def heals(self) -> FeedAnswer:
        """The faults go; feeds are asked for, a rest apart, until one is whole."""
        for fault in self.faults.values():
            fault.heal()
        for _ in range(20):  # a busy machine may miss a short deadline
            self.clock.now += CURED
            if not (answer := self.feed()).missing:
                break
        return answer


def _hurried(stages: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same funnel with short deadlines, so that a hanging call costs the test little."""
    out: list[Any] = []
    for stage in stages:
        if isinstance(stage, Retrieve):
            stage = Retrieve(tuple(replace(s, deadline_ms=DEADLINE_MS) for s in stage.sources))
        elif isinstance(stage, ReadUser | ReadPins | ReadVectors | LightRank | Rank):
            stage = replace(stage, deadline_ms=DEADLINE_MS)
        out.append(stage)
    return tuple(out)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Shortens every deadline until the test ends."""

    def shorten() -> None:
        for surface, stages in FUNNELS.items():
            monkeypatch.setitem(FUNNELS, surface, _hurried(stages))
        monkeypatch.setattr("bentos.feed_service.CARDS_DEADLINE_MS", DEADLINE_MS)

    return shorten


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = warmed(planted_stack(tmp_path_factory.mktemp("degraded")))
    yield stack
    stack.close()


@pytest.fixture(scope="module")
def whole(planted: Stack) -> Iterator[Site]:
    made = Site(planted)
    yield made
    made.pool.close()


@pytest.fixture
def site(whole: Site) -> Iterator[Site]:
    assert whole.heals().missing == []
    yield whole
    whole.heals()


NAMES = {
    "user": {"user"},
    "pins": {"pins", "popular_by_topic", "rank", "light"},
    "popular": {"popular_by_topic", "followed_topics"},
    "boards": {"followed_boards"},
    "cards": {"cards"},
    "milvus": {"pinnersage"},
    "pixie": {"pixie"},
    "ranker": {"rank"},
}
"""What an answer may say is missing while a dependency is broken."""

ASKING = {"boards": FOLLOWER}
"""Whose feed needs the dependency, where it is not everybody's."""

SLOW = ("deadline", "breaker open")
"""What a busy machine may cost any part."""


@pytest.mark.parametrize("kind", ["raising", "hanging", "garbage"])
@pytest.mark.parametrize("broken", list(NAMES))
def test_a_feed_through_every_single_fault(
    site: Site, hurry: Callable[[], None], broken: str, kind: str
) -> None:
    if kind == "hanging":
        hurry()
    fault = site.faults[broken]
    fault.breaks(kind)
    answers = [site.feed(ASKING.get(broken, COOK)) for _ in range(4)]
    for answer in answers:
        assert len(answer.pins) == 10, f"{broken} {kind}: {answer.missing}"
        named = {part.partition(":")[0] for part in answer.missing}
        late = {part.partition(":")[0] for part in answer.missing if part.endswith(SLOW)}
        assert named & NAMES[broken] and named - late <= NAMES[broken], answer.missing
    if kind != "garbage":
        assert any("breaker open" in part for part in answers[-1].missing), "nobody waits for it any more"
    assert sum(site.pool.hanging().values()) <= (8 if kind == "hanging" else 0)
    answer = site.heals()
    assert answer.missing == [] and len(answer.pins) == 10


def test_an_open_breaker_is_not_waited_for(site: Site, hurry: Callable[[], None]) -> None:
    hurry()
    fault = site.faults["ranker"]
    fault.breaks("hanging")
    for _ in range(3):
        site.feed()
    calls_before = site.pool.hanging()["rank"]
    answer = site.feed()
    stage = next(stage for stage in answer.stages if stage.name == "rank")
    assert "rank: breaker open" in answer.missing and site.pool.hanging()["rank"] == calls_before
    assert stage.ms < DEADLINE_MS


def test_users_as_last_read_with_their_age(site: Site) -> None:
    before = site.feed(GARDENER)
    assert before.missing == []
    site.faults["user"].breaks("raising")
    site.clock.now += 35
    answer = site.feed(GARDENER)
    assert answer.missing == ["user: ConnectionError, read 35 s ago"] and answer.fallback is None
    assert "pinnersage" in {pin.source for pin in answer.pins}, "still their own interests"
    site.clock.now += 3_600
    assert site.feed(GARDENER).fallback is None
    assert site.feed(GARDENER).missing[0] in ("user: ConnectionError", "user: breaker open")


def test_last_good_users_are_bounded_and_keep_to_their_spaces(planted: Stack) -> None:
    clock = Clock()
    kept = LastGoodUsers(users=2, oldest_s=100, clock=clock)
    users = [replace(planted.features.user(COOK, None), user_id=n) for n in (1, 2, 3)]
    for user in users:
        kept.keep(user, ("content@1",))
        clock.now += 10
    assert kept.of(1, ("content@1",)) is None, "the least recent one left"
    assert kept.of(2, ("content@2",)) is None, "vectors of another release"
    found = kept.of(3, ("content@1",))
    assert found is not None and found[1] == 10
    clock.now += 101
    assert kept.of(3, ("content@1",)) is None
    kept.keep(replace(users[0], known=False), ("content@1",))
    assert kept.of(1, ("content@1",)) is None


def test_a_filter_that_cannot_tell_lets_pins_pass_and_says_so(planted: Stack) -> None:
    from bentos.feed import Feed, Surface

    def broken(_: Feed) -> np.ndarray:
        raise KeyError("pin 5 was not read for this request")

    from tests.bentos.test_stages import part

    feed = Feed(Surface.HOMEFEED, planted.release, 0, 10, candidates=part("a", 5, 3))
    run(Keep("distinct", broken).run(feed, planted.service.engines))
    assert feed.missing == ["distinct: KeyError"] and feed.candidates.pin_ids.tolist() == [5, 3]
