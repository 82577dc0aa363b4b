"""Pixie as a service holds it: the release's graph, mapped, and every save logged since it was built."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bentos.intake import STREAM
from bentos.log_segments import LogDamaged, Tail
from training.models.pin_board_overlay import FreshSaves, OverlayFull
from training.models.pixie import Pixie, PixieSettings, Query, ReleasedPixie, board_query
from validation.events import ActionRecord
from validation.ids import MAX_ID, hash_id
from validation.tables import Polarity, Vocabulary

logger = logging.getLogger("corkboard.walker")

LOOK_S = 0.5
"""Seconds between two looks at the event log, at least: how soon an acknowledged save is walked to."""

SPENT = 0.05
"""Share of the time that taking in saves may cost: the more there are, the longer a view takes to build."""


@dataclass(eq=False)
class Walker:
    """Walks of one release. Thread-safe: one request takes in what is new while others walk the last view."""

    released: ReleasedPixie
    vocabulary: Vocabulary
    _pixie: Pixie
    _saves: FreshSaves
    _log: Tail
    _clock: Callable[[], float] = time.monotonic
    _door: threading.Lock = field(default_factory=threading.Lock)
    _next: float = 0.0
    _stopped: bool = False
    """No more saves are taken in: the overlay is full, or the log is damaged."""

    @classmethod
    def open(
        cls,
        released: ReleasedPixie,
        vocabulary: Vocabulary,
        events: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> Walker:
        """Over a loaded version, with the saves that `events` holds from the time the graph was built as of."""
        graph = released.graph
        log = Tail(events, STREAM, since_ms=graph.info.as_of_ms or 0)
        pixie = Pixie(graph, released.settings.walk)
        return cls(released, vocabulary, pixie, FreshSaves(graph), log, clock)

    @property
    def settings(self) -> PixieSettings:
        return self.released.settings

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """Weight of each action code in a walk, (CODES,)."""
        return self.settings.weights(self.vocabulary)

    def now(self) -> Pixie:
        """The walker over the graph and every save that has been taken in."""
        if not self._stopped and self._clock() >= self._next and self._door.acquire(blocking=False):
            try:
                self._catch_up()
            except (OverlayFull, LogDamaged) as error:
                # Walks go on with the saves there are; the next release's graph holds the rest.
                self._stopped = True
                logger.error("fresh saves are no longer taken in: %s", error)
            except OSError as error:
                # A folder that cannot be read now may be read at the next look.
                self._next = self._clock() + LOOK_S
                logger.warning("fresh saves cannot be read: %s", error)
            finally:
                self._door.release()
        return self._pixie

    def warm(self) -> None:
        """Load the compiled kernels of walks: alone, merged, and over fresh saves."""
        graph = self.now().graph
        if graph.pins == 0:
            return
        few = Query.of(graph.ids_of(np.arange(min(2, graph.pins), dtype=np.int32)))
        overlaid = FreshSaves(self._saves.base)
        overlaid.add(few.pin_ids[:1], np.array([MAX_ID]), np.zeros(1))
        for view in (self._pixie, self._pixie.on(overlaid.view())):
            view.recommend(few, 1)

    def board_query(self, board_id: int, seed: int) -> Query:
        """A walk from a board of the data set; an empty one where the graph's edges are no boards."""
        if self.settings.context != "board":
            return Query.of(np.empty(0, np.int64))
        return board_query(self.now().graph, board_id, seed=seed)

    def pins_of_board(self, board_id: int) -> NDArray[np.int64]:
        """Pins of a board of the data set; none where the graph does not know it or has no boards."""
        graph = self.now().graph
        board = int(graph.board_index_of([board_id])[0]) if self.settings.context == "board" else -1
        return graph.ids_of(graph.pins_of(board)) if board >= 0 else np.empty(0, np.int64)

    @property
    def fresh(self) -> int:
        """Saves taken in since the graph was built."""
        return len(self._saves)

    def _catch_up(self) -> None:
        started = self._clock()
        records = [r for r in self._log.read() if isinstance(r, ActionRecord)]
        saves = [(r.pin_id, board, r.timestamp_ms) for r in records if (board := self._board(r))]
        if saves:
            pins, boards, times = np.array(saves, np.int64).T
            self._saves.add(pins, boards, times)
            self._pixie = self._pixie.on(self._saves.view())
        took = self._clock() - started
        self._next = self._clock() + max(LOOK_S, took / SPENT)

    def _board(self, record: ActionRecord) -> int:
        """The other end of a record's edge, as the graph names it; 0 where the record makes none."""
        if self.vocabulary.actions.get(record.action) is not Polarity.POSITIVE:
            return 0
        match self.settings.context:
            case "board":
                return record.board_id or 0
            case "request":
                return record.request_id or 0
            case "user":
                return record.user_id
            case "session":
                # Sessions were numbered when the graph was built; those of today get numbers far from theirs.
                stretch = record.timestamp_ms // (self.settings.session_gap_minutes * 60_000)
                return hash_id(f"session {record.user_id} {stretch}")
