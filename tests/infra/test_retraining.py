"""`corkboard retrain` as a user runs it; its steps, tested where they are, are watched here."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infra import events, jobs
from infra.cli import app
from infra.home import Home


class Steps:
    """Stands in for the steps: writes down which ran and how, and fails in the one named."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.ran: list[tuple[object, ...]] = []
        self.failing = ""
        patch.setattr(jobs, "ingest_events", lambda home: self._run("ingest"))
        patch.setattr(events, "compact", lambda home: self._run("compact"))
        patch.setattr(jobs, "train", lambda home, **how: self._run("train", how))
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
        return CliRunner().invoke(app, ["--home", str(home), "retrain", *options], env={"COLUMNS": "300"})


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
