"""What a pool's calls held is freed with them, without the collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from bentos.calls import Call
from bentos.pool import Pool
from tests.bentos.conftest import run


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(4)
    gc.disable()
    yield made
    gc.enable()
    made.close()


class Held:
    pass


def fails(held: Held) -> None:
    raise ValueError("wrong")


async def catches(pool: Pool, held: Held) -> None:
    with contextlib.suppress(ValueError):
        await pool.call("store", 20_000, lambda: fails(held))


async def looks_at_the_outcome(pool: Pool, held: Held) -> None:
    (outcome,) = await pool.calls([Call("store", 20_000, lambda: fails(held))])
    assert outcome.error is not None


async def is_refused(pool: Pool, held: Held) -> None:
    await pool.call("store", 20_000, lambda: fails(held))


@pytest.mark.parametrize("driven", [False, True])
@pytest.mark.parametrize("feed", [catches, looks_at_the_outcome, is_refused])
def test_an_error_keeps_nothing_of_what_failed(
    pool: Pool, feed: Callable[[Pool, Held], Coroutine[Any, Any, None]], driven: bool
) -> None:
    """A traceback holds what its frames do; where they lead back to the error only the collector frees both."""

    async def main() -> None:
        held = Held()
        gone = weakref.ref(held)
        with contextlib.suppress(ValueError):
            await (pool.drive(feed(pool, held)) if driven else feed(pool, held))
        del held
        while gone() is not None:
            await asyncio.sleep(0.005)

    run(asyncio.wait_for(main(), 20))


def test_what_a_coroutine_held_goes_with_it(pool: Pool) -> None:
    """A feed is some hundred objects, and rings of them cost every request a pass of the collector."""

    async def feed(held: Held) -> weakref.ref[Held]:
        await pool.calls([Call("store", 20_000, lambda: held), Call("wrong", 20_000, lambda: fails(held))])
        await pool.call("store", 20_000, lambda: held)
        return weakref.ref(held)

    async def main() -> None:
        gone = await pool.drive(feed(Held()))
        while gone() is not None:  # its thread lets go a moment after it told
            await asyncio.sleep(0.005)

    run(asyncio.wait_for(main(), 20))


def test_a_thread_keeps_nothing_of_what_it_was_started_for(pool: Pool) -> None:
    class Release:
        pass

    async def asked() -> weakref.ref[Release]:
        release = Release()
        return await pool.call("store", 20_000, lambda: weakref.ref(release))

    held = run(asked())
    for _ in range(4_000):
        if pool._idle and held() is None:
            break
        time.sleep(0.005)
    assert held() is None
