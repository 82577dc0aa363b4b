"""Importance neighbourhoods for PinSage: the pins that short walks from a pin meet most (KDD 2018, section
3.2).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numpy.typing import NDArray

from training.models.pin_board_graph import GraphError, PinBoardGraph
from training.models.pin_board_overlay import GraphView
from training.models.pixie.counter import COUNT, home_slot, shift_of, slots_for, visit
from training.models.pixie.recommend import streams
from training.models.pixie.walkers import to_boards, to_boards_any, to_pins, to_pins_any

WALKERS = 64
"""Walks of one seed in flight; the seed's own first reads are shared by them."""


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
        _neighbours(
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


@numba.njit(cache=True, nogil=True)
def _neighbours(rows, extra, plain, seeds, degrees, states, walks, hops, table, ids, weights):
    shift = shift_of(table)
    top = ids.shape[1]
    pin_offsets, pin_boards = rows.pin_offsets, rows.pin_boards
    board_offsets, board_pins = rows.board_offsets, rows.board_pins
    no_bias = (np.int64(0), np.int64(0), np.uint64(0))
    never = np.uint64(0)
    pins = np.empty(WALKERS, np.int32)
    at = np.empty(WALKERS, np.uint64)
    edges = np.empty(WALKERS, np.int64)
    low = np.empty(WALKERS, np.uint64)
    coins = np.empty(WALKERS, np.uint64)
    touched = np.empty(walks * hops + 1, np.int64)
    place = np.empty(walks * hops + 2, np.int32)
    for i in range(len(seeds)):
        if degrees[i] == 0:
            continue
        home = seeds[i]
        state = states[i]
        distinct = 0
        left = walks
        while left > 0:
            width = min(WALKERS, left)
            left -= width
            pins[:width] = home
            for _ in range(hops):
                if plain:
                    state = to_boards(pin_offsets, pin_boards, pins, width, home, never, at, low, state)
                    to_pins(pin_boards, board_offsets, board_pins, pin_offsets, pins, width, at, low)
                else:
                    state = to_boards_any(
                        rows, extra, no_bias, pins, width, home, never, edges, low, coins, state
                    )
                    to_pins_any(rows, extra, no_bias, pins, width, edges, low, coins)
                for w in range(width):
                    if pins[w] != home:
                        slot, count = visit(table, pins[w], home_slot(pins[w], shift))
                        touched[distinct] = slot
                        distinct += count == 1
        # Counting sort by falling count, first met first: place[c] is where the pins of count c start.
        place[:] = 0
        for k in range(distinct):
            place[table[touched[k]] & COUNT] += 1
        start = 0
        for count in range(walks * hops, 0, -1):
            start, place[count] = start + place[count], start
        total = 0.0
        for k in range(distinct):
            value = table[touched[k]]
            table[touched[k]] = 0
            count = value & COUNT
            rank = place[count]
            place[count] += 1
            if rank < top:
                ids[i, rank] = np.int32((value >> 32) - 1)
                weights[i, rank] = count
                total += count
        for rank in range(min(top, distinct)):
            weights[i, rank] /= total
