"""Pruning of the pin-board graph (Pixie, WWW 2018, section 3.2): mixed boards, then each pin's least like
boards.

The paper kept 20 % of its edges this way, at delta = 0.91, and its link prediction gained 58 % of F1.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.models.pin_board_graph import PinBoardGraph


def board_entropy(graph: PinBoardGraph, topics: sparse.csr_matrix) -> NDArray[np.float64]:
    """Entropy in nats of the topics of each board's pins, (boards,); 0 for a board without topics.

    `topics` has a row a pin of `graph`, rows summing to 1 (or 0: a pin without topics says nothing).
    """
    return _entropy(
        graph.rows.board_offsets,
        graph.rows.board_pins,
        topics.indptr,
        topics.indices,
        topics.data.astype(np.float64),
        topics.shape[1],
    )


def kept_edges(
    graph: PinBoardGraph,
    dropped: NDArray[np.bool_],
    content: NDArray[np.float32] | None,
    delta: float | None,
) -> NDArray[np.bool_]:
    """Which edges stay, (edges,) in row order: those of a pin's ceil(degree ** delta) most like boards not
    `dropped`.

    A board is the mean of its pins' unit vectors; likeness is the cosine. Ties, and pins without content (a
    zero row), keep the smaller boards. `delta` None, or no `content`, keeps every edge to a board that is not
    dropped.
    """
    kept = ~dropped[graph.rows.pin_boards]
    if delta is None or content is None:
        return kept
    rows = graph.rows
    units = content / np.maximum(np.linalg.norm(content, axis=1, keepdims=True), 1e-12)
    _keep_most_like(
        rows.pin_offsets,
        rows.pin_boards,
        rows.board_offsets,
        rows.board_pins,
        units.astype(np.float32),
        delta,
        kept,
    )
    return kept


@numba.njit(cache=True, nogil=True)
def most_frequent(offsets, ends, codes, limit):
    """Most frequent code > 0 among each row's ends, (rows,) int64; 0 where there is none, ties to the lower
    code.
    """
    best = np.zeros(len(offsets) - 1, np.int64)
    counts = np.zeros(limit, np.int64)
    for row in range(len(offsets) - 1):
        for i in range(offsets[row], offsets[row + 1]):
            counts[codes[ends[i]]] += 1
        counts[0] = 0
        for i in range(offsets[row], offsets[row + 1]):
            code = codes[ends[i]]
            if counts[code] > counts[best[row]] or (counts[code] == counts[best[row]] and 0 < code < best[row]):
                best[row] = code
        for i in range(offsets[row], offsets[row + 1]):
            counts[codes[ends[i]]] = 0
    return best


@numba.njit(cache=True, nogil=True)
def _entropy(offsets, pins, indptr, indices, shares, topics):
    entropy = np.zeros(len(offsets) - 1)
    weight = np.zeros(topics)
    for board in range(len(offsets) - 1):
        total = 0.0
        for i in range(offsets[board], offsets[board + 1]):
            for k in range(indptr[pins[i]], indptr[pins[i] + 1]):
                weight[indices[k]] += shares[k]
                total += shares[k]
        for i in range(offsets[board], offsets[board + 1]):
            for k in range(indptr[pins[i]], indptr[pins[i] + 1]):
                part = weight[indices[k]] / total
                if part > 0.0:
                    entropy[board] -= part * np.log(part)
                weight[indices[k]] = 0.0  # read once, and clean for the next board
    return entropy


@numba.njit(cache=True, nogil=True)
def _keep_most_like(pin_offsets, pin_boards, board_offsets, board_pins, units, delta, kept):
    boards, dim = len(board_offsets) - 1, units.shape[1]
    means = np.zeros((boards, dim), np.float32)
    for b in range(boards):
        for i in range(board_offsets[b], board_offsets[b + 1]):
            for j in range(dim):
                means[b, j] += units[board_pins[i], j]
        length = 0.0
        for j in range(dim):
            length += means[b, j] * means[b, j]
        if length > 0.0:
            for j in range(dim):
                means[b, j] /= np.sqrt(length)
    for p in range(len(pin_offsets) - 1):
        start, stop = pin_offsets[p], pin_offsets[p + 1]
        degree = 0
        for i in range(start, stop):
            degree += kept[i]
        quota = int(np.ceil(degree**delta - 1e-9))
        if quota >= degree:
            continue
        likeness = np.empty(degree, np.float32)
        places = np.empty(degree, np.int64)
        k = 0
        for i in range(stop - 1, start - 1, -1):  # boards are numbered large to small: small ones win ties
            if kept[i]:
                dot = np.float32(0.0)
                for j in range(dim):
                    dot += units[p, j] * means[pin_boards[i], j]
                likeness[k] = -dot
                places[k] = i
                k += 1
        order = np.argsort(likeness, kind="mergesort")
        for k in range(quota, degree):
            kept[places[order[k]]] = False
