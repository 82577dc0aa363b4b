"""The pin-board graph: who saved what where, as CSR arrays that a walk can run on.

    pin p -> boards   pin_boards[pin_offsets[p] : pin_offsets[p + 1]]
    board b -> pins   board_pins[board_offsets[b] : board_offsets[b + 1]]

Pins and boards are numbered from 0, nodes of high degree first: a walk meets them most, and so they share
cache lines. Where a data set has no boards, a declared context (basket, session, user) stands in their place.

A graph may carry labels (language and topic) on its nodes. Each row is then sorted by the label of what it
points at, so that "boards of this language" is one contiguous range, as in Pixie's biased walk
(WWW 2018, arXiv 1711.07601, section 3.1). Arrays are read-only; a graph never changes once it is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from training.models.pin_board_artifact import (
    MANIFEST,
    GraphError,
    GraphInfo,
    check_artifact,
    digest_of,
    frozen,
    read_artifact,
    write_artifact,
)

Ids = NDArray[np.int64]
Indexes = NDArray[np.int32]
Labels = NDArray[np.uint16]

TOPICS_PER_LANGUAGE = 256
NO_PIN = -1
"""The index of a pin (or board) that the graph does not know."""


class Rows(NamedTuple):
    """The arrays a walk reads, as kernels take them. Labels are empty where the graph has none."""

    pin_offsets: NDArray[np.integer]  # (pins + 1,) int32, or int64 from 2^31 edges on
    pin_boards: Indexes  # (edges,)
    pin_edge_labels: Labels  # (edges,) label of the board
    board_offsets: NDArray[np.integer]  # (boards + 1,)
    board_pins: Indexes  # (edges,)
    board_edge_labels: Labels  # (edges,) label of the pin


class Extra(NamedTuple):
    """Edges beside `Rows` that came after it was built. `bits` marks the nodes that have some.

    The row of a marked node is its rank among the marked: `rank[node >> 6]` plus the marks before it in its
    word.
    """

    pin_bits: NDArray[np.uint64]
    pin_rank: Indexes
    pin_offsets: NDArray[np.int64]
    pin_boards: Indexes
    pin_edge_labels: Labels
    board_bits: NDArray[np.uint64]
    board_rank: Indexes
    board_offsets: NDArray[np.int64]
    board_pins: Indexes
    board_edge_labels: Labels


def _empty(dtype: type[np.generic]) -> NDArray[np.generic]:
    return frozen(np.empty(0, dtype))


def _settled(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """A copy in memory that numpy asks huge pages for, which kernels' own arrays lack: walks are 1.4x faster
    on it.
    """
    return frozen(np.array(array))


def _no_extra() -> Extra:
    side = (
        _empty(np.uint64),
        _empty(np.int32),
        frozen(np.zeros(1, np.int64)),
        _empty(np.int32),
        _empty(np.uint16),
    )
    return Extra(*side, *side)


NO_EXTRA = _no_extra()
"""Nothing beside the rows."""


def label(language: int | NDArray[np.integer] = 0, topic: int | NDArray[np.integer] = 0) -> Labels:
    """Label of a node from its language and topic codes (each 0..255, 0 unknown)."""
    return (np.asarray(language) * TOPICS_PER_LANGUAGE + np.asarray(topic)).astype(np.uint16)


@dataclass(frozen=True, eq=False)
class PinBoardGraph:
    """An immutable bipartite graph. Build it by `from_edges`, or `load` it; index of a pin = row of
    `pin_ids`.
    """

    pin_ids: Ids  # (pins,)
    board_ids: Ids  # (boards,)
    rows: Rows
    pin_labels: Labels  # (pins,) or (0,) without labels
    board_labels: Labels
    pin_order: Indexes  # argsort of pin_ids
    board_order: Indexes
    info: GraphInfo

    @property
    def pins(self) -> int:
        return len(self.pin_ids)

    @property
    def boards(self) -> int:
        return len(self.board_ids)

    @property
    def edges(self) -> int:
        return len(self.rows.pin_boards)

    @property
    def labelled(self) -> bool:
        """True where rows are sorted by label, so that a walk can be biased."""
        return len(self.pin_labels) > 0 or len(self.board_labels) > 0

    @property
    def extra(self) -> Extra:
        return NO_EXTRA

    @property
    def has_extra(self) -> bool:
        return False

    @property
    def nbytes(self) -> int:
        """Bytes of every array."""
        return sum(a.nbytes for a in self.arrays().values())

    @property
    def max_pin_degree(self) -> int:
        return int(np.diff(self.rows.pin_offsets).max(initial=0))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Every array by its name in the artifact."""
        own = ("pin_ids", "board_ids", "pin_labels", "board_labels", "pin_order", "board_order")
        return {name: getattr(self, name) for name in own} | self.rows._asdict()

    def index_of(self, pin_ids: Iterable[int] | Ids) -> Indexes:
        """Index of each pin, (n,) int32; NO_PIN (-1) for one that the graph does not know."""
        return _find(self.pin_ids, self.pin_order, pin_ids)

    def board_index_of(self, board_ids: Iterable[int] | Ids) -> Indexes:
        """Index of each board, (n,) int32; -1 for an unknown one."""
        return _find(self.board_ids, self.board_order, board_ids)

    def ids_of(self, indexes: Indexes) -> Ids:
        """Pin ids of valid indexes."""
        return self.pin_ids[indexes]

    def degrees(self, indexes: Indexes | None = None) -> NDArray[np.int64]:
        """Boards of each pin, (n,) int64; of all pins where `indexes` is None."""
        offsets = self.rows.pin_offsets
        if indexes is None:
            return np.diff(offsets).astype(np.int64)
        at = np.asarray(indexes, np.int64)
        return (offsets[at + 1] - offsets[at]).astype(np.int64)

    def boards_of(self, pin: int) -> Indexes:
        """Board indexes of the pin with index `pin`."""
        return self.rows.pin_boards[self.rows.pin_offsets[pin] : self.rows.pin_offsets[pin + 1]]

    def pins_of(self, board: int) -> Indexes:
        """Pin indexes of the board with index `board`."""
        return self.rows.board_pins[self.rows.board_offsets[board] : self.rows.board_offsets[board + 1]]

    def edge_list(self) -> tuple[Indexes, Indexes]:
        """Every edge once, as (pin index, board index), in row order."""
        pins = np.repeat(np.arange(self.pins, dtype=np.int32), self.degrees())
        return pins, np.asarray(self.rows.pin_boards)

    def save(self, path: Path) -> str:
        """Write the artifact folder `path`; returns its digest. Raises GraphError where `path` exists."""
        counts = {"pins": self.pins, "boards": self.boards, "edges": self.edges}
        return write_artifact(path, self.arrays(), self.info, counts)

    def digest(self) -> str:
        """16 hex digits over every array: the same edges, labels and order give the same digest."""
        return digest_of(self.arrays())

    @classmethod
    def load(cls, path: Path, *, resident: bool = False, check: bool = True) -> PinBoardGraph:
        """Map the artifact at `path` read-only; several processes then share its pages.

        `resident` copies it into memory of this process instead, which the kernel may back with huge pages
        (a walk is bound by such reads). `check` reads every edge once: kernels have no bounds checks, so
        a damaged file must be found here. Raises GraphError naming the file that is wrong.
        """
        arrays, info, counts = read_artifact(path, resident=resident)
        rows = Rows(*(arrays.pop(name) for name in Rows._fields))
        graph = cls(rows=rows, info=info, **arrays)
        if (graph.pins, graph.boards, graph.edges) != tuple(counts[k] for k in ("pins", "boards", "edges")):
            raise GraphError(f"{path}: arrays and {MANIFEST} disagree on the number of pins, boards or edges")
        if check:
            check_artifact(path, graph.arrays())
        return graph


def from_edges(
    pins: Ids,
    boards: Ids,
    *,
    pin_ids: Ids | None = None,
    pin_labels: Labels | None = None,
    board_ids: Ids | None = None,
    board_labels: Labels | None = None,
    info: GraphInfo | None = None,
) -> PinBoardGraph:
    """Graph of the edges (`pins[i]`, `boards[i]`), given as ids (int64 > 0); repeated edges count once.

    `pin_ids` and `board_ids` (unique) name every node, those without edges too; None takes the nodes that have
    edges. Labels are aligned with them. Raises GraphError for ids <= 0, ids outside the named, repeated
    names or labels of another length. Memory: about 40 bytes an edge at the peak.
    """
    if len(pins) != len(boards):
        raise GraphError(f"{len(pins)} pins and {len(boards)} boards: edges come in pairs")
    names = []
    codes = []
    for what, ends, known in (("pin", pins, pin_ids), ("board", boards, board_ids)):
        ends = np.asarray(ends, np.int64)
        ids = np.unique(ends) if known is None else np.asarray(known, np.int64)
        if ids.size and ids.min() <= 0:
            raise GraphError(f"{what} ids start at 1 (0 is padding), found {ids.min()}")
        order = np.argsort(ids, kind="stable").astype(np.int32)
        if ids.size > 1 and (np.diff(ids[order]) == 0).any():
            raise GraphError(f"{what} ids are named twice")
        found = _find(ids, order, ends)
        if (found < 0).any():
            raise GraphError(
                f"an edge points at {what} {ends[found < 0][0]}, which is not among the {what} ids"
            )
        names.append(ids)
        codes.append(found)
    for what, ids, labels in (("pin", names[0], pin_labels), ("board", names[1], board_labels)):
        if labels is not None and len(labels) != len(ids):
            raise GraphError(f"{len(labels)} {what} labels for {len(ids)} {what}s")
    return from_codes(codes[0], codes[1], names[0], names[1], pin_labels, board_labels, info)


def from_codes(
    pins: Indexes,
    boards: Indexes,
    pin_ids: Ids,
    board_ids: Ids,
    pin_labels: Labels | None = None,
    board_labels: Labels | None = None,
    info: GraphInfo | None = None,
) -> PinBoardGraph:
    """As `from_edges`, where edges already are (row of `pin_ids`, row of `board_ids`), int32. Nothing is
    checked.
    """
    labelled = pin_labels is not None or board_labels is not None
    if labelled:
        pin_labels = np.zeros(len(pin_ids), np.uint16) if pin_labels is None else pin_labels
        board_labels = np.zeros(len(board_ids), np.uint16) if board_labels is None else board_labels
    else:
        pin_labels = board_labels = np.empty(0, np.uint16)
    pin_rank, pin_first = _hubs_first(pins, len(pin_ids))
    board_rank, board_first = _hubs_first(boards, len(board_ids))
    pin_ids, board_ids = pin_ids[pin_first], board_ids[board_first]
    if labelled:
        pin_labels, board_labels = pin_labels[pin_first], board_labels[board_first]
    offset_type = np.int32 if len(pins) < 2**31 - 64 else np.int64
    offsets, near = _csr(pins, boards, pin_rank, board_rank, len(pin_ids), offset_type)
    pin_offsets, pin_boards = _sorted_rows(offsets, near, board_labels, offset_type)
    board_offsets, far = _transposed(pin_offsets, pin_boards, len(board_ids), offset_type)
    board_offsets, board_pins = _sorted_rows(board_offsets, far, pin_labels, offset_type)
    rows = Rows(
        _settled(pin_offsets),
        _settled(pin_boards),
        frozen(board_labels[pin_boards] if labelled else board_labels),
        _settled(board_offsets),
        _settled(board_pins),
        frozen(pin_labels[board_pins] if labelled else pin_labels),
    )
    return PinBoardGraph(
        frozen(pin_ids.astype(np.int64)),
        frozen(board_ids.astype(np.int64)),
        rows,
        frozen(pin_labels.astype(np.uint16)),
        frozen(board_labels.astype(np.uint16)),
        frozen(np.argsort(pin_ids, kind="stable").astype(np.int32)),
        frozen(np.argsort(board_ids, kind="stable").astype(np.int32)),
        info or GraphInfo(),
    )


def _find(ids: Ids, order: Indexes, wanted: Iterable[int] | Ids) -> Indexes:
    """Row of each wanted id, -1 where absent; `order` sorts `ids`."""
    values = np.asarray(wanted if isinstance(wanted, np.ndarray) else list(wanted), np.int64)
    if not len(ids):
        return np.full(len(values), NO_PIN, np.int32)
    return _lookup(ids, order, np.ascontiguousarray(values))


@numba.njit(cache=True, nogil=True)
def _lookup(ids, order, wanted):  # binary search through `order`: no sorted copy of the ids is kept
    found = np.full(len(wanted), -1, np.int32)
    for i in range(len(wanted)):
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) >> 1
            if ids[order[middle]] < wanted[i]:
                low = middle + 1
            else:
                high = middle
        if low < len(order) and ids[order[low]] == wanted[i]:
            found[i] = order[low]
    return found


def _hubs_first(ends: Indexes, nodes: int) -> tuple[Indexes, Indexes]:
    """(new index of each node, node of each new index), by falling number of edges, stable."""
    first = np.argsort(-np.bincount(ends, minlength=nodes), kind="stable").astype(np.int32)
    rank = np.empty(nodes, np.int32)
    rank[first] = np.arange(nodes, dtype=np.int32)
    return rank, first


@numba.njit(cache=True, nogil=True)
def _csr(pins, boards, pin_rank, board_rank, pin_count, offset_type):
    """Counting sort of the edges by pin, nodes renumbered on the way: (offsets, boards)."""
    offsets = np.zeros(pin_count + 1, np.int64)
    for i in range(len(pins)):
        offsets[pin_rank[pins[i]] + 1] += 1
    for p in range(pin_count):
        offsets[p + 1] += offsets[p]
    fill = offsets[:-1].copy()
    near = np.empty(len(pins), np.int32)
    for i in range(len(pins)):
        p = pin_rank[pins[i]]
        near[fill[p]] = board_rank[boards[i]]
        fill[p] += 1
    return offsets, near


@numba.njit(cache=True, nogil=True)
def _sorted_rows(offsets, ends, labels, offset_type):
    """Rows sorted by (label, index) and each end kept once; `ends` is overwritten."""
    nodes = len(offsets) - 1
    kept = np.zeros(nodes + 1, offset_type)
    keys = np.empty(0, np.int64)
    out = 0
    for node in range(nodes):
        start, stop = offsets[node], offsets[node + 1]
        if stop - start > len(keys):
            keys = np.empty(2 * (stop - start), np.int64)
        row = keys[: stop - start]
        for i in range(stop - start):
            end = ends[start + i]
            row[i] = end if len(labels) == 0 else (np.int64(labels[end]) << 32) | end
        row.sort()
        last = np.int64(-1)
        for i in range(stop - start):
            if row[i] != last:
                last = row[i]
                ends[out] = np.int32(last & 0xFFFFFFFF)
                out += 1
        kept[node + 1] = out
    return kept, ends[:out].copy()


@numba.njit(cache=True, nogil=True)
def _transposed(offsets, ends, nodes, offset_type):
    back = np.zeros(nodes + 1, np.int64)
    for end in ends:
        back[end + 1] += 1
    for node in range(nodes):
        back[node + 1] += back[node]
    fill = back[:-1].copy()
    out = np.empty(len(ends), np.int32)
    for node in range(len(offsets) - 1):
        for i in range(offsets[node], offsets[node + 1]):
            end = ends[i]
            out[fill[end]] = node
            fill[end] += 1
    return back, out
