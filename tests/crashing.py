"""kill -9 at every durable step: a job runs in a child process that kills itself just before its k-th one.

A durable step is what outlives the process: a rename, a file synced, cut or deleted, a commit of a SQLite
database, a call that changes Milvus. A write through a descriptor dies halfway, so that half of it is there.
Nothing of this is in the product: the child wraps the calls themselves before it runs the job.

Children are forked from one clean process that has imported the stores, so that a crash costs no imports.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Job = Callable[..., None]
"""A function of a module, called with the home's folder and what else it is given."""

EVERY = "CORKBOARD_CRASH_STEPS"
"""Environment variable: `all` crashes at every step, instead of at a few drawn by seed."""

FORKED_FROM = "tests.crash_imports"
"""What the one process that a test process's children are forked from has imported."""

DRAWN = 4
PATIENCE_S = 240

_OS_CALLS = ("replace", "rename", "fsync", "unlink", "remove", "rmdir", "ftruncate")
_MILVUS_CALLS = (
    *("create_collection", "create_index", "load_collection", "release_collection", "drop_collection"),
    *("insert", "upsert", "delete", "flush"),
)


def crashes(job: Job, fresh: Callable[[str], Path], *given: Any, seed: int = 0) -> Iterator[tuple[Path, int]]:
    """(home, step) of a home each in which `job` was killed before that durable step.

    `fresh(name)` makes a home to run in. The first home of all runs to its end, uncrashed, and is yielded as
    step 0. A few steps are drawn by `seed`, the last one among them; `CORKBOARD_CRASH_STEPS=all` takes all.
    """
    whole = fresh("whole")
    steps = _run(job, whole, given, dies_at=0)
    yield whole, 0
    for step in drawn(steps, seed):
        home = fresh(f"step{step}")
        _run(job, home, given, dies_at=step)
        yield home, step


def drawn(steps: int, seed: int) -> list[int]:
    """The steps of 1 to `steps` at which a job is killed."""
    assert steps > 0, "the job has no durable step"
    if os.environ.get(EVERY) == "all":
        return list(range(1, steps + 1))
    some = random.Random(seed).sample(range(1, steps), min(DRAWN - 1, steps - 1))
    return sorted([*some, steps])


def _run(job: Job, home: Path, given: tuple[Any, ...], dies_at: int) -> int:
    """Run the job in a child; the steps it made. Raises AssertionError where it did not end as it should."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([FORKED_FROM])
    log = home.with_name(f"{home.name}.steps")
    child = context.Process(target=_child, args=(job, home, given, dies_at, log))
    child.start()
    child.join(PATIENCE_S)
    if child.is_alive():
        child.kill()
        raise AssertionError(f"{job.__name__} was not done in {PATIENCE_S} s")
    made = int(log.read_text()) if log.exists() else 0
    # Batches that come together make a step less: a job may be done before its last one was to kill it.
    killed = dies_at > 0 and made >= dies_at
    assert child.exitcode == (-signal.SIGKILL if killed else 0), f"{job.__name__} ended with {child.exitcode}"
    assert made >= dies_at * 0.8, f"{job.__name__} made {made} steps, {dies_at} before"
    return made


def _child(job: Job, home: Path, given: tuple[Any, ...], dies_at: int, log: Path) -> None:
    steps = _Steps(dies_at, log)
    _wrap_os(steps)
    _wrap_sqlite(steps)
    _wrap_milvus(steps)
    job(home, *given)
    steps.finish()


class _Steps:
    """Counts durable steps and dies at one."""

    def __init__(self, dies_at: int, log: Path) -> None:
        self._dies_at, self._log, self.made = dies_at, log, 0

    def __call__(self, before: Callable[[], None] = lambda: None) -> None:
        """One step is about to be made; `before` is what of it still happens where the process dies here."""
        self.made += 1
        if self.made == self._dies_at:
            before()
            self.finish()
            os.kill(os.getpid(), signal.SIGKILL)

    def finish(self) -> None:
        self._log.write_text(str(self.made))


def _wrap_os(steps: _Steps) -> None:
    for name in _OS_CALLS:
        setattr(os, name, _counted(getattr(os, name), steps))
    write = os.write

    def torn(descriptor: int, data: bytes) -> int:
        steps(lambda: write(descriptor, data[: len(data) // 2]))
        return write(descriptor, data)

    os.write = torn


def _wrap_sqlite(steps: _Steps) -> None:
    class Connection(sqlite3.Connection):
        def commit(self) -> None:
            if self.in_transaction:
                steps()
            super().commit()

        def __exit__(self, *error: Any) -> Any:
            if self.in_transaction and error[0] is None:
                steps()
            return super().__exit__(*error)

    connect = sqlite3.connect

    def counting(*args: Any, **options: Any) -> sqlite3.Connection:
        return connect(*args, **{"factory": Connection, **options})

    sqlite3.connect = sqlite3.dbapi2.connect = counting  # type: ignore[assignment]


def _wrap_milvus(steps: _Steps) -> None:
    from pymilvus import MilvusClient

    for name in _MILVUS_CALLS:
        setattr(MilvusClient, name, _counted(getattr(MilvusClient, name), steps))


def _counted(call: Callable[..., Any], steps: _Steps) -> Callable[..., Any]:
    def counted(*args: Any, **options: Any) -> Any:
        steps()
        return call(*args, **options)

    return counted
