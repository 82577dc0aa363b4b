"""Where no source brings anything: what is popular, from the store, or as the release was loaded with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bentos.candidates import Candidates
from bentos.stages import fail_open

if TYPE_CHECKING:
    from bentos.engines import Engines
    from bentos.feed import Feed


class Unfit(RuntimeError):
    """What the store holds as popular are no pins."""


@dataclass(frozen=True)
class OrPopular:
    """Where no source found anything, what is popular, and `feed.fallback` says so: a feed holds pins whatever
    has failed.

    `popular` is asked first, which blocks on the store; what the release was loaded with stands in for it.
    """

    deadline_ms: float
    popular: Callable[[Feed], Candidates]
    fallback: str
    name: str = "popular"

    async def run(self, feed: Feed, engines: Engines) -> None:
        if any(len(part) for part in feed.parts):
            return
        feed.fallback = self.fallback
        found = Candidates.none()
        try:
            found = await engines.pool.call(self.name, self.deadline_ms, lambda: self._fit(feed))
        except Exception as error:
            # Popular a while ago is better than nothing.
            fail_open(feed, self.name, error, ", as of the release's loading")
        feed.parts = [found if len(found) else feed.release.popular]

    def _fit(self, feed: Feed) -> Candidates:
        found = self.popular(feed)
        fit, unfit = found.fit(len(found))
        if unfit:
            raise Unfit(f"{unfit} of {len(found)} popular pins are none")
        return fit
