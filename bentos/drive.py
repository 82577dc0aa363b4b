"""What the pool drives: coroutines, and who is told what came of them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from bentos.calls import Group

T = TypeVar("T")


@dataclass(eq=False)
class Drive(Generic[T]):
    """A coroutine on the pool's threads: one runs it, and its calls, until one of them does not come back."""

    work: Coroutine[Any, Any, T]
    tell: Callable[[T | None, BaseException | None], None]
    """Takes its result, or what it raised."""
    steps: Group = field(default_factory=Group)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    given_up: bool = False

    def go_on(self) -> Group:
        """The calls that it waits for next. Raises StopIteration with its result, or what it raises."""
        if self.given_up:
            return self.context.run(self.work.throw, asyncio.CancelledError())  # type: ignore[no-any-return]
        return self.context.run(self.work.send, None)  # type: ignore[no-any-return]


def tell_nobody(result: Any, error: BaseException | None) -> None:
    """Whoever waited was told."""


def tell_loop(waiting: asyncio.Future[Any], result: Any, error: BaseException | None = None) -> None:
    """Give somebody on an event loop what they wait for."""

    def tell() -> None:
        if waiting.done():
            return
        if error is None:
            waiting.set_result(result)
        else:
            waiting.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        waiting.get_loop().call_soon_threadsafe(tell)
