"""One dependency fails, in each way it can: a feed is served, what is missing is named, and it heals alone."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from bentos import light_scores
from bentos.breaker import BreakerRules, Breakers
from bentos.engines import Engines, LocalRanking, LocalRetrieval, RemoteRetrieval
from bentos.errors import StoreUnavailable
from bentos.features import PinStats
from bentos.feed_service import FeedService
from bentos.funnel import FUNNELS
from bentos.hop_messages import RetrieveAnswer, RetrieveRequest
from bentos.last_good import LastGoodUsers
from bentos.messages import FeedAnswer, FeedRequest, RelatedRequest
from bentos.networks import Learned
from bentos.pool import Pool
from bentos.popular_stage import OrPopular
from bentos.ranking_stages import Rank
from bentos.release import ServingRelease
from bentos.stages import Keep, LightRank, ReadPins, ReadUser, ReadVectors, Retrieve
from feature_repo.vectors.index import Fetched, Hits
from tests.bentos.conftest import run, warmed
from tests.bentos.fakes import (
    COOK,
    DIM,
    FOLLOWER,
    GARDENER,
    PINS,
    SPACE,
    STRANGER,
    Stack,
    pin_of,
    planted_stack,
    topic_of,
)
from validation.tables import EntityKind

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


def _nan_vectors(ids: np.ndarray) -> Fetched:
    return Fetched(np.full((len(ids), DIM), np.nan, np.float32), np.ones(len(ids), bool))


class Site:
    """A planted service whose dependencies can be broken one at a time, on a clock of its own. `close` it."""

    def __init__(self, stack: Stack) -> None:
        self.clock = Clock()
        rules = BreakerRules(least=2)
        self.pool = Pool(8, Breakers(rules, self.clock))
        features, release = stack.features, stack.release
        index = release.indexes[SPACE]
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
            "vectors": Fault(index.fetch, _nan_vectors),
            **self._learned(release),
            "pixie": Fault(release.walker.now, lambda: None),  # type: ignore[union-attr]
            "ranker": Fault(ranker.score_heads, lambda *_: np.full((1, 1), np.nan, np.float32)),
        }
        for read in ("user", "pins", "popular", "boards", "cards"):
            setattr(features, read, self.faults[read])
        object.__setattr__(index, "search", self.faults["milvus"])
        object.__setattr__(index, "fetch", self.faults["vectors"])
        object.__setattr__(release.walker, "now", self.faults["pixie"])
        object.__setattr__(ranker, "score_heads", self.faults["ranker"])
        last_good = LastGoodUsers(clock=self.clock)
        engines = Engines(self.pool, LocalRetrieval(self.pool), LocalRanking(self.pool), last_good)
        self.service = replace(stack.service, engines=engines)

    @staticmethod
    def _learned(release: ServingRelease) -> dict[str, Fault]:
        """Faults before the index of each learned source, where the release has them."""
        indexes = {role.value: index for role in Learned if (index := release.index_of(role)) is not None}
        faults = {name: Fault(index.search, _wrong_hits) for name, index in indexes.items()}
        for name, index in indexes.items():
            object.__setattr__(index, "search", faults[name])
        return faults

    def feed(self, user: int = COOK) -> FeedAnswer:
        return run(self.service.homefeed(FeedRequest(user_id=user, limit=10)))

    def related(self) -> FeedAnswer:
        return run(self.service.related(RelatedRequest(pin_id=pin_of(4, 3), limit=10)))

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
        elif isinstance(stage, ReadUser | OrPopular | ReadPins | ReadVectors | LightRank | Rank):
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
        monkeypatch.setattr("bentos.feed_service.LOOKUP_DEADLINE_MS", DEADLINE_MS)

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
    "pins": {"pins", "popular_by_topic", "rank"},
    "vectors": {"vectors", "pinnersage", "rank"},
    "popular": {"popular_by_topic", "followed_topics"},
    "boards": {"followed_boards"},
    "cards": {"cards"},
    "milvus": {"pinnersage"},
    "pixie": {"pixie"},
    "ranker": {"rank"},
}
"""What an answer may say is missing while a dependency is broken."""

ASKING = {"boards": FOLLOWER, "conditional": FOLLOWER}
"""Whose feed needs the dependency, where it is not everybody's."""

SLOW = ("deadline", "breaker open")
"""What a busy machine may cost any part."""


def served_through(site: Site, broken: str, kind: str, names: set[str]) -> None:
    """Break it; feeds hold pins and name no more than `names`; it heals."""
    site.faults[broken].breaks(kind)
    answers = [site.feed(ASKING.get(broken, COOK)) for _ in range(4)]
    for answer in answers:
        assert len(answer.pins) == 10, f"{broken} {kind}: {answer.missing}"
        named = {part.partition(":")[0] for part in answer.missing}
        late = {part.partition(":")[0] for part in answer.missing if part.endswith(SLOW)}
        assert named & names and named - late <= names, answer.missing
    if kind != "garbage":
        assert any("breaker open" in part for part in answers[-1].missing), "nobody waits for it any more"
    assert sum(site.pool.hanging().values()) <= (8 if kind == "hanging" else 0)
    assert len(site.feed(STRANGER).pins) == 10, "a stranger's feed stands on one source"
    if (broken, kind) != ("cards", "garbage"):  # a store that denies every pin is believed: it is a 404
        assert len(site.related().pins) == 10
    answer = site.heals()
    assert answer.missing == [] and len(answer.pins) == 10


@pytest.mark.parametrize("kind", ["raising", "hanging", "garbage"])
@pytest.mark.parametrize("broken", list(NAMES))
def test_a_feed_through_every_single_fault(
    site: Site, hurry: Callable[[], None], broken: str, kind: str
) -> None:
    if kind == "hanging":
        hurry()
    served_through(site, broken, kind, NAMES[broken])


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With the learned sources, and light ranking by the two-tower."""
    stack = warmed(planted_stack(tmp_path_factory.mktemp("learned"), learned=True))
    made = Site(stack)
    made.faults["light"] = Fault(light_scores.score, lambda feed: np.full(len(feed.candidates), np.nan))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(light_scores, "score", made.faults["light"])
        yield made
    made.pool.close()
    stack.close()


@pytest.mark.parametrize("kind", ["raising", "garbage"])
@pytest.mark.parametrize("broken", ["light", *Learned])
def test_a_feed_through_every_learned_part(learned: Site, broken: str, kind: str) -> None:
    served_through(learned, broken, kind, {broken})


def test_without_what_is_popular_a_stranger_gets_what_was(site: Site, planted: Stack) -> None:
    site.faults["popular"].breaks("raising")
    answer = site.feed(STRANGER)
    assert answer.missing == [
        "popular_by_topic: ConnectionError",
        "popular: ConnectionError, as of the release's loading",
    ]
    assert answer.fallback == "no source brought a pin: popular pins"
    kept = planted.release.popular.pin_ids.tolist()
    assert len(answer.pins) == 10 and {pin.pin_id for pin in answer.pins} <= set(kept)


@pytest.fixture
def alone(site: Site, planted: Stack) -> FeedService:
    """The service of a home feed whose retrieval service is dead: no index and no graph are here."""

    async def dead(_: RetrieveRequest) -> RetrieveAnswer:
        raise ConnectionError("refused")

    release = replace(planted.release, indexes={}, walker=None)
    engines = replace(site.service.engines, retrieval=RemoteRetrieval(dead, Breakers(clock=site.clock)))
    return replace(site.service, release=lambda: release, engines=engines)


@pytest.mark.parametrize("popular", [True, False])
def test_without_a_retrieval_service_what_is_popular(site: Site, alone: FeedService, popular: bool) -> None:
    if not popular:
        site.faults["popular"].breaks("raising")
    for user in (COOK, STRANGER):
        answer = run(alone.homefeed(FeedRequest(user_id=user, limit=10)))
        assert len(answer.pins) == 10 and answer.missing[0] == "retrieval: ConnectionError"
        assert answer.fallback == "no source brought a pin: popular pins"
        assert len(answer.missing) == (1 if popular else 2)
    related = run(alone.related(RelatedRequest(pin_id=pin_of(4, 3), limit=10)))
    assert len(related.pins) == 10 and related.fallback == "nothing related is found: popular pins"
    assert popular == ({topic_of(int(pin.pin_id)) for pin in related.pins} == {4}), "of the pin's own topic"


@pytest.mark.parametrize("named", [{EntityKind.USER}, {EntityKind.USER, EntityKind.PIN}])
def test_without_the_id_map_everybody_is_a_stranger(
    stack_of: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch, named: set[EntityKind]
) -> None:
    """Pins are told by the names in memory: those of what was popular as the release was loaded (here every
    other one), and of what was shown since."""
    stack = stack_of(string_ids=frozenset(named))
    id_map = stack.release.ids._map
    if EntityKind.PIN in named:
        id_map.encode(EntityKind.PIN, [f"pin-{i}" for i in range(1, PINS + 1)])
    id_map.encode(EntityKind.USER, ["ann", "bob"])
    told = stack.release.popular.pin_ids[::2].tolist()
    stack.release.ids.outside(EntityKind.PIN, told)

    def down(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    for read in ("lookup", "decode", "form"):
        monkeypatch.setattr(id_map, read, down)
    cards = Mock(wraps=stack.features.cards)
    monkeypatch.setattr(stack.features, "cards", cards)
    answer = run(stack.service.homefeed(FeedRequest(user_id="bob", limit=10)))
    assert answer.missing[0] == "ids: OperationalError"
    assert answer.fallback == "unknown user: popular by topic"
    if EntityKind.PIN not in named:
        assert len(answer.pins) == 10
        return
    page = cards.call_args.args[0].tolist()
    assert len(page) == 10
    assert sorted(str(pin.pin_id) for pin in answer.pins) == sorted(f"pin-{i}" for i in page if i in told)
    with pytest.raises(StoreUnavailable):
        run(stack.service.related(RelatedRequest(pin_id="pin-1")))


@pytest.fixture
def named_pins(stack_of: Callable[..., Stack]) -> Stack:
    """A stack whose pins have names, and its users numbers."""
    stack = stack_of(string_ids=frozenset({EntityKind.PIN}))
    stack.release.ids._map.encode(EntityKind.PIN, [f"pin-{i}" for i in range(1, PINS + 1)])
    return stack


def test_without_cards_pins_are_told_by_the_id_map(named_pins: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_pins.features, "cards", Mock(side_effect=ConnectionError("down")))
    answer = run(named_pins.service.homefeed(FeedRequest(user_id=COOK, limit=10)))
    assert answer.missing == ["cards: ConnectionError"]
    assert len(answer.pins) == 10 and all(str(pin.pin_id).startswith("pin-") for pin in answer.pins)
    assert any(str(pin.why.pin_id).startswith("pin-") for pin in answer.pins), "reasons are named too"


def test_without_the_id_map_users_who_are_numbers_are_known(
    named_pins: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_map = named_pins.release.ids._map
    monkeypatch.setattr(id_map, "lookup", Mock(side_effect=sqlite3.OperationalError("disk I/O error")))
    answer = run(named_pins.service.homefeed(FeedRequest(user_id=COOK, limit=10, exclude=["pin-1"])))
    assert answer.missing == ["ids: OperationalError"] and answer.fallback is None


def test_without_the_id_map_pins_that_are_numbers_stay_excluded(
    stack_of: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = stack_of(string_ids=frozenset({EntityKind.USER}))
    id_map = stack.release.ids._map
    monkeypatch.setattr(id_map, "lookup", Mock(side_effect=sqlite3.OperationalError("disk I/O error")))
    seen: list[int] = []
    for _ in range(3):
        answer = run(stack.service.homefeed(FeedRequest(user_id="bob", limit=10, exclude=seen)))
        assert answer.missing == ["ids: OperationalError"]
        seen += [int(pin.pin_id) for pin in answer.pins]
    assert len(set(seen)) == 30


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
