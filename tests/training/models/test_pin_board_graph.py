"""The graph against a dictionary of sets; its artifact against damage."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.models.graphs import random_edges, random_graph
from training.models.pin_board_graph import GraphError, GraphInfo, PinBoardGraph, from_edges, label


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 6)), max_size=60))
def test_rows_are_the_distinct_edges_both_ways(edges: list[tuple[int, int]]) -> None:
    pins = np.array([p for p, _ in edges], np.int64)
    boards = np.array([b for _, b in edges], np.int64)
    graph = from_edges(pins, boards)
    of_pin: dict[int, set[int]] = defaultdict(set)
    of_board: dict[int, set[int]] = defaultdict(set)
    for p, b in edges:
        of_pin[p].add(b)
        of_board[b].add(p)
    assert graph.edges == len(set(edges))
    for index, pin in enumerate(graph.pin_ids.tolist()):
        row = graph.board_ids[graph.boards_of(index)].tolist()
        assert sorted(row) == sorted(of_pin[pin])
        assert graph.degrees(np.array([index]))[0] == len(of_pin[pin])
    for index, board in enumerate(graph.board_ids.tolist()):
        assert sorted(graph.pin_ids[graph.pins_of(index)].tolist()) == sorted(of_board[board])


def test_ids_and_indexes_go_both_ways() -> None:
    graph = random_graph()
    assert graph.index_of(graph.pin_ids).tolist() == list(range(graph.pins))
    assert graph.board_index_of(graph.board_ids).tolist() == list(range(graph.boards))
    assert graph.index_of([0, -5, 10**15]).tolist() == [-1, -1, -1]


def test_nodes_of_many_edges_come_first() -> None:
    graph = from_edges(np.array([9, 9, 9, 2, 2, 5]), np.array([1, 2, 3, 1, 2, 1]))
    assert graph.pin_ids.tolist() == [9, 2, 5]
    assert graph.board_ids.tolist() == [1, 2, 3]


def test_named_pins_without_edges_are_nodes() -> None:
    graph = from_edges(np.array([3]), np.array([1]), pin_ids=np.array([1, 2, 3]))
    assert graph.pins == 3
    assert graph.degrees(graph.index_of([1, 2, 3])).tolist() == [0, 0, 1]


def test_rows_are_sorted_by_label() -> None:
    rng = np.random.default_rng(3)
    pins, boards = random_edges(3)
    pin_ids, board_ids = np.unique(pins), np.unique(boards)
    pin_labels = label(rng.integers(0, 3, len(pin_ids)), rng.integers(0, 4, len(pin_ids)))
    board_labels = label(rng.integers(0, 3, len(board_ids)))
    graph = from_edges(
        pins, boards, pin_ids=pin_ids, board_ids=board_ids, pin_labels=pin_labels, board_labels=board_labels
    )
    of_pin = dict(zip(pin_ids.tolist(), pin_labels.tolist(), strict=True))
    assert [of_pin[p] for p in graph.pin_ids.tolist()] == graph.pin_labels.tolist()
    for pin in range(graph.pins):
        labels = graph.board_labels[graph.boards_of(pin)].tolist()
        assert labels == sorted(labels)
    for board in range(graph.boards):
        labels = graph.pin_labels[graph.pins_of(board)].tolist()
        assert labels == sorted(labels)
    assert graph.rows.pin_edge_labels.tolist() == graph.board_labels[graph.rows.pin_boards].tolist()
    assert graph.rows.board_edge_labels.tolist() == graph.pin_labels[graph.rows.board_pins].tolist()


@pytest.mark.parametrize(
    ("pins", "boards", "named", "message"),
    [
        ([0], [1], None, "pin ids start at 1"),
        ([1], [-2], None, "board ids start at 1"),
        ([1, 2], [1], None, "edges come in pairs"),
        ([1], [1], [2, 3], "pin 1, which is not among"),
        ([2], [1], [2, 2], "named twice"),
    ],
)
def test_bad_edges_are_named(pins: list[int], boards: list[int], named: list[int] | None, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        from_edges(
            np.array(pins), np.array(boards), pin_ids=None if named is None else np.array(named, np.int64)
        )


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(GraphError, match="3 pin labels for 1 pins"):
        from_edges(np.array([1]), np.array([1]), pin_labels=np.zeros(3, np.uint16))


@pytest.mark.parametrize("resident", [False, True])
def test_the_artifact_comes_back_read_only(tmp_path: Path, resident: bool) -> None:
    pins, boards = random_edges(5)
    graph = from_edges(pins, boards, info=GraphInfo(context="basket", as_of_ms=17, notes=("a note",)))
    digest = graph.save(tmp_path / "graph")
    loaded = PinBoardGraph.load(tmp_path / "graph", resident=resident)
    assert loaded.info == graph.info
    assert digest == loaded.digest() == graph.digest()
    for name, array in graph.arrays().items():
        assert np.array_equal(loaded.arrays()[name], array), name
        assert not loaded.arrays()[name].flags.writeable


def test_an_artifact_is_never_rewritten(tmp_path: Path) -> None:
    graph = random_graph()
    graph.save(tmp_path / "graph")
    with pytest.raises(GraphError, match="never rewritten"):
        graph.save(tmp_path / "graph")
    assert [p.name for p in tmp_path.iterdir()] == ["graph"]


def test_damage_is_found_before_a_walk(tmp_path: Path) -> None:
    graph = random_graph()
    for name, array in (("pin_boards", graph.rows.pin_boards), ("pin_order", graph.pin_order)):
        folder = tmp_path / name
        graph.save(folder)
        wrong = np.array(array)
        wrong[3] = 10_000
        np.save(folder / f"{name}.npy", wrong)
        with pytest.raises(GraphError, match="damaged"):
            PinBoardGraph.load(folder)


def test_truncated_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="no graph artifact"):
        PinBoardGraph.load(tmp_path)
    graph = random_graph()
    graph.save(tmp_path / "a")
    (tmp_path / "a" / "board_pins.npy").unlink()
    with pytest.raises(GraphError, match=r"board_pins\.npy is missing"):
        PinBoardGraph.load(tmp_path / "a")
    graph.save(tmp_path / "b")
    offsets = tmp_path / "b" / "pin_offsets.npy"
    offsets.write_bytes(offsets.read_bytes()[:-8])
    with pytest.raises(GraphError, match=r"pin_offsets\.npy is missing or damaged"):
        PinBoardGraph.load(tmp_path / "b")
    graph.save(tmp_path / "c")
    manifest = json.loads((tmp_path / "c" / "graph.json").read_text())
    (tmp_path / "c" / "graph.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(GraphError, match="format 99"):
        PinBoardGraph.load(tmp_path / "c")
    (tmp_path / "c" / "graph.json").write_text(json.dumps(manifest | {"edges": 1}))
    with pytest.raises(GraphError, match="disagree"):
        PinBoardGraph.load(tmp_path / "c")


def test_a_graph_of_nothing(tmp_path: Path) -> None:
    none = np.empty(0, np.int64)
    graph = from_edges(none, none)
    assert (graph.pins, graph.boards, graph.edges, graph.max_pin_degree) == (0, 0, 0, 0)
    graph.save(tmp_path / "graph")
    assert PinBoardGraph.load(tmp_path / "graph").index_of([1]).tolist() == [-1]
