"""What becomes of a request where a part of it fails: what the answer says is missing, or a refusal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from bentos.breaker import BreakerOpen
from bentos.errors import RequestError, StoreUnavailable
from bentos.pool import Busy, Pool

T = TypeVar("T")

logger = logging.getLogger("corkboard.pool")


READ = ("user:", "pins:", "vectors:", "past:")
"""How an answer begins to say that what a ranker reads could not be read where it is ranked."""


def why_missing(error: BaseException) -> str:
    """How an answer names a part that failed open."""
    if isinstance(error, TimeoutError):
        return "deadline"
    if isinstance(error, RequestError):
        return error.why or error.name
    if isinstance(error, BreakerOpen):
        return "breaker open"
    return "busy" if isinstance(error, Busy) else type(error).__name__


async def needed(pool: Pool, name: str, deadline_ms: float, work: Callable[[], T]) -> T:
    """`pool.call` for what a request cannot do without.

    Raises StoreUnavailable in place of whatever the store raises; errors of the request pass through.
    """
    try:
        return await pool.call(name, deadline_ms, work)
    except RequestError:
        raise
    except Exception as error:
        # The answer names the store's trouble; the traceback is the log's, once it is not just left alone.
        logger.error(
            "%s could not be read: %r", name, error, exc_info=not isinstance(error, BreakerOpen | Busy)
        )
        why = why_missing(error)
        raise StoreUnavailable(f"{name} could not be read: {why}; try again", why) from error
