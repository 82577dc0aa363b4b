"""`corkboard retrain` as a user runs it; its steps, tested where they are, are watched here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infra import events, jobs, local
from infra.cli import app
from infra.home import Home
from tests.training import planted_releases as planted
from training import promotion
from training.registry import Registry
from training.release import register
from training.release_parts import LEXICAL, PIXIE, RANKER
from validation.manifest import CHAMPION, RELEASE_MODEL, Part, ReleaseManifest


class Steps:
    """Stands in for the steps: writes down which ran and how, and fails in the one named."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.ran: list[tuple[object, ...]] = []
        self.failing = ""
        patch.setattr(jobs, "ingest_events", lambda home: self._run("ingest"))
        patch.setattr(events, "compact", lambda home: self._run("compact"))
        patch.setattr(jobs, "train", lambda home, **how: self._run("train", how))
        patch.setattr(promotion, "settled", lambda ctx, ledger: None)
        patch.setattr(jobs, "release", lambda home, seed: self._run("release", seed))
        patch.setattr(jobs, "promote", lambda home, version: self._run("promote", version))

    def _run(self, name: str, *how: object) -> int:
        self.ran.append((name, *how))
        if name == self.failing:
            raise jobs.JobError(f"{name} was cut short")
        return 7


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "contract.json").write_text("{}")
    return tmp_path


def run(home: Path, *options: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        for name in Home.at(home).environment():
            patch.setenv(name, "")  # the command sets them for its process; the test's own stays as it was
            patch.delenv(name)
        return CliRunner().invoke(app, ["--home", str(home), "retrain", *options])


def unwrapped(answer: Result) -> str:
    """What was printed, however wide the console is."""
    return " ".join(answer.output.split())


WARM = {"models": ["transact"], "warm_start": True, "seed": 3}
LEARNED = [("ingest",), ("compact",), ("train", WARM), ("release", 3)]


def test_the_log_comes_in_and_the_ranker_learns_on_into_a_release(home: Path, steps: Steps):
    assert run(home, "--seed", "3").exit_code == 0
    assert steps.ran == LEARNED


def test_the_release_goes_out_where_that_is_asked_for(home: Path, steps: Steps):
    assert run(home, "--promote", "--seed", "3").exit_code == 0
    assert steps.ran == [*LEARNED, ("promote", 7)]


def test_what_fails_is_named_and_nothing_after_it_runs(home: Path, steps: Steps):
    steps.failing = "train"
    answer = run(home, "--promote", "--seed", "3")
    assert answer.exit_code == 1 and "train was cut short" in answer.output
    assert steps.ran == LEARNED[:3]


def test_without_tables_the_first_step_is_named(tmp_path: Path, steps: Steps):
    answer = run(tmp_path)
    assert answer.exit_code == 1 and "corkboard ingest FOLDER" in answer.output
    assert steps.ran == []


def words(number: int) -> ReleaseManifest:
    """A release of one index of words, which passes every gate."""
    parts = {LEXICAL: Part(model="lexical", version=number)}
    return planted.manifest(number, parts=parts, metrics={"size/lexical": 1.0, "latency/lexical_cpu_ms": 1.0})


@pytest.fixture
def two_releases(
    home: Path, monkeypatch: pytest.MonkeyPatch, give_registry: Callable[[Path], Registry]
) -> tuple[Registry, list[int]]:
    """(a home's registry, the releases made from here on): release 2 followed release 1 as champion, and holds
    the newest versions, which training and release find as they are."""
    registry, ctx, made = give_registry(home), planted.context(home), list[int]()

    def release(home: Home, seed: int) -> int:
        made.append(register(ctx, words(2)))
        return made[-1]

    for step in ("ingest_events", "train"):
        monkeypatch.setattr(jobs, step, lambda home, **how: None)
    monkeypatch.setattr(events, "compact", lambda home: None)
    monkeypatch.setattr(jobs, "release", release)
    monkeypatch.setattr(local, "ensure_milvus", lambda home: None)
    monkeypatch.setattr(promotion, "compare", lambda *_: None)
    monkeypatch.setattr(promotion, "newest_parts", lambda ctx: (dict(words(2).parts), {}))
    for number in (1, 2):
        planted.version(registry, "lexical", {})
        register(ctx, words(number))
        promotion.promote(ctx, planted.ledger(home), number)
    return registry, made


def test_what_was_rolled_back_goes_out_by_hand_alone(
    home: Path, two_releases: tuple[Registry, list[int]], monkeypatch: pytest.MonkeyPatch
):
    (registry, made), ctx, ledger = two_releases, planted.context(home), planted.ledger(home)
    assert "release 2, which is the champion" in unwrapped(run(home, "--promote"))
    promotion.rollback(ctx, ledger)
    answer = run(home, "--promote")
    assert answer.exit_code == 0 and "release 2, which was rolled back" in unwrapped(answer)
    assert (registry.alias(RELEASE_MODEL, CHAMPION), made) == (1, [])
    assert promotion.promote(ctx, ledger, 2) == 2 and promotion.settled(ctx, ledger) == 2
    monkeypatch.setattr(promotion, "newest_parts", lambda ctx: (dict(words(3).parts), {}))
    assert promotion.settled(ctx, ledger) is None


def test_the_log_is_kept_from_when_the_oldest_graph_was_built(
    home: Path, give_registry: Callable[[Path], Registry]
):
    """Each ranker learned on until later days than any graph was built of."""
    registry, built = give_registry(home), [planted.WHEN - timedelta(days=days) for days in (9, 4)]
    for number, end in enumerate(built, start=1):
        graph = planted.version(registry, PIXIE, {"data_end": end.isoformat()})
        ranker = planted.version(registry, "transact", {"data_end": planted.WHEN.isoformat()})
        parts = {PIXIE: Part(model=PIXIE, version=graph), RANKER: Part(model="transact", version=ranker)}
        register(planted.context(home), planted.manifest(number, parts=parts))
    assert events.walked_until(Home.at(home)) == built[1], "the challenger's"
    registry.set_alias(RELEASE_MODEL, CHAMPION, 1)
    assert events.walked_until(Home.at(home)) == built[0]
