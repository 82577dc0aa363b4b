"""Planted services for the tests of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bentos.messages import FeedRequest
from tests.bentos.fakes import STRANGER, Stack, planted_stack


@pytest.fixture
def stack_of(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Makes planted stacks (see `planted_stack`), warmed, and closes them."""
    made: list[Stack] = []

    def make(**changes: Any) -> Stack:
        folder = tmp_path / f"stack{len(made)}"
        folder.mkdir()
        made.append(warmed(planted_stack(folder, **changes)))
        return made[-1]

    yield make
    for stack in made:
        stack.close()


@pytest.fixture
def stack(stack_of: Callable[..., Stack]) -> Stack:
    return stack_of()


def warmed(stack: Stack) -> Stack:
    """Compile what numba compiles, so that no deadline of a test is spent on it."""
    from bentos.loader import check_release

    if not stack.features.broken and not stack.features.slow_s:
        check_release(stack.release)
        run(stack.service.homefeed(FeedRequest(user_id=STRANGER, limit=1)))
    return stack


def run(work: Awaitable[Any]) -> Any:
    """Run a coroutine to its end."""

    async def main() -> Any:
        return await work

    return asyncio.run(main())
