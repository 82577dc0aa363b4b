"""`corkboard demo`: the services start beside the release that they are to serve, and end where none comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import jobs, local
from infra.home import Home
from training import kernels

STARTED = object()
"""What a process that was begun is."""


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What stands in for the steps writes its name here."""
    told: list[str] = []

    def put(owner: object, name: str) -> None:
        monkeypatch.setattr(owner, name, lambda *_, **__: told.append(name) or STARTED)

    for name in ("write_world", "ingest", "train", "release", "promote", "up"):
        put(jobs, name)
    for name in ("begin", "stop"):
        put(local, name)
    put(kernels, "begin_compiling")
    return told


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path)


def test_the_services_start_while_the_release_is_measured(home: Home, ran: list[str]) -> None:
    jobs.demo(home, data=jobs.WORLD, size="tiny", seed=7)
    assert ran == ["begin_compiling", "write_world", "ingest", "train", "begin", "release", "promote", "up"]


def test_services_without_a_release_to_serve_are_stopped(
    home: Home, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise jobs.JobError("a gate fails")

    monkeypatch.setattr(jobs, "promote", fails)
    with pytest.raises(jobs.JobError, match="a gate fails"):
        jobs.demo(home, data=jobs.WORLD, size="tiny", seed=7)
    assert ran[-2:] == ["release", "stop"]


def test_services_that_ran_before_are_left_running(
    home: Home, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise jobs.JobError("a gate fails")

    monkeypatch.setattr(local, "begin", lambda *_: None)
    monkeypatch.setattr(jobs, "promote", fails)
    with pytest.raises(jobs.JobError, match="a gate fails"):
        jobs.demo(home, data=jobs.WORLD, size="tiny", seed=7)
    assert ran[-1] == "release"


def test_a_taken_port_is_told_of_once_there_is_a_release(
    home: Home, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(*_: object) -> None:
        raise local.StartError("something else answers")

    monkeypatch.setattr(local, "begin", taken)
    jobs.demo(home, data=jobs.WORLD, size="tiny", seed=7)
    assert ran[-3:] == ["release", "promote", "up"]


def test_what_is_said_is_not_cut_into_lines_where_nobody_reads_a_screen(
    home: Home, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.demo(home, data=jobs.WORLD, size="tiny", seed=7)
    lines = capsys.readouterr().out.splitlines()
    assert any(f"corkboard --home {home.root} status" in line for line in lines)
