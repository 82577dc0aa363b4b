"""`Pixie`: a query in, pins and scores out."""

from __future__ import annotations

import contextlib
import mmap
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from training.models.pin_board_graph import PinBoardGraph
from training.models.pin_board_overlay import GraphView
from training.models.pixie.config import PixieConfig
from training.models.pixie.engine import HALF_FULL, merge_visits, slots_for, walk_query
from training.models.pixie.query import Bias, Query, allocate_steps

Ids = NDArray[np.int64]
_MASK = (1 << 64) - 1

BYTES_PER_SLOT = 32
"""Graphs of up to so many pins a slot of the hash are counted in bytes: 8M pins for 100,000 steps."""

LINE, HUGE_PAGE = 64, 1 << 21
"""Bytes of a cache line and of a huge page."""

SPARE_PINS = 4_096
"""Fresh pins that a counter of bytes has places for before it is made anew."""


class Room(NamedTuple):
    """Working memory of one walk at a time; its counters are all zero between walks."""

    visits: NDArray[np.uint8]  # (pins,) the counter of bytes, or (0,)
    full: NDArray[np.int64]  # (steps / 128 + 1,)
    table: NDArray[np.int64]  # (slots,)
    touched: NDArray[np.int32]  # (steps + 1,)
    pins: NDArray[np.int32]  # (steps,)
    counts: NDArray[np.int32]  # (steps,)
    sums: NDArray[np.float64]  # (steps,)

    @classmethod
    def of(cls, steps: int, pins: int) -> Room:
        """Room for walks of at most `steps` steps: about 45 bytes a step, and 1 a pin of a graph that is
        small to them.

        Bytes are faster while they stay in the caches (1.3x at 1M pins); then the hash, whose size the graph
        does not change, is.
        """
        slots = slots_for(steps)
        shapes: dict[str, tuple[int, type[np.generic]]] = {
            "visits": (pins if pins <= BYTES_PER_SLOT * slots else 0, np.uint8),
            "full": (steps // HALF_FULL + 1, np.int64),
            "table": (slots, np.int64),
            "touched": (steps + 1, np.int32),
            "pins": (steps, np.int32),
            "counts": (steps, np.int32),
            "sums": (steps, np.float64),
        }
        room = cls(**_carved(shapes))
        room.visits[:] = 0
        room.table[:] = 0
        return room


def _carved(shapes: dict[str, tuple[int, type[np.generic]]]) -> dict[str, NDArray[np.generic]]:
    """Arrays of these lengths and types out of one block of huge pages.

    numpy asks huge pages for large blocks too, but of memory that may have been touched on small ones before.
    """
    sizes = [-(-length * np.dtype(kind).itemsize // LINE) * LINE for length, kind in shapes.values()]
    pages = mmap.mmap(-1, sum(sizes) + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux
        with contextlib.suppress(OSError):  # a kernel built without them: small pages are only slower
            pages.madvise(mmap.MADV_HUGEPAGE)
    block = np.frombuffer(pages, np.uint8)
    at = -block.ctypes.data % HUGE_PAGE
    arrays = {}
    for (name, (length, kind)), size in zip(shapes.items(), sizes, strict=True):
        arrays[name] = block[at : at + length * np.dtype(kind).itemsize].view(kind)
        at += size
    return arrays


@dataclass(frozen=True)
class Visits:
    """What a walk visited, query pins included; parallel arrays in no order."""

    pins: NDArray[np.int32]  # (v,) indexes
    scores: NDArray[np.float32]  # (v,)
    steps: int
    """Steps walked, fewer than asked where it stopped early."""
    unknown: int
    """Query pins that the graph does not know or that have no edges."""


@dataclass(frozen=True)
class Recommendations:
    """Best pins first (ties: the lower pin id); parallel arrays. Empty where nothing could be walked from."""

    pin_ids: Ids  # (k,)
    scores: NDArray[np.float32]  # (k,)
    steps: int
    unknown: int

    def __len__(self) -> int:
        return len(self.pin_ids)


class Pixie:
    """Walks on one graph. Threads may share it; kernels release the interpreter lock.

    Equal graph, configuration, query and seed give equal answers, whatever the order of the query's pins.
    """

    def __init__(self, graph: PinBoardGraph | GraphView, config: PixieConfig | None = None) -> None:
        self.graph = graph
        self.config = config or PixieConfig()
        self._max_degree = graph.max_pin_degree
        self._rooms: deque[Room] = deque()

    def on(self, graph: GraphView) -> Pixie:
        """The same walker over another view of its base; working memory is shared, so this costs nothing."""
        other = Pixie.__new__(Pixie)
        other.graph, other.config = graph, self.config
        other._max_degree, other._rooms = self._max_degree, self._rooms
        return other

    def recommend(self, query: Query, n: int, *, seed: int = 0, bias: Bias | None = None) -> Recommendations:
        """The `n` pins of highest score, without the query's own and excluded pins.

        Unknown pins and pins without edges are left out and counted; a query of nothing else has no answers.
        Raises ValueError for n < 1.
        """
        if n < 1:
            raise ValueError(f"{n} recommendations asked for; ask for at least 1")
        query = query.heaviest(self.config.max_query_pins)
        room, total, steps, unknown = self._walk(query, seed, bias)
        pins, scores = room.pins[:total], self._scores(room, total, len(query) - unknown > 1)
        barred = self.graph.index_of(np.concatenate([query.pin_ids, query.exclude]))
        barred = barred[barred >= 0]
        if total > n + len(barred):  # the barred ones fall away, every tie with the last stays
            near = _among_largest(scores, n + len(barred))
            pins, scores = pins[near], scores[near]
        allowed = ~np.isin(pins, barred)
        ids, scores = self.graph.ids_of(pins[allowed]), scores[allowed]
        self._rooms.append(room)
        best = np.lexsort((ids, -scores))[:n]
        return Recommendations(ids[best], scores[best], steps, unknown)

    def visits(self, query: Query, *, seed: int = 0, bias: Bias | None = None) -> Visits:
        """Score of every visited pin: the booster's, divided by degree ** `popularity_discount`."""
        query = query.heaviest(self.config.max_query_pins)
        room, total, steps, unknown = self._walk(query, seed, bias)
        visits = Visits(
            room.pins[:total].copy(), self._scores(room, total, len(query) - unknown > 1), steps, unknown
        )
        self._rooms.append(room)
        return visits

    def _walk(self, query: Query, seed: int, bias: Bias | None) -> tuple[Room, int, int, int]:
        """(room that holds the visits, how many, steps walked, query pins left out). The caller gives the
        room back.
        """
        config = self.config
        found = self.graph.index_of(query.pin_ids)
        degrees = np.zeros(len(found), np.int64)
        degrees[found >= 0] = self.graph.degrees(found[found >= 0])
        usable = degrees > 0
        unknown = int(len(usable) - usable.sum())
        room = self._room()
        steps = allocate_steps(
            config.steps,
            query.weights[usable],
            degrees[usable],
            self._max_degree,
            by_degree=config.steps_by_degree,
        )
        taken = np.zeros(len(steps), np.int64)
        total = walk_query(
            self.graph.rows,
            self.graph.extra,
            not self.graph.has_extra and (bias is None or not self.graph.labelled),
            self._preference(bias),
            found[usable],
            steps,
            streams(query.pin_ids[usable], seed),
            config.restart,
            config.stop_pins,
            config.stop_visits,
            config.walkers,
            room,
            np.zeros(len(steps), np.int64),
            taken,
        )
        if len(steps) > 1:
            total = merge_visits(room, total, config.boost)
        return room, total, int(taken.sum()), unknown

    def _scores(self, room: Room, total: int, merged: bool) -> NDArray[np.float32]:
        scores = (room.sums if merged else room.counts)[:total].astype(np.float32)
        if self.config.popularity_discount:
            scores /= (self.graph.degrees(room.pins[:total]) ** self.config.popularity_discount).astype(
                np.float32
            )
        return scores

    def _room(self) -> Room:
        try:
            room = self._rooms.pop()
        except IndexError:  # every room is in use by another thread
            return self._new_room()
        fits = len(room.visits) == 0 or len(room.visits) >= self.graph.pins
        return room if fits else self._new_room()  # fresh pins have come

    def _new_room(self) -> Room:
        return Room.of(self.config.steps + self.config.max_query_pins, self.graph.pins + SPARE_PINS)

    def _preference(self, bias: Bias | None) -> tuple[np.int64, np.int64, np.uint64]:
        if bias is None:
            return np.int64(0), np.int64(0), np.uint64(0)
        chance = np.uint64(self.config.bias_strength * 2**32)
        return np.int64(bias.low), np.int64(bias.high), chance


def streams(pin_ids: Ids, seed: int) -> NDArray[np.uint64]:
    """Start of each query pin's random stream: it depends on the seed and the pin id alone."""
    key = np.uint64(seed & _MASK)
    with np.errstate(over="ignore"):
        return _mixed(_mixed(np.atleast_1d(key)) + pin_ids.astype(np.uint64) * np.uint64(0xD1342543DE82EF95))


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _among_largest(scores, k):
    """Places that hold the k largest of scores >= 0, and some more: all those whose upper 16 bits reach the
    k-th's.

    Most scores are ties of one or two visits, on which a partition degenerates; a histogram of the upper bits
    of the floats, which order as they do, does not.
    """
    bits = scores.view(np.uint32)
    buckets = np.zeros(1 << 15, np.int32)
    for i in range(len(bits)):
        buckets[bits[i] >> np.uint32(16)] += 1
    bucket = len(buckets) - 1
    found = buckets[bucket]
    while found < k:
        bucket -= 1
        found += buckets[bucket]
    places = np.empty(found, np.int64)
    taken = 0
    for i in range(len(bits)):
        if bits[i] >> np.uint32(16) >= np.uint32(bucket):
            places[taken] = i
            taken += 1
    return places
