"""Importance neighbourhoods for PinSage: the pins that short walks from a pin meet most (KDD 2018, section
3.2).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from training.models.pin_board_graph import GraphError, PinBoardGraph
from training.models.pin_board_overlay import GraphView
from training.models.pixie.engine import neighbour_rows, slots_for
from training.models.pixie.recommend import streams


def importance_neighbours(
    graph: PinBoardGraph | GraphView,
    seeds: NDArray[np.integer],
    *,
    walks: int = 200,
    hops: int = 2,
    top: int = 50,
    seed: int = 0,
    threads: int = 1,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The `top` pins most visited by `walks` walks of `hops` pin -> board -> pin steps from each of `seeds`.

    `seeds` are pin indexes (`graph.index_of`). Returns indexes (n, top) int32, padded by -1, most visited
    first (ties: first met), and their visits divided by the row's sum (n, top) float32, padded by 0. The pin
    itself is no neighbour of its own. A pin without edges, or alone on its boards, has a row of padding. A
    row depends on the pin, `seed` and the graph alone, not on the other seeds or on `threads`. Raises
    GraphError for an index outside the graph.
    """
    if min(walks, hops, top) < 1:
        raise ValueError(f"walks ({walks}), hops ({hops}) and top ({top}) must be at least 1")
    pins = np.ascontiguousarray(seeds, np.int32)
    if pins.size and (pins.min() < 0 or pins.max() >= graph.pins):
        wrong = pins[(pins < 0) | (pins >= graph.pins)][0]
        raise GraphError(f"seed index {wrong} is outside the graph of {graph.pins} pins")
    ids = np.full((len(pins), top), -1, np.int32)
    weights = np.zeros((len(pins), top), np.float32)
    degrees = graph.degrees(pins)
    states = streams(graph.ids_of(pins), seed)
    rows, extra, plain = graph.rows, graph.extra, not graph.has_extra

    def part(start: int, stop: int) -> None:
        neighbour_rows(
            rows,
            extra,
            plain,
            pins[start:stop],
            degrees[start:stop],
            states[start:stop],
            walks,
            hops,
            np.zeros(slots_for(walks * hops), np.int64),
            ids[start:stop],
            weights[start:stop],
        )

    if threads <= 1 or len(pins) < 2 * threads:
        part(0, len(pins))
        return ids, weights
    bounds = np.linspace(0, len(pins), threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, bounds[:-1], bounds[1:]))
    return ids, weights
