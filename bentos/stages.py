"""The stages a funnel is made of. `funnel.py` puts them in order; `engines.py` says where their work runs.

A stage changes the feed it is given. Stages that ask a store fail open: they leave their mark in
`feed.missing` and the answer goes on without them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from bentos.candidates import Candidates
from bentos.failing import why_missing
from bentos.features import Floats, Ints, PinStats, PinTable, User, rising
from bentos.feed import Surface
from bentos.last_good import LastGoodUsers
from bentos.load import scaled
from bentos.pool import Pool
from training.models.ranker import Past
from training.models.source_lists import DAMPING, NO_WEIGHTS, Entries, fuse
from validation.events import Reached

if TYPE_CHECKING:
    from bentos.engines import Engines
    from bentos.feed import Feed

PAST_DEADLINE_MS = 200
"""To read the vectors of a user's history, where the release's ranker selects from it."""

logger = logging.getLogger("corkboard.funnel")


class Stage(Protocol):
    """One step of a funnel."""

    @property
    def name(self) -> str: ...

    async def run(self, feed: Feed, engines: Engines) -> None: ...


@dataclass(frozen=True)
class Source:
    """A candidate source: a blocking function, how many it may bring and how long it may take."""

    name: str
    candidates: Callable[[Feed], Candidates]
    budget: int
    deadline_ms: float
    always: bool = False
    """Asked even where the release does not claim it: it has a fallback of its own."""
    quality: float = 0.0
    """The quality factor below which it is left out: load costs the dearest sources first."""


@dataclass(frozen=True)
class ReadUser:
    """Read the user's row; without it the feed is of the user as last read, or a stranger's."""

    deadline_ms: float
    name: str = "user"

    async def run(self, feed: Feed, engines: Engines) -> None:
        await read_user(feed, engines.pool, self.deadline_ms, engines.last_good)


async def read_user(feed: Feed, pool: Pool, deadline_ms: float, last_good: LastGoodUsers) -> None:
    """Fill `feed.user`; fails open to the user as last read, and says how long ago, else to an unknown one."""
    release = feed.release
    spaces = (release.pin_space, *release.user_spaces)
    if not feed.user_id:
        feed.user = User.unknown(0, release.dim(release.pin_space))
    else:
        try:
            feed.user = await pool.call(
                "user",
                deadline_ms,
                lambda: release.user(feed.user_id),
            )
        except Exception as error:
            # A stranger's feed is better than none, and one of the user an hour ago better still.
            kept = last_good.of(feed.user_id, spaces)
            if kept is None:
                feed.user = User.unknown(feed.user_id, release.dim(release.pin_space))
                fail_open(feed, "user", error)
                return
            feed.user, age_s = kept
            fail_open(feed, "user", error, f", read {age_s:.0f} s ago")
        else:
            last_good.keep(feed.user, spaces)
    feed.missing.extend(f"stale: {part}" for part in feed.user.stale)
    if not feed.user.known and feed.surface is Surface.HOMEFEED:
        feed.fallback = "unknown user: popular by topic"


@dataclass(frozen=True)
class Retrieve:
    """Ask every source; each answers within its deadline or not at all."""

    sources: tuple[Source, ...]
    name: str = "retrieve"

    async def run(self, feed: Feed, engines: Engines) -> None:
        await engines.retrieval.retrieve(feed, self.sources)


@dataclass(frozen=True)
class Merge:
    """Reciprocal rank fusion; a pin counts for the source that has it highest; at most `budget` are kept, down
    to `least` under load."""

    budget: int
    least: int = 500
    name: str = "merge"

    async def run(self, feed: Feed, engines: Engines) -> None:
        feed.candidates = self.merged(feed, scaled(self.budget, self.least, feed.quality))
        feed.reached[Reached.MERGED] = feed.candidates.pin_ids

    def merged(self, feed: Feed, budget: int) -> Candidates:
        """What goes on; every source counts alike."""
        return merge(*feed.brought, budget)


def merge(
    whole: Candidates,
    entries: Entries,
    budget: int,
    weights: Mapping[str, float] = NO_WEIGHTS,
    damping: int = DAMPING,
) -> Candidates:
    """Every pin that was `brought` once, those that many sources have high first; equal ones as sources in
    turns would bring them. `weights` and `damping` are those of `fuse`."""
    return whole.take(fuse(entries, budget, weights, damping)) if len(whole) else whole


@dataclass(frozen=True)
class ReadPins:
    """Read, once, what filters, ranking and diversity need of the candidates and of the user's sequence.

    `vectors` is False where `ReadVectors` follows.
    """

    deadline_ms: float
    vectors: bool = True
    name: str = "pins"

    async def run(self, feed: Feed, engines: Engines) -> None:
        await read_pins(feed, engines.pool, self.deadline_ms, vectors=self.vectors)


async def read_pins(feed: Feed, pool: Pool, deadline_ms: float, *, vectors: bool = True) -> None:
    """Fill `feed.pins` for the candidates and the sequence; fails open to pins of which nothing is known.

    Vectors are (n, 0) where they are not read.
    """
    release, ids = feed.release, _pins_of(feed)
    space = release.space if vectors else None
    await _fill(
        feed,
        pool,
        "pins",
        deadline_ms,
        ids,
        lambda: release.features.pins(ids),
        space,
        lambda: PinStats.absent(len(ids)),  # candidates stand in the order of their sources without any of it
    )


async def _fill(
    feed: Feed,
    pool: Pool,
    name: str,
    deadline_ms: float,
    ids: Ints,
    stats: Callable[[], PinStats],
    space: str | None,
    otherwise: Callable[[], PinStats],
) -> None:
    """`feed.pins` of `ids`, with their `stats` and vectors in `space`; where those cannot be read, of the stats
    `otherwise` and zeros."""

    def read() -> tuple[PinTable, int]:
        return PinTable(ids, stats(), feed.release.vectors(ids, space)[0]).sound()

    try:
        feed.pins, unfit = await pool.call(name, deadline_ms, read)
    except Exception as error:
        # Whoever reads pins takes zeros for unknown.
        feed.pins = PinTable(ids, otherwise(), np.zeros((len(ids), feed.release.dim(space)), np.float32))
        fail_open(feed, name, error)
        return
    if unfit:
        feed.missing.append(f"{name}: {unfit} unfit rows")


def _pins_of(feed: Feed) -> Ints:
    """Candidates, the user's sequence and the pin that related ones are asked for: rising, distinct."""
    ids = rising(np.concatenate([feed.candidates.pin_ids, feed.user.sequence.pin_ids, [feed.pin_id]]))
    return ids[ids > 0]


@dataclass(frozen=True)
class ReadVectors:
    """Narrow `feed.pins` to what the shortlist left and give those their vectors: nobody reads them of a pin
    that was cut. Fails open to pins without one."""

    deadline_ms: float
    name: str = "vectors"

    async def run(self, feed: Feed, engines: Engines) -> None:
        ids, space = _pins_of(feed), feed.release.space
        stats = feed.pins.stats.take(feed.pins.rows(ids))
        await _fill(feed, engines.pool, self.name, self.deadline_ms, ids, lambda: stats, space, lambda: stats)


async def read_past(feed: Feed, pool: Pool, deadline_ms: float) -> None:
    """Fill `feed.past`, the user's history with vectors of its pins; fails open to the sequence alone."""
    release, history = feed.release, feed.user.history
    ids = np.concatenate([history.pin_ids, history.shown_pin_ids])
    try:
        vectors = await pool.call("past", deadline_ms, lambda: release.vectors(ids, release.space)[0])
    except Exception as error:
        # The newest actions say most of what the ranker asks.
        fail_open(feed, "past", error)
        return
    unfit = ~np.isfinite(vectors).all(axis=1)
    if unfit.any():
        vectors = np.where(unfit[:, None], np.float32(0), vectors)
        feed.missing.append(f"past: {int(unfit.sum())} unfit rows")
    acted = len(history.pin_ids)
    feed.past = Past(
        history=vectors[:acted],
        actions=history.actions,
        surfaces=history.surfaces,
        times_ms=history.times_ms,
        shown=vectors[acted:],
        shown_ms=history.shown_ms,
    )


@dataclass(frozen=True)
class Keep:
    """A filter: keeps the candidates for which `test` is true."""

    name: str
    test: Callable[[Feed], NDArray[np.bool_]]

    async def run(self, feed: Feed, engines: Engines) -> None:
        if len(feed.candidates) == 0:
            return
        try:
            kept = self.test(feed)
            if not kept.all():
                feed.candidates = feed.candidates.take(kept)
        except Exception as error:
            # What a store gave may be unfit to test by; pins that should have left are better than no feed.
            fail_open(feed, self.name, error)


@dataclass(frozen=True)
class LightRank:
    """Order every candidate by the release's light ranker, trees or two-tower, where the user is somebody."""

    deadline_ms: float
    name: str = "light"

    async def run(self, feed: Feed, engines: Engines) -> None:
        feed.reached[Reached.LIGHT] = feed.candidates.pin_ids
        if not (len(feed.candidates) and feed.user.known and feed.release.light_by):
            return
        try:
            scores: Floats = await engines.ranking.light(feed, self.deadline_ms)
            if scores.shape != (len(feed.candidates),) or not np.isfinite(scores).all():
                raise NoScores(f"light scores of {len(feed.candidates)} pins are no numbers")
        except Exception as error:
            # The order of the merge knows what every source said, and serves without this.
            fail_open(feed, self.name, error)
            return
        feed.candidates = feed.candidates.scored(scores).best_first()
        feed.ordered_by = "light"


@dataclass(frozen=True)
class Shortlist:
    """The first candidates go on to heavy ranking: `budget`, or as many as the settings say, down to `least`
    under load; never fewer than twice the page."""

    budget: int | None = None
    least: int = 100
    name: str = "shortlist"

    async def run(self, feed: Feed, engines: Engines) -> None:
        least = max(self.least, 2 * feed.limit)
        budget = max(self.budget or engines.shortlist, 2 * feed.limit)
        feed.candidates = feed.candidates.take(slice(scaled(budget, least, feed.quality)))
        feed.reached[Reached.RANKED] = feed.candidates.pin_ids


@dataclass(frozen=True)
class Take:
    """The answer's pins."""

    name: str = "take"

    async def run(self, feed: Feed, engines: Engines) -> None:
        feed.candidates = feed.candidates.take(slice(feed.limit))


class NoScores(RuntimeError):
    """A ranker, or its calibration, gave what is no probability."""


def fail_open(feed: Feed, what: str, error: Exception, instead: str = "") -> None:
    """The request goes on without `what`, and the answer says why, and what stands `instead`."""
    feed.missing.append(f"{what}: {why_missing(error)}{instead}")
    logger.log(feed.log_level, "request %d goes on without %s: %r", feed.request_id, what, error)
