"""A base graph plus fresh saves is the graph that a build from all of them would make."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.models.graphs import random_edges, random_graph
from training.models.pin_board_graph import GraphError, GraphInfo, from_edges, label
from training.models.pin_board_overlay import FreshSaves, GraphView, OverlayFull

EDGES = st.lists(st.tuples(st.integers(1, 150), st.integers(1, 80)), max_size=80)


def boards_by_pin(view: GraphView) -> dict[int, list[int]]:
    boards = np.concatenate([view.base.board_ids, view.new_board_ids])
    return {
        int(view.ids_of(np.array([p]))[0]): sorted(boards[view.boards_of(p)].tolist())
        for p in range(view.pins)
        if len(view.boards_of(p))
    }


def add(fresh: FreshSaves, edges: list[tuple[int, int]], time_ms: int = 0) -> None:
    pins, boards = np.array([e[0] for e in edges], np.int64), np.array([e[1] for e in edges], np.int64)
    fresh.add(pins, boards, np.full(len(edges), time_ms))


@settings(max_examples=60, deadline=None)
@given(EDGES, EDGES, EDGES)
def test_a_view_is_the_graph_of_all_edges(
    old: list[tuple[int, int]], first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    base = from_edges(np.array([e[0] for e in old], np.int64), np.array([e[1] for e in old], np.int64))
    fresh = FreshSaves(base)
    add(fresh, first)
    before = fresh.view()
    indexes = before.index_of(before.ids_of(np.arange(before.pins)))
    add(fresh, second)
    view = fresh.view()
    every = set(old) | set(first) | set(second)
    expected: dict[int, list[int]] = {}
    for pin, board in sorted(every):
        expected.setdefault(pin, []).append(board)
    assert boards_by_pin(view) == expected
    assert view.edges == len(every)
    assert indexes.tolist() == list(range(before.pins))  # what has an index keeps it
    for pin, boards in expected.items():
        at = view.index_of([pin])
        assert view.degrees(at).tolist() == [len(boards)]
    for board in {b for _, b in every}:
        row = view.pins_of(int(view.board_index_of([board])[0]))
        assert sorted(view.ids_of(row).tolist()) == sorted(p for p, b in every if b == board)


def test_nothing_new_is_nothing_extra() -> None:
    graph = random_graph()
    fresh = FreshSaves(graph)
    assert not fresh.view().has_extra
    pin = int(graph.pin_ids[0])
    add(fresh, [(pin, int(graph.board_ids[graph.boards_of(0)[0]]))])
    assert not fresh.view().has_extra
    assert fresh.view() is fresh.view()


def test_fresh_rows_are_sorted_by_label() -> None:
    pins, boards = random_edges(2)
    pin_ids = np.unique(pins)
    labels = label(np.arange(len(pin_ids)) % 5)
    fresh = FreshSaves(from_edges(pins, boards, pin_ids=pin_ids, pin_labels=labels))
    board = int(boards[0])
    new = np.array([5001, 5002, 5003, *pin_ids[:20]])
    fresh.add(new, np.full(len(new), board), np.zeros(len(new)), pin_labels=label(np.arange(len(new)) % 4))
    x = fresh.view().extra
    assert len(x.board_edge_labels) == len(x.board_pins)
    assert x.board_edge_labels.tolist() == sorted(x.board_edge_labels.tolist())


def test_a_new_base_takes_over_what_it_has_seen() -> None:
    old = from_edges(np.array([1, 2]), np.array([1, 1]))
    fresh = FreshSaves(old)
    add(fresh, [(3, 1)], time_ms=100)
    add(fresh, [(4, 9)], time_ms=200)
    new = from_edges(np.array([1, 2]), np.array([1, 1]), info=GraphInfo(as_of_ms=150))
    moved = fresh.rebased(new)
    assert boards_by_pin(moved.view()) == {
        1: [1],
        2: [1],
        4: [9],
    }  # (3, 1) was seen, and pruned, by the new base
    assert boards_by_pin(fresh.rebased(new, after_ms=0).view()) == {1: [1], 2: [1], 3: [1], 4: [9]}


def test_labels_survive_a_new_base() -> None:
    old = from_edges(np.array([1, 2]), np.array([1, 1]), pin_labels=label(np.array([1, 2])))
    fresh = FreshSaves(old)
    fresh.add(np.array([3]), np.array([1]), np.array([5]), pin_labels=label(np.array([7])))
    moved = fresh.rebased(from_edges(np.array([1]), np.array([1]), pin_labels=label(np.array([1]))))
    assert moved.view().extra.board_edge_labels.tolist() == label(np.array([7])).tolist()


def test_bad_saves_change_nothing() -> None:
    fresh = FreshSaves(random_graph(), max_saves=2)
    with pytest.raises(GraphError, match="below 1"):
        add(fresh, [(0, 1)])
    with pytest.raises(GraphError, match="one of each"):
        fresh.add(np.array([1, 2]), np.array([1]), np.array([0]))
    with pytest.raises(OverlayFull, match="build the graph anew"):
        add(fresh, [(1, 1), (2, 2), (3, 3)])
    assert len(fresh) == 0
    assert not fresh.view().has_extra


def test_threads_may_add_and_view_at_once() -> None:
    fresh = FreshSaves(from_edges(np.array([1]), np.array([1])))

    def work(worker: int) -> None:
        for i in range(50):
            add(fresh, [(100 + 50 * worker + i, 1 + i % 7)])
            fresh.view()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert fresh.view().edges == 201
