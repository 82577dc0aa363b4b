"""Processes of a home: started detached, found again, stopped by pid, never another program's pid."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra import jobs, local
from infra.home import Home
from validation.kept_release import KeptRelease, note_of


def _process(tmp_path: Path, code: str) -> local.Process:
    flag = tmp_path / "ready"
    return local.Process(
        name="sleeper",
        command=(sys.executable, "-c", code, str(flag)),
        environment={},
        ready=flag.exists,
        address="nowhere",
    )


SLEEPER = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


def test_starts_once_and_stops(home: Home, tmp_path: Path) -> None:
    process = _process(tmp_path, SLEEPER)
    assert local.start(home, process)
    pid = json.loads((home.run / "sleeper.json").read_text())["pid"]
    try:
        assert not local.start(home, process), "a second start must find the first"
        assert psutil.pid_exists(pid)
    finally:
        assert local.stop(home, "sleeper")
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert not local.stop(home, "sleeper")


def test_a_copied_home_leaves_its_originals_processes_alone(home: Home, tmp_path: Path) -> None:
    local.start(home, _process(tmp_path, SLEEPER))
    pid = json.loads((home.run / "sleeper.json").read_text())["pid"]
    try:
        copied = Home.at(shutil.copytree(home.root, tmp_path / "copy"))
        assert not local.stop(copied, "sleeper") and psutil.Process(pid).is_running()
    finally:
        assert local.stop(home, "sleeper")


def test_a_home_moved_while_it_runs_still_stops_what_it_runs(home: Home, tmp_path: Path) -> None:
    local.start(home, _process(tmp_path, SLEEPER))
    moved = Home.at(home.root.rename(tmp_path / "moved"))
    assert local.stop(moved, "sleeper") and not local.stop(moved, "sleeper")


def test_a_process_that_ends_is_an_error_with_its_log(home: Home, tmp_path: Path) -> None:
    process = _process(tmp_path, "raise SystemExit('the port is taken')")
    with pytest.raises(local.StartError, match="the port is taken"):
        local.start(home, process)


def test_a_slow_start_is_waited_for_and_says_so_once(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "PATIENCE_S", 0.0)
    slow = "import pathlib, sys, time; time.sleep(1); pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
    assert local.start(home, _process(tmp_path, slow))
    local.stop(home, "sleeper")
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("sleeper runs and does not answer yet at nowhere; its log is") == 1


def test_a_pid_used_again_is_left_alone(home: Home) -> None:
    home.run.mkdir(parents=True)
    (home.run / "other.json").write_text(json.dumps({"pid": os.getpid(), "started": 1.0}))
    assert not local.stop(home, "other")
    assert psutil.pid_exists(os.getpid())


def test_a_port_that_another_program_holds_is_named(home: Home, tmp_path: Path) -> None:
    process = _process(tmp_path, SLEEPER)
    (tmp_path / "ready").touch()  # what `ready` asks answers before this home started anything
    with pytest.raises(local.StartError, match=r"something else answers at nowhere.*ports\.json"):
        local.start(home, process)
    assert not (home.run / "sleeper.json").exists()


def test_no_secret_is_among_the_arguments_that_every_user_sees(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = "postgresql://mlflow:hunter2@db/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("CORKBOARD_REDIS", "redis://:hunter2@store:6379")
    found = {process.name: process for process in local.processes(home, with_mlflow=True)}
    assert not [name for name, process in found.items() if "hunter2" in " ".join(process.command)]
    assert found["mlflow"].environment["MLFLOW_BACKEND_STORE_URI"] == database


def test_a_home_that_served_a_release_comes_up_without_the_registry(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(_: Home) -> int:
        raise ConnectionError("refused")

    started: list[str] = []
    process = replace(_process(tmp_path, SLEEPER), name="homefeed")
    monkeypatch.setattr(jobs, "champion", down)
    monkeypatch.setattr(local, "processes", lambda home, **_: [process])
    monkeypatch.setattr(local, "start", lambda home, process: started.append(process.name))
    with pytest.raises(ConnectionError):
        jobs.up(home)
    KeptRelease(alias="champion", version=1, folders={}).save(note_of(home.root, "homefeed"))
    jobs.up(home)
    assert started == ["homefeed"]
