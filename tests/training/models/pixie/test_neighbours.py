"""Importance neighbourhoods against the exact expected visits of short walks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.models.graphs import random_graph, transition
from training.models.pin_board_graph import GraphError, from_edges
from training.models.pin_board_overlay import FreshSaves
from training.models.pixie import importance_neighbours


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_weights_are_the_expected_visits_of_short_walks(hops: int) -> None:
    graph = random_graph(1)
    seeds = np.array([0, 5, graph.pins - 1], np.int32)
    ids, weights = importance_neighbours(graph, seeds, walks=60_000, hops=hops, top=graph.pins, seed=3)
    step = transition(graph)
    for row, pin in enumerate(seeds):
        at = np.zeros(graph.pins)
        at[pin] = 1.0
        expected = np.zeros(graph.pins)
        for _ in range(hops):
            at = at @ step
            expected += at
        expected[pin] = 0.0  # a pin is no neighbour of its own
        expected /= expected.sum()
        found = np.zeros(graph.pins)
        known = ids[row] >= 0
        found[ids[row][known]] = weights[row][known]
        assert np.abs(found - expected).sum() / 2 < 0.02


def test_the_most_visited_come_first_and_sum_to_one() -> None:
    graph = random_graph(2)
    ids, weights = importance_neighbours(graph, np.arange(graph.pins), walks=100, hops=2, top=10)
    assert (ids.dtype, weights.dtype, ids.shape) == (np.int32, np.float32, (graph.pins, 10))
    assert (np.diff(weights, axis=1) <= 0).all()
    filled = (ids >= 0).any(axis=1)
    assert np.allclose(weights[filled].sum(axis=1), 1.0, atol=1e-6)
    assert (weights[ids < 0] == 0).all() and (weights[ids >= 0] > 0).all()
    for row, own in zip(ids, range(graph.pins), strict=True):
        known = row[row >= 0]
        assert own not in known
        assert len(set(known.tolist())) == len(known)


def test_keeping_fewer_keeps_the_best() -> None:
    graph = random_graph(3)
    seeds = np.arange(10)
    many, _ = importance_neighbours(graph, seeds, walks=500, hops=2, top=20, seed=5)
    few, _ = importance_neighbours(graph, seeds, walks=500, hops=2, top=4, seed=5)
    assert np.array_equal(few, many[:, :4])


def test_a_row_depends_on_its_pin_and_the_seed_alone() -> None:
    graph = random_graph(4)
    seeds = np.arange(graph.pins)
    ids, weights = importance_neighbours(graph, seeds, walks=70, top=5, seed=1)
    back = importance_neighbours(graph, seeds[::-1].copy(), walks=70, top=5, seed=1, threads=2)
    assert np.array_equal(back[0][::-1], ids)
    assert np.array_equal(back[1][::-1], weights)
    other, _ = importance_neighbours(graph, seeds, walks=70, top=5, seed=2)
    assert not np.array_equal(other, ids)


def test_wide_offsets_walk_the_same_way() -> None:
    """A graph of 2^31 edges and more has int64 offsets."""
    graph = random_graph(7)
    wide = graph.rows._replace(
        pin_offsets=graph.rows.pin_offsets.astype(np.int64),
        board_offsets=graph.rows.board_offsets.astype(np.int64),
    )
    for array in wide:
        array.flags.writeable = False
    narrow, _ = importance_neighbours(graph, np.arange(graph.pins), top=9)
    assert np.array_equal(
        importance_neighbours(replace(graph, rows=wide), np.arange(graph.pins), top=9)[0], narrow
    )


def test_pins_without_neighbours_have_rows_of_padding() -> None:
    graph = from_edges(np.array([1, 2, 3]), np.array([1, 1, 2]), pin_ids=np.array([1, 2, 3, 4]))
    ids, weights = importance_neighbours(graph, graph.index_of([3, 4, 1]), walks=10, top=3)
    assert ids[:2].tolist() == [[-1] * 3] * 2  # alone on its board; on no board
    assert weights[:2].sum() == 0
    assert ids[2].tolist() == [int(graph.index_of([2])[0]), -1, -1]
    assert weights[2].tolist() == [1.0, 0.0, 0.0]
    assert importance_neighbours(graph, np.empty(0, np.int32), top=3)[0].shape == (0, 3)


def test_fresh_pins_have_neighbours() -> None:
    base = random_graph(5)
    fresh = FreshSaves(base)
    fresh.add(np.array([90_000]), base.board_ids[:1], np.array([0]))
    view = fresh.view()
    ids, _ = importance_neighbours(view, view.index_of([90_000]), walks=400, hops=1, top=base.pins)
    assert set(ids[ids >= 0].tolist()) == set(base.pins_of(0).tolist())


def test_seeds_outside_the_graph_are_named() -> None:
    graph = random_graph(6)
    with pytest.raises(GraphError, match="seed index -1 is outside"):
        importance_neighbours(graph, np.array([0, -1]))
    with pytest.raises(ValueError, match="at least 1"):
        importance_neighbours(graph, np.array([0]), walks=0)
