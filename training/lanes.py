"""Steps of a run that do not wait for each other, learned side by side in processes of their own.

A step is a plain function of a `TrainingContext` and of arguments that can be sent to another process. With one
lane nothing is started: a step runs where its result is asked for.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing.queues import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from threadpoolctl import threadpool_limits

from training.context import TrainingContext, ignore_advice, silent

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


POLL_S = 0.1
LAST_LINES_S = 5.0
"""How long the last lines of lanes that have ended may take."""
OPENMP, OPENBLAS, MKL = THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What says to OpenMP and to BLAS, when they are loaded, how many threads to take: by themselves one a core in
every lane, and those of OpenBLAS wait for each other by spinning."""


class LaneLost(RuntimeError):
    """A process that learned something died."""


class Outcome(Protocol[T_co]):
    """What a step will have answered."""

    def result(self) -> T_co:
        """Wait for the step; raises what it raised, and LaneLost where its process died."""
        ...


class Lanes:
    """`ctx.lanes` processes that live as long as the `with` block; steps enter in the order they are given.

    Their progress reaches `ctx.progress` line by line, and each says how much CPU it took. BLAS has a lane's
    threads in this process too while there are lanes. Leaving the block drops the steps that have not begun and
    waits for the others.
    """

    def __init__(self, ctx: TrainingContext) -> None:
        self.ctx = ctx
        self._pool: ProcessPoolExecutor | None = None
        self._lines: SimpleQueue[str] | None = None
        self._over = threading.Event()
        self._reader: threading.Thread | None = None
        self._limits = contextlib.ExitStack()

    def __enter__(self) -> Lanes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is None or self._lines is None or self._reader is None:
            return
        self._limits.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._over.set()
        self._reader.join(LAST_LINES_S)

    def start(self, name: str, step: Callable[..., T], *args: Any, **named: Any) -> Outcome[T]:
        """Begin `step(ctx, *args, **named)` as soon as a lane is free."""
        if self.ctx.lanes == 1:
            return _Here(partial(step, self.ctx, *args, **named))
        pool = self._pool or self._open()
        told = replace(self.ctx, progress=silent)  # a function of this process cannot go along
        return _There(name, pool.submit(_run, name, step, told, args, named))

    def _open(self) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")  # threads of torch and numba do not survive a fork
        self._lines = lines = spawn.SimpleQueue()
        threads = threads_of(max(1, (os.cpu_count() or 1) // self.ctx.lanes))
        blas = min(threads[OPENBLAS], threads[MKL])
        self._limits.enter_context(threadpool_limits(blas, user_api="blas"))
        self._pool = ProcessPoolExecutor(self.ctx.lanes, spawn, _begin, (lines, threads))
        self._reader = threading.Thread(target=self._tell, args=(lines,), daemon=True)
        self._reader.start()
        return self._pool

    def _tell(self, lines: SimpleQueue[str]) -> None:
        """Pass lines on until the lanes are over.

        Nothing is sent to end it: a lane that was killed while it wrote keeps the queue's lock for good.
        """
        tell = self.ctx.progress
        while True:
            over = self._over.wait(POLL_S)
            while not lines.empty():
                try:
                    tell(lines.get())
                except Exception:  # a terminal that is gone must not fill the pipe, on which lanes would wait
                    tell = silent
            if over:
                return


def threads_of(share: int) -> dict[str, int]:
    """Threads that a lane takes, for each of THREADS: its share of the cores, or what the environment says
    where that is fewer. BLAS goes by OpenMP's where nothing is said of its own."""
    said = {name: os.environ.get(name, os.environ.get(OPENMP, "")).partition(",")[0] for name in THREADS}
    given = {name: int(word) for name, word in said.items() if word.strip().isdecimal()}
    return {name: min(given.get(name) or share, share) for name in THREADS}


class _Here(Generic[T]):
    """A step that runs when it is first asked for."""

    def __init__(self, step: Callable[[], T]) -> None:
        self._step, self._future = step, Future[T]()

    def result(self) -> T:
        if not self._future.done():
            try:
                self._future.set_result(self._step())
            except Exception as error:
                self._future.set_exception(error)
        return self._future.result()


class _There(Generic[T]):
    """A step in a lane."""

    def __init__(self, name: str, future: Future[T]) -> None:
        self._name, self._future = name, future

    def result(self) -> T:
        try:
            return self._future.result()
        except BrokenProcessPool as error:
            raise LaneLost(
                f"a process died while {self._name} was learned or waited for, most likely for lack of memory; "
                "run the same again with `--lanes 1`, finished steps are kept"
            ) from error


_lines: SimpleQueue[str] | None = None
"""Where this process, a lane, says what it does."""


def _begin(lines: SimpleQueue[str], threads: dict[str, int]) -> None:
    """Make this process a lane that ends with the process that it works for."""
    global _lines
    _lines = lines
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ignore_advice()
    os.environ.update({name: str(number) for name, number in threads.items()})
    import torch

    torch.set_num_threads(threads[OPENMP])


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(
    name: str, step: Callable[..., T], ctx: TrainingContext, args: tuple[Any, ...], named: dict[str, Any]
) -> T:
    assert _lines is not None
    began = time.process_time()
    answer = step(replace(ctx, progress=_lines.put), *args, **named)
    _lines.put(f"{name}: {time.process_time() - began:.0f} s of CPU")
    return answer
