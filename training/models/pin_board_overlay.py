"""Fresh pins and saves between two builds of the graph: what was saved a second ago can be walked to.

`FreshSaves` collects saves; its `view` is an immutable `GraphView` that walks take in a graph's place: the
mapped base plus a small CSR of the new edges, found by one bit a node. New pins and boards are numbered after
the base's. When a new base has been built, `rebased` carries over what it has not seen.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from training.models.pin_board_graph import (
    Extra,
    GraphError,
    GraphInfo,
    Ids,
    Indexes,
    Labels,
    PinBoardGraph,
    Rows,
    frozen,
)


class OverlayFull(RuntimeError):
    """More fresh saves than an overlay may hold: the graph must be built anew."""


@dataclass(frozen=True, eq=False)
class GraphView:
    """A base graph and the saves since it was built. Takes a `PinBoardGraph`'s place wherever one is read."""

    base: PinBoardGraph
    extra: Extra
    new_pin_ids: Ids  # index base.pins + i
    new_board_ids: Ids

    @property
    def rows(self) -> Rows:
        return self.base.rows

    @property
    def info(self) -> GraphInfo:
        return self.base.info

    @property
    def labelled(self) -> bool:
        return self.base.labelled

    @property
    def has_extra(self) -> bool:
        return len(self.extra.pin_boards) > 0

    @property
    def pins(self) -> int:
        return self.base.pins + len(self.new_pin_ids)

    @property
    def boards(self) -> int:
        return self.base.boards + len(self.new_board_ids)

    @property
    def edges(self) -> int:
        return self.base.edges + len(self.extra.pin_boards)

    @property
    def max_pin_degree(self) -> int:
        """Of the base: fresh saves move the logarithm that uses it by nothing that matters."""
        return self.base.max_pin_degree

    def index_of(self, pin_ids: Iterable[int] | Ids) -> Indexes:
        """Index of each pin, (n,) int32; -1 for an unknown one."""
        ids = np.asarray(pin_ids if isinstance(pin_ids, np.ndarray) else list(pin_ids), np.int64)
        return _or_new(self.base.index_of(ids), self.new_pin_ids, self.base.pins, ids)

    def board_index_of(self, board_ids: Iterable[int] | Ids) -> Indexes:
        """Index of each board, (n,) int32; -1 for an unknown one."""
        ids = np.asarray(board_ids if isinstance(board_ids, np.ndarray) else list(board_ids), np.int64)
        return _or_new(self.base.board_index_of(ids), self.new_board_ids, self.base.boards, ids)

    def ids_of(self, indexes: Indexes) -> Ids:
        """Pin ids of valid indexes."""
        at = np.asarray(indexes, np.int64)
        fresh = at >= self.base.pins
        if not fresh.any():
            return self.base.pin_ids[at]
        ids = np.empty(len(at), np.int64)
        ids[~fresh] = self.base.pin_ids[at[~fresh]]
        ids[fresh] = self.new_pin_ids[at[fresh] - self.base.pins]
        return ids

    def degrees(self, indexes: Indexes | None = None) -> NDArray[np.int64]:
        """Boards of each pin, fresh ones included, (n,) int64; of all pins where `indexes` is None."""
        at = np.arange(self.pins) if indexes is None else np.asarray(indexes, np.int64)
        degrees = np.zeros(len(at), np.int64)
        old = at < self.base.pins
        degrees[old] = self.base.degrees(at[old])
        x = self.extra
        return degrees + _extra_degrees(x.pin_bits, x.pin_rank, x.pin_offsets, at)

    def boards_of(self, pin: int) -> Indexes:
        """Board indexes of the pin with index `pin`, the base's first."""
        x = self.extra
        more = _extra_row(x.pin_bits, x.pin_rank, x.pin_offsets, x.pin_boards, pin)
        return np.concatenate([self.base.boards_of(pin), more]) if pin < self.base.pins else more

    def pins_of(self, board: int) -> Indexes:
        """Pin indexes of the board with index `board`, the base's first."""
        x = self.extra
        more = _extra_row(x.board_bits, x.board_rank, x.board_offsets, x.board_pins, board)
        return np.concatenate([self.base.pins_of(board), more]) if board < self.base.boards else more


class FreshSaves:
    """Saves since `base` was built. Threads may add and view at once; adding costs nothing until the next
    view.
    """

    def __init__(self, base: PinBoardGraph, *, max_saves: int = 1_000_000) -> None:
        self.base = base
        self.max_saves = max_saves
        self._lock = threading.Lock()
        self._pins: dict[int, int] = {}  # new pin id -> index
        self._boards: dict[int, int] = {}
        self._pin_labels: list[int] = []
        self._board_labels: list[int] = []
        self._saves: list[tuple[Ids, Ids, Ids]] = []  # pin ids, board ids, times in ms
        self._count = 0
        self._view: GraphView | None = None

    def __len__(self) -> int:
        return self._count

    def add(
        self,
        pin_ids: Ids,
        board_ids: Ids,
        times_ms: Ids,
        *,
        pin_labels: Labels | None = None,
        board_labels: Labels | None = None,
    ) -> None:
        """Take in saves, (n,) each; repeated saves and those the base holds change nothing.

        Labels are used for pins and boards new to the graph (0, unknown, where not given). Raises GraphError
        for ids <= 0 or unequal lengths, and OverlayFull beyond `max_saves`; then nothing is taken in.
        """
        pins, boards, times = (np.array(a, np.int64, ndmin=1) for a in (pin_ids, board_ids, times_ms))
        if not len(pins) == len(boards) == len(times):
            raise GraphError(
                f"{len(pins)} pins, {len(boards)} boards, {len(times)} times: a save has one of each"
            )
        if len(pins) and min(pins.min(), boards.min()) <= 0:
            raise GraphError("a fresh save has a pin or board id below 1 (0 is padding)")
        with self._lock:
            if self._count + len(pins) > self.max_saves:
                raise OverlayFull(f"{self._count} fresh saves, at most {self.max_saves}: build the graph anew")
            _number(self.base.index_of(pins), pins, pin_labels, self._pins, self._pin_labels, self.base.pins)
            _number(
                self.base.board_index_of(boards),
                boards,
                board_labels,
                self._boards,
                self._board_labels,
                self.base.boards,
            )
            self._saves.append((pins, boards, times))
            self._count += len(pins)
            self._view = None

    def view(self) -> GraphView:
        """The graph with every save added so far. O(fresh saves) after an addition, else the same object
        again.
        """
        with self._lock:
            if self._view is None:
                self._view = self._build()
            return self._view

    def rebased(self, base: PinBoardGraph, *, after_ms: int | None = None) -> FreshSaves:
        """The saves at or after `after_ms` (default: the new base's `as_of_ms`, else all), over a new base.

        The time bound keeps a save that the new build saw and pruned from coming back.
        """
        since = base.info.as_of_ms if after_ms is None else after_ms
        fresh = FreshSaves(base, max_saves=self.max_saves)
        with self._lock:
            for pins, boards, times in self._saves:
                kept = slice(None) if since is None else times >= since
                pin_labels = self._labels(
                    pins[kept], self.base.index_of, self.base.pin_labels, self._pins, True
                )
                board_labels = self._labels(
                    boards[kept], self.base.board_index_of, self.base.board_labels, self._boards, False
                )
                fresh.add(
                    pins[kept], boards[kept], times[kept], pin_labels=pin_labels, board_labels=board_labels
                )
        return fresh

    def _labels(self, ids, index_of, base_labels, new, pins: bool) -> Labels:
        own = self._pin_labels if pins else self._board_labels
        nodes = self.base.pins if pins else self.base.boards
        found = index_of(ids)
        labels = np.zeros(len(ids), np.uint16)
        if len(base_labels):
            labels[found >= 0] = base_labels[found[found >= 0]]
        for i in np.flatnonzero(found < 0):
            labels[i] = own[new[int(ids[i])] - nodes]
        return labels

    def _build(self) -> GraphView:
        base = self.base
        new_pins = frozen(np.fromiter(self._pins, np.int64, len(self._pins)))
        new_boards = frozen(np.fromiter(self._boards, np.int64, len(self._boards)))
        empty = np.empty(0, np.int64)
        pin_ids = np.concatenate([s[0] for s in self._saves] or [empty])
        board_ids = np.concatenate([s[1] for s in self._saves] or [empty])
        pins = _or_new(base.index_of(pin_ids), new_pins, base.pins, pin_ids)
        boards = _or_new(base.board_index_of(board_ids), new_boards, base.boards, board_ids)
        key = np.unique((pins.astype(np.int64) << 32) | boards)
        pins, boards = (key >> 32).astype(np.int32), (key & 0xFFFFFFFF).astype(np.int32)
        fresh = ~_known(base.rows, pins, boards)
        pins, boards = pins[fresh], boards[fresh]
        pin_labels = board_labels = None
        if base.labelled:
            pin_labels = np.concatenate([base.pin_labels, np.array(self._pin_labels, np.uint16)])
            board_labels = np.concatenate([base.board_labels, np.array(self._board_labels, np.uint16)])
        extra = Extra(
            *_side(pins, boards, board_labels, base.pins + len(new_pins)),
            *_side(boards, pins, pin_labels, base.boards + len(new_boards)),
        )
        return GraphView(base, extra, new_pins, new_boards)


def _number(
    found: Indexes, ids: Ids, labels: Labels | None, new: dict[int, int], own: list[int], first: int
) -> None:
    """Number the ids that the base does not know, in order of arrival."""
    for i in np.flatnonzero(found < 0):
        node = int(ids[i])
        if node not in new:
            new[node] = first + len(new)
            own.append(0 if labels is None else int(labels[i]))


def _or_new(found: Indexes, new_ids: Ids, first: int, ids: Ids) -> Indexes:
    """`found`, its -1 replaced by the index of a new node where `ids` names one."""
    if not len(new_ids) or not (found < 0).any():
        return found
    order = np.argsort(new_ids, kind="stable")
    place = np.minimum(np.searchsorted(new_ids, ids, sorter=order), len(new_ids) - 1)
    candidate = order[place]
    return np.where((found < 0) & (new_ids[candidate] == ids), first + candidate, found).astype(np.int32)


def _side(
    nodes: Indexes, ends: Indexes, end_labels: Labels | None, count: int
) -> tuple[NDArray[np.generic], ...]:
    """(bits, rank, offsets, ends, labels) of the rows of the nodes that have fresh edges."""
    labels = np.empty(0, np.uint16) if end_labels is None else end_labels[ends]
    order = np.lexsort((ends, nodes)) if end_labels is None else np.lexsort((ends, labels, nodes))
    marked, starts = np.unique(nodes[order], return_index=True)
    words = (count + 63) // 64
    bits = np.zeros(words, np.uint64)
    np.bitwise_or.at(bits, marked >> 6, np.uint64(1) << (marked & 63).astype(np.uint64))
    in_word = np.bincount(marked >> 6, minlength=words)
    rank = (np.cumsum(in_word) - in_word).astype(np.int32)
    offsets = np.append(starts, len(nodes)).astype(np.int64)
    return (
        frozen(bits),
        frozen(rank),
        frozen(offsets),
        frozen(ends[order].astype(np.int32)),
        frozen(labels if end_labels is None else labels[order]),
    )


def _ranks(
    bits: NDArray[np.uint64], rank: Indexes, nodes: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], Indexes]:
    """(has fresh edges, its row) of each node."""
    if not len(bits):
        return np.zeros(len(nodes), bool), np.zeros(len(nodes), np.int32)
    word = bits[nodes >> 6]
    mark = np.uint64(1) << (nodes & 63).astype(np.uint64)
    return (word & mark) != 0, (rank[nodes >> 6] + np.bitwise_count(word & (mark - np.uint64(1)))).astype(
        np.int32
    )


def _extra_degrees(
    bits: NDArray[np.uint64], rank: Indexes, offsets: NDArray[np.int64], nodes: NDArray[np.int64]
) -> NDArray[np.int64]:
    marked, row = _ranks(bits, rank, nodes)
    degrees = np.zeros(len(nodes), np.int64)
    degrees[marked] = offsets[row[marked] + 1] - offsets[row[marked]]
    return degrees


def _extra_row(
    bits: NDArray[np.uint64], rank: Indexes, offsets: NDArray[np.int64], ends: Indexes, node: int
) -> Indexes:
    marked, row = _ranks(bits, rank, np.array([node], np.int64))
    return ends[offsets[row[0]] : offsets[row[0] + 1]] if marked[0] else ends[:0]


@numba.njit(cache=True, nogil=True)
def _known(rows, pins, boards):
    """True where the base has the edge; the shorter of its two rows is read."""
    known = np.zeros(len(pins), np.bool_)
    for i in range(len(pins)):
        p, b = pins[i], boards[i]
        if p >= len(rows.pin_offsets) - 1 or b >= len(rows.board_offsets) - 1:
            continue
        start, stop = rows.pin_offsets[p], rows.pin_offsets[p + 1]
        first, last = rows.board_offsets[b], rows.board_offsets[b + 1]
        if stop - start <= last - first:
            for k in range(start, stop):
                known[i] |= rows.pin_boards[k] == b
        else:
            for k in range(first, last):
                known[i] |= rows.board_pins[k] == p
    return known
