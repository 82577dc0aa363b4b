"""One request on its way through the funnel: what it asked, what is known so far, and what each stage did."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from bentos.campaigns import Ad, LiveAds
from bentos.candidates import Candidates, brought
from bentos.features import Ints, PinTable, User
from bentos.heads import Heads
from bentos.messages import SourceReport, StageReport
from bentos.release import ServingRelease
from training.models.diversity import DiversityConfig
from training.models.lexical import Reading
from training.models.page_policy import PagePolicy
from training.models.ranker import Past
from training.models.source_lists import Entries
from validation.events import Reached

if TYPE_CHECKING:
    from training.models.interests import Acts


class Surface(StrEnum):
    """Where an answer is shown."""

    HOMEFEED = "homefeed"
    RELATED = "related"
    RELATED_ADS = "related_ads"
    SEARCH = "search"


_NOTHING: Ints = np.empty(0, np.int64)


@dataclass
class Feed:
    """The state of one request; owned by one task, changed only by the funnel's stages."""

    surface: Surface
    release: ServingRelease
    now_ms: int
    limit: int
    request_id: int = 0
    seed: int = 0
    """Seeds every draw of this request (medoids, topics)."""
    user_id: int = 0
    """0 = nobody known."""
    pin_id: int = 0
    """The pin that related pins are asked for; 0 on the home feed."""
    board_id: int = 0
    """The board that related pins are asked for, where it is not a pin."""
    query: str = ""
    """What is searched for, in normal spelling; empty on other surfaces."""
    reading: Reading | None = None
    """What the query's words were read as, where the release knows words."""
    exclude: Ints = field(default_factory=_NOTHING.copy)
    """Pins already on the screen."""
    served: Ints = field(default_factory=_NOTHING.copy)
    """Pins of the user's last answers, oldest first."""
    quality: float = 1.0
    """How much work the request gets: 1 all, less under load."""
    policy: PagePolicy | None = None
    """What pages are made by; None: the data set's defaults."""
    policy_refused: str | None = None
    """Why the file of weights is not what `policy` says."""

    user: User = field(default_factory=User.unknown)
    candidates: Candidates = field(default_factory=Candidates.none)
    parts: list[Candidates] = field(default_factory=list)
    """Candidates by source, before the merge."""
    reached: dict[Reached, Ints] = field(default_factory=dict)
    """Pins that came as far as each stage that cuts, for the candidate log."""
    pins: PinTable = field(default_factory=PinTable.empty)
    """Features of the candidates and of the pins in the user's sequence."""
    past: Past | None = None
    """The user's history, once it is read for a ranker that selects from it."""
    heads: Heads | None = None
    """What the ranker foretells of the candidates, once they are ranked."""
    ads: LiveAds | None = None
    """The campaigns behind the candidates, once ads are priced."""
    ordered_by: str = "merged"
    """What put the candidates in their order last: `merged` (sources in turns), `light`, `ranked` or, of ads,
    `expected_value`."""
    stages: list[StageReport] = field(default_factory=list)
    sources: list[SourceReport] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    fallback: str | None = None
    log_level: int = logging.WARNING
    """At which the log tells of what goes missing; the answer tells always."""
    acts: tuple[User, Acts] | None = None
    """Whose actions the networks' histories were made of last (`user_inputs.acts_of`)."""
    _acted: tuple[User, Ints, Ints] | None = None
    """Whose actions of either sign were found last."""
    _foretold: tuple[Heads, Ints, list[dict[str, float]]] | None = None
    """What was foretold last, and of which pins: the answer and the log say the same."""

    @property
    def page_policy(self) -> PagePolicy:
        return self.policy or self.release.policy

    @property
    def diversity(self) -> DiversityConfig:
        """How much variety the surface's pages have: results of a search may be alike."""
        policy = self.page_policy
        return policy.search if self.surface is Surface.SEARCH else policy.diversity

    @cached_property
    def brought(self) -> tuple[Candidates, Entries]:
        """`parts` list after list, and as the merge and the trees read them: made once, when all sources have
        answered."""
        return brought(self.parts)

    def foretold(self, pin_ids: Ints) -> list[dict[str, float]]:
        """The probability of each action on each of `pin_ids`, to six decimals; empty where unranked."""
        heads, last = self.heads, self._foretold
        if heads is None:
            return [{} for _ in range(len(pin_ids))]
        if last is not None and last[0] is heads and last[1] is pin_ids:
            return last[2]
        rows = np.round(heads.of(pin_ids).astype(np.float64), 6).tolist()
        said = [dict(zip(heads.names, row, strict=True)) for row in rows]
        self._foretold = heads, pin_ids, said
        return said

    def sponsors(self, pin_ids: Ints) -> list[Ad | None]:
        """The ad behind each of `pin_ids`; None for pins that are no ads."""
        if self.ads is None:
            return [None] * len(pin_ids)
        return [self.ads.of(pin_id) for pin_id in pin_ids.tolist()]

    def place(self, nth: int) -> int:
        """0-based place on the page of the `nth` candidate: ads stand in their slots."""
        return nth if self.ads is None else self.release.ads_policy.place(nth)

    def drawn(self, stream: int, of: Ints, count: int) -> list[int]:
        """`count` of the numbers `of`, or all there are, in an order that this request draws; each caller takes
        a `stream` number below 256 of its own."""
        # NumPy's generators take five times as long to seed.
        return random.Random(self.seed << 8 | stream).sample(of.tolist(), min(count, len(of)))

    def recorded(self, kind: str) -> dict[str, object]:
        """How records that are logged of this answer's pins begin, in the order of their fields; each gives its
        `event_id` and `pin_id` for the zeros."""
        return {
            "event_id": 0,
            "user_id": self.user_id,
            "timestamp_ms": self.now_ms,
            "surface": self.surface.value,
            "release": self.release.version,
            "pin_id": 0,
            "kind": kind,
            "request_id": self.request_id,
        }

    def positive_rows(self) -> Ints:
        """Rows of the user's sequence that are positive actions, newest first. Not to be changed."""
        return self._rows_acted()[1]

    def negative_rows(self) -> Ints:
        """Rows of the user's sequence that are negative actions, newest first. Not to be changed."""
        return self._rows_acted()[2]

    def _rows_acted(self) -> tuple[User, Ints, Ints]:
        found = self._acted
        if found is None or found[0] is not self.user:
            signs = self.release.signs[self.user.sequence.actions]
            found = self._acted = self.user, np.flatnonzero(signs > 0), np.flatnonzero(signs < 0)
        return found

    def stage(self, name: str) -> _Timed:
        """Time a stage and report the candidates left after it."""
        return _Timed(self, name)


class _Timed:
    """A stage of one request, from entry to exit, however it ends."""

    __slots__ = ("_feed", "_name", "_started")

    def __init__(self, feed: Feed, name: str) -> None:
        self._feed, self._name = feed, name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        feed, ms = self._feed, (time.perf_counter() - self._started) * 1000
        merged = feed.candidates is not Candidates.none()
        count = len(feed.candidates) if merged else sum(map(len, feed.parts))
        feed.stages.append(StageReport(self._name, count, round(ms, 3)))
