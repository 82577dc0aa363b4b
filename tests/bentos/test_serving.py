"""The release holder: one reference, swapped only for a release that was loaded and checked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bentos.candidates import Candidates
from bentos.errors import NoRelease, ReleaseMismatch
from bentos.loader import check_release
from bentos.release import ServingRelease
from bentos.serving import ReleaseHolder, ReleaseRejected
from tests.bentos.fakes import Stack, planted_features, planted_release
from validation.lease import Lease, leased
from validation.part_files import FilesGone


class World:
    """An alias, releases to load and what happened."""

    def __init__(self, folder: Path) -> None:
        self.base = planted_release(folder)
        self.alias: int | None = None
        self.bad: set[int] = set()
        self.down = False
        self.loads: list[int] = []
        self.served: list[int] = []
        self.late: list[str] = []
        """Services behind that do not hold what is asked of them."""
        self.holder = self.started()

    def started(self) -> ReleaseHolder:
        """The holder of a process that has just started."""
        return ReleaseHolder(
            self.newest,
            self.load,
            self.check,
            poll_s=0.01,
            elsewhere=lambda _: self.late,
            served_last=lambda: self.served[-1] if self.served else None,
            served=lambda r: self.served.append(r.version),
        )

    def newest(self) -> int | None:
        if self.down:
            raise ConnectionError("the registry is down")
        return self.alias

    def load(self, version: int) -> ServingRelease:
        self.loads.append(version)
        return replace(self.base, version=version)

    def check(self, release: ServingRelease) -> None:
        if release.version in self.bad:
            raise ReleaseRejected(f"release {release.version} gives scores that are not numbers")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_without_a_release_the_refusal_says_what_to_do(world: World) -> None:
    assert not world.holder.refresh()
    assert not world.holder.ready
    with pytest.raises(NoRelease, match="corkboard promote"):
        world.holder.current()


def test_the_alias_moves_and_the_reference_follows(world: World) -> None:
    world.alias = 1
    assert world.holder.refresh() and world.holder.current().version == 1
    assert not world.holder.refresh() and world.loads == [1]
    world.alias = 2
    assert world.holder.refresh() and world.holder.current().version == 2
    world.alias = 1  # rollback is the same move backwards
    assert world.holder.refresh() and world.holder.current().version == 1
    assert world.served == [1, 2, 1], "a start without the registry goes by the last of them"


def test_the_release_before_stays_and_going_back_loads_nothing(world: World, tmp_path: Path) -> None:
    lease = Lease.take(tmp_path / "leases", "homefeed")
    world.holder = ReleaseHolder(world.newest, world.load, world.check, poll_s=0.01, lease=lease)
    held = []
    for world.alias in (1, 2, 1, 3):
        assert world.holder.refresh() and world.holder.current().version == world.alias
        held.append(set(leased(tmp_path / "leases")))
    assert world.loads == [1, 2, 3]
    assert held == [{1}, {1, 2}, {1, 2}, {1, 3}], "what is in memory, and nothing else"
    world.alias = 9
    world.holder._load = lambda _: held.append(set(leased(tmp_path / "leases")))  # type: ignore[assignment,return-value]
    assert not world.holder.refresh() and held[-1] == {1, 3, 9}, "held before it is loaded"
    world.holder.close()
    assert leased(tmp_path / "leases") == {}


def test_a_full_disk_does_not_end_the_following(world: World, tmp_path: Path) -> None:
    lease = Lease.take(tmp_path / "leases", "homefeed")
    world.holder = ReleaseHolder(world.newest, world.load, world.check, poll_s=0.01, lease=lease)
    world.alias, hold, left = 1, lease.hold, [True]

    def full(releases: Iterable[int]) -> None:
        if not left:
            raise OSError(28, "No space left on device")
        left.pop()
        hold(releases)

    with pytest.MonkeyPatch.context() as disk:
        disk.setattr(lease, "hold", full)
        assert world.holder.refresh() and world.holder.current().version == 1
        world.alias = 2
        assert not world.holder.refresh() and "No space left" in world.holder.why
        assert set(leased(tmp_path / "leases")) == {1}
    assert world.holder.refresh() and set(leased(tmp_path / "leases")) == {1, 2}


def test_a_request_bound_to_the_release_before_is_still_answered(world: World) -> None:
    for world.alias in (1, 2):
        world.holder.refresh()
    assert world.holder.at(None).version == world.holder.at(2).version == 2
    assert world.holder.at(1).version == 1
    with pytest.raises(ReleaseMismatch, match="release 7 is not served here, release 2 is"):
        world.holder.at(7)


def test_what_the_home_feed_still_serves_stays_when_the_alias_goes_back_and_on(world: World) -> None:
    for world.alias in (3, 4):
        world.holder.refresh()
    assert world.holder.at(4).version == 4
    assert world.holder.at(3).version == 3, "the alias went back to 3, and only the home feed looked"
    world.alias = 5
    assert world.holder.refresh() and world.holder.at(3).version == 3
    with pytest.raises(ReleaseMismatch):
        world.holder.at(4)
    assert world.holder.at(5).version == 5
    world.alias = 6
    assert world.holder.refresh() and world.holder.at(5).version == 5 and world.loads == [3, 4, 5, 6]
    world.alias = 5
    assert world.holder.refresh() and world.holder.at(6).version == 6, "asked for or not, the one served last"


def test_a_release_waits_for_the_services_behind_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    late: set[str] = set()
    world.holder = ReleaseHolder(
        world.newest, world.load, world.check, poll_s=0.01, elsewhere=lambda _: sorted(late)
    )
    world.alias = 1
    late.add("ranking")
    assert not world.holder.refresh() and not world.holder.ready
    with pytest.raises(NoRelease, match="release 1 waits until ranking holds it"):
        world.holder.current()
    monkeypatch.setattr("bentos.serving.FIRST_WAIT_S", 0.0)
    assert world.holder.refresh() and world.holder.current().version == 1, "better without it than nothing"
    world.alias = 2
    assert not world.holder.refresh() and not world.holder.refresh()
    assert world.holder.current().version == 1 and "waits" in world.holder.why
    late.clear()
    assert world.holder.refresh() and world.holder.current().version == 2
    assert world.loads == [1, 2], "what waits is loaded once"
    late.add("retrieval")
    for world.alias in (1, 3):
        assert not world.holder.refresh()
    world.alias = 2
    assert not world.holder.refresh() and world.holder.why == ""
    assert world.holder.current().version == 2 and world.loads == [1, 2, 3], "the one before was in memory"


def test_a_release_that_fails_its_check_never_serves_and_is_not_tried_again(world: World) -> None:
    world.alias, world.bad = 1, {2}
    world.holder.refresh()
    world.alias = 2
    assert not world.holder.refresh() and not world.holder.refresh()
    assert world.holder.current().version == 1 and world.loads == [1, 2]
    assert "not numbers" in world.holder.why
    world.alias = 3
    assert world.holder.refresh() and world.holder.why == ""


def test_an_alias_that_comes_back_to_a_rejected_release_has_it_tried_again(world: World) -> None:
    world.bad = {2}
    for world.alias in (1, 2, 1):
        world.holder.refresh()
    world.alias, world.bad = 2, set()
    assert world.holder.refresh() and world.holder.current().version == 2


def test_a_release_whose_stores_were_down_is_tried_again_after_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.alias, world.bad = 1, {1}
    assert not world.holder.refresh() and world.holder.rejected == 1
    world.bad = set()
    assert not world.holder.refresh(), "not at once: a load takes a core"
    monkeypatch.setattr("bentos.rejected.AGAIN_S", 0.0)
    assert world.holder.refresh() and world.holder.current().version == 1


def test_a_release_whose_files_are_gone_is_tried_again_at_the_next_look(world: World, tmp_path: Path) -> None:
    world.alias, load = 1, world.holder._load

    def gone(version: int) -> ServingRelease:
        raise FilesGone.of("pixie", 3, tmp_path / "unmounted")

    world.holder._load = gone
    assert not world.holder.refresh() and world.holder.rejected is None
    assert "pixie@3 has no files; " in world.holder.why
    world.holder._load = load
    assert world.holder.refresh() and world.holder.current().version == 1


def test_a_registry_that_is_down_leaves_the_old_release_serving(world: World) -> None:
    world.alias = 1
    world.holder.refresh()
    world.down = True
    assert not world.holder.refresh() and world.holder.current().version == 1
    assert "registry is down" in world.holder.why
    world.down = False
    assert not world.holder.refresh() and world.holder.why == "", "what is served is what the alias names"
    world.alias = 2
    assert world.holder.refresh()


def test_a_registry_that_stays_down_is_said_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.alias = 1
    world.holder.refresh()
    for world.down in (True, True, False, True):
        assert not world.holder.refresh()
    said = [r.getMessage() for r in caplog.records if "cannot be loaded" in r.getMessage()]
    down = "the release cannot be loaded: ConnectionError('the registry is down')"
    assert said == [down, "the release cannot be loaded: no longer", down]


def test_a_start_while_the_registry_is_down_serves_what_was_served_last(world: World) -> None:
    world.down = True
    assert not world.holder.refresh() and "registry is down" in world.holder.why, "nothing is noted"
    world.down, world.alias = False, 7
    world.holder.refresh()
    world.down, world.alias, world.holder = True, 8, world.started()
    assert world.holder.refresh() and world.holder.current().version == 7
    assert not world.holder.refresh() and "registry is down" in world.holder.why
    world.down = False
    assert world.holder.refresh() and world.holder.current().version == 8


def test_a_look_while_the_registry_is_down_brings_no_rejected_release_back(world: World) -> None:
    world.alias, world.bad = 7, {8}
    world.holder.refresh()
    world.alias = 8
    for world.down in (False, True, False):
        assert not world.holder.refresh() and world.holder.rejected == 8
        assert not world.down or "registry is down" in world.holder.why
    assert world.loads == [7, 8] and world.holder.current().version == 7


def test_a_look_while_the_registry_is_down_keeps_the_release_that_waits(world: World) -> None:
    world.alias = 7
    world.holder.refresh()
    world.alias, world.late = 8, ["ranking"]
    for world.down in (False, True, False):
        assert not world.holder.refresh()
    world.late = []
    assert world.holder.refresh() and world.loads == [7, 8]


def test_a_registry_that_hangs_holds_no_request_up_and_is_followed_when_it_answers(world: World) -> None:
    world.alias = 1
    world.holder.refresh()
    asked, answers = threading.Event(), threading.Event()

    def slow() -> int:
        asked.set()
        assert answers.wait(20)
        return 2

    world.holder._newest = slow
    world.holder.start()
    assert asked.wait(20)
    assert world.holder.current().version == world.holder.at(1).version == 1
    answers.set()
    for _ in range(500):
        if world.holder.current().version == 2:
            break
        threading.Event().wait(0.01)
    world.holder.close()
    assert world.holder.current().version == 2


def test_the_thread_follows_by_itself(world: World) -> None:
    world.alias = 4
    world.holder.start()
    for _ in range(500):
        if world.holder.ready:
            break
        threading.Event().wait(0.01)
    world.holder.close()
    assert world.holder.current().version == 4


def test_the_planted_release_passes_its_check(tmp_path: Path) -> None:
    check_release(planted_release(tmp_path))
    check_release(planted_release(tmp_path, ranker=None))


@pytest.mark.parametrize("broken", ["popular", "pins"])
def test_a_release_whose_features_are_not_there_is_rejected(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bentos.loader.TRIAL_PAUSE_S", 0.0)
    features = planted_features()
    features.broken.add(broken)
    with pytest.raises(ReleaseRejected, match=f"{broken}.*ConnectionError|ConnectionError.*{broken}"):
        check_release(planted_release(tmp_path, features))


def test_a_trial_that_is_made_again_is_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    features, attempts = planted_features(), []

    def ends_the_trouble(_: float) -> None:
        attempts.append(1)
        features.broken.clear()

    monkeypatch.setattr("bentos.loader.time", SimpleNamespace(sleep=ends_the_trouble))
    features.broken.add("pins")
    with caplog.at_level("INFO", "corkboard"):
        check_release(planted_release(tmp_path, features))
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert attempts and not any("request 0" in line for line in told), told
    assert any("is made again: " in line and "pins" in line for line in caplog.messages)


def test_an_empty_answer_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = planted_features()
    monkeypatch.setattr(features, "popular", lambda topic_ids: {})
    with pytest.raises(ReleaseRejected, match="no pins; materialize the features"):
        check_release(planted_release(tmp_path, features, popular=Candidates.none()))


def test_scores_that_are_not_numbers_are_rejected(tmp_path: Path, stack_of: Callable[..., Stack]) -> None:
    import numpy as np

    release = planted_release(tmp_path)
    assert release.ranker is not None
    weights = np.full_like(release.ranker.weights, np.nan)  # type: ignore[attr-defined]
    with pytest.raises(ReleaseRejected, match="without rank: NoScores"):
        check_release(replace(release, ranker=replace(release.ranker, weights=weights)))  # type: ignore[type-var]
