"""Small pin-board graphs with known answers, and the exact visits that a walk estimates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.models.pin_board_graph import PinBoardGraph, from_edges
from training.models.pin_board_overlay import GraphView


def random_edges(seed: int, pins: int = 60, boards: int = 25, edges: int = 300) -> tuple[NDArray, NDArray]:
    """Edges with repeats, popular pins first, ids with gaps."""
    rng = np.random.default_rng(seed)
    return (
        7 * rng.integers(1, pins + 1, edges) * rng.integers(1, 4, edges) + 1,
        10 + 3 * rng.integers(1, boards + 1, edges),
    )


def random_graph(seed: int = 0, **sizes: int) -> PinBoardGraph:
    return from_edges(*random_edges(seed, **sizes))


def transition(graph: PinBoardGraph | GraphView) -> NDArray[np.float64]:
    """(pins, pins) chances of a uniform pin -> board -> pin step; zero rows for pins without edges."""
    to_board = np.zeros((graph.pins, graph.boards))
    for pin in range(graph.pins):
        to_board[pin, graph.boards_of(pin)] = 1.0
    to_pin = to_board.T.copy()
    for side in (to_board, to_pin):
        side /= np.maximum(side.sum(axis=1, keepdims=True), 1.0)
    return to_board @ to_pin


def exact_visits(
    graph: PinBoardGraph | GraphView, pin: int, restart: float, tolerance: float = 1e-12
) -> NDArray[np.float64]:
    """Share of visits of each pin of an endless walk from `pin`, by power iteration: personalised PageRank.

    Walks have geometric lengths of at least one step, and every step counts a visit.
    """
    step = transition(graph)
    at = np.zeros(graph.pins)
    at[pin] = 1.0
    visits = np.zeros(graph.pins)
    alive = 1.0
    while alive > tolerance:
        at = at @ step
        visits += alive * at
        alive *= 1.0 - restart
    return visits * restart


def naive_walk(
    graph: PinBoardGraph | GraphView, pin: int, steps: int, restart: float, seed: int
) -> NDArray[np.int64]:
    """The paper's algorithm 1 in plain Python: visits of each pin."""
    rng = np.random.default_rng(seed)
    visits = np.zeros(graph.pins, np.int64)
    at = pin
    for _ in range(steps):
        if rng.random() < restart:
            at = pin
        board = rng.choice(graph.boards_of(at))
        at = int(rng.choice(graph.pins_of(board)))
        visits[at] += 1
    return visits
