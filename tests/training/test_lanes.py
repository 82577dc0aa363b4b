"""Steps in lanes answer, tell and fail as they would in place, and a lane does not outlive its run."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy  # noqa: F401  (BLAS, whose threads are counted)
import psutil
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tests.training import planted_releases as planted
from training.context import TrainingContext
from training.data.splits import TooShort
from training.lanes import MKL, OPENBLAS, OPENMP, THREADS, LaneLost, Lanes, threads_of


def squared(ctx: TrainingContext, n: int, *, also: int = 0) -> tuple[int, int]:
    ctx.progress(f"squaring {n}")
    return n * n + also, os.getpid()


def too_short(ctx: TrainingContext) -> None:
    raise TooShort("two days are no split")


def blas_threads(ctx: TrainingContext) -> set[int]:
    return {library["num_threads"] for library in threadpool_info()}


def killed(ctx: TrainingContext) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def ctx(tmp_path: Path) -> TrainingContext:
    return planted.context(tmp_path)


def test_one_lane_is_this_process_and_runs_when_asked(ctx: TrainingContext) -> None:
    told: list[str] = []
    with Lanes(replace(ctx, progress=told.append)) as lanes:
        outcome = lanes.start("square", squared, 3, also=1)
        assert not told
        assert outcome.result() == (10, os.getpid())
    assert told == ["squaring 3"]


def test_steps_run_in_other_processes_and_tell_this_one(
    ctx: TrainingContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    told: list[str] = []
    with threadpool_limits(8, user_api="blas"), Lanes(replace(ctx, lanes=2, progress=told.append)) as lanes:
        outcomes = [lanes.start(f"square {n}", squared, n) for n in (2, 3)]
        threads = lanes.start("threads", blas_threads)
        failing = lanes.start("split", too_short)
        (four, there), (nine, _) = (outcome.result() for outcome in outcomes)
        assert (four, nine) == (4, 9) and there != os.getpid()
        share = max(1, (os.cpu_count() or 1) // 2)
        assert threads.result() == {share}, "lanes share the cores"
        assert {b["num_threads"] for b in threadpool_info() if b["user_api"] == "blas"} == {share}
        with pytest.raises(TooShort, match="two days"):
            failing.result()
    assert {"squaring 2", "squaring 3"} <= set(told)
    assert any(line.startswith("square 2: ") and line.endswith(" s of CPU") for line in told)
    assert not psutil.pid_exists(there)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, (4, 4, 4)),
        ({OPENMP: "2"}, (2, 2, 2)),
        ({OPENMP: "2,1", OPENBLAS: "3"}, (2, 3, 2)),
        ({OPENMP: "16", MKL: "1"}, (4, 4, 1)),
        ({OPENMP: "many", OPENBLAS: "0"}, (4, 4, 4)),
    ],
)
def test_fewer_threads_than_a_lanes_share_are_kept(
    given: dict[str, str], taken: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    for name, said in given.items():
        monkeypatch.setenv(name, said)
    assert threads_of(4) == dict(zip(THREADS, taken, strict=True))


def test_a_lane_that_dies_is_named(ctx: TrainingContext) -> None:
    with (
        pytest.raises(LaneLost, match=r"dcm was learned or waited for.*--lanes 1"),
        Lanes(replace(ctx, lanes=2)) as lanes,
    ):
        lanes.start("dcm", killed).result()
