"""Neighbourhoods by catalogue row, from a graph whose pins are numbered otherwise."""

import numpy as np

from training.models.pin_board_graph import from_edges
from training.pinsage.pairs import Pairs
from training.pinsage.walks import CatalogueGraph, WalkConfig

# board 1 holds pins 10, 20, 30; board 2 holds 30, 40; 50 is alone on board 3; 60 is on no board
GRAPH = from_edges(
    np.array([10, 20, 30, 30, 40, 50]), np.array([1, 1, 1, 2, 2, 3]), pin_ids=np.arange(10, 70, 10)
)
CATALOGUE = np.array([40, 30, 20, 10, 50, 60, 99])  # 99 the graph has never heard of


def test_rows_degrees_and_neighbours_line_up() -> None:
    rows = CatalogueGraph(GRAPH, CATALOGUE, WalkConfig(walks=300, hops=1))
    assert rows.degrees().tolist() == [1, 2, 1, 1, 1, 0, 0]
    got = rows.neighbourhoods()
    near = [set(CATALOGUE[got.ids[got.offsets[r] : got.offsets[r + 1]]]) for r in range(7)]
    assert near == [{30}, {10, 20, 40}, {10, 30}, {20, 30}, set(), set(), set()]
    # from 30 half the walks take board 2, where one of two pins is 40: 1/4 against 1/6 each for 10 and 20
    first = got.ids[got.offsets[1]]
    assert CATALOGUE[first] == 40
    np.testing.assert_allclose(got.weights[got.offsets[1]], 3 / 7, atol=0.1)


def test_pins_outside_the_catalogue_are_no_neighbours() -> None:
    got = CatalogueGraph(GRAPH, np.array([10, 40]), WalkConfig(hops=2)).neighbourhoods()
    assert got.ids.tolist() == [1, 0] and got.weights.tolist() == [1.0, 1.0]


def test_hard_negatives_are_ranked_beyond_the_nearest() -> None:
    config = WalkConfig(hard_walks=500, hard_hops=3, hard_ranks=(1, 3))
    rows = CatalogueGraph(GRAPH, CATALOGUE, config)
    hard = rows.hard(Pairs(np.array([0, 5], np.int32), np.array([1, 1], np.int32), np.zeros(2, np.int64)))
    assert set(CATALOGUE[hard.candidates[0, : hard.counts[0]]]) == {10, 20}
    assert hard.counts[5] == 0


def test_an_empty_catalogue_and_an_empty_graph() -> None:
    assert len(CatalogueGraph(GRAPH, np.empty(0, np.int64), WalkConfig()).neighbourhoods()) == 0
    nothing = from_edges(np.empty(0, np.int64), np.empty(0, np.int64), pin_ids=CATALOGUE)
    rows = CatalogueGraph(nothing, CATALOGUE, WalkConfig())
    assert rows.neighbourhoods().edges == 0 and not rows.degrees().any()


def test_uniform_neighbours_share_a_board_and_weigh_alike() -> None:
    rows = CatalogueGraph(GRAPH, CATALOGUE, WalkConfig(neighbours=60))
    got = rows.uniform()
    near = [set(CATALOGUE[got.ids[got.offsets[r] : got.offsets[r + 1]]]) for r in range(7)]
    assert near == [{30}, {10, 20, 40}, {10, 30}, {20, 30}, set(), set(), set()]
    np.testing.assert_allclose(got.weights[got.offsets[1] : got.offsets[2]], 1 / 3)
    again = CatalogueGraph(GRAPH, CATALOGUE, WalkConfig(neighbours=60)).uniform()
    np.testing.assert_array_equal(got.ids, again.ids)


def test_uniform_neighbours_are_not_the_most_visited() -> None:
    # pin 1 shares ten boards with pin 2 and one, the eleventh, with pins 3 to 42
    pins = np.concatenate([np.tile([1, 2], 10), [1], np.arange(3, 43)])
    boards = np.concatenate([np.repeat(np.arange(1, 11), 2), np.full(41, 11)])
    graph = from_edges(pins, boards, pin_ids=np.arange(1, 43))
    rows = CatalogueGraph(graph, np.arange(1, 43), WalkConfig(neighbours=200, hops=1))
    first = slice(*rows.uniform().offsets[:2])
    importance, uniform = rows.neighbourhoods(), rows.uniform()
    assert importance.ids[0] == 1 and importance.weights[0] > 0.5
    assert (uniform.weights[first] == uniform.weights[0]).all() and uniform.weights[0] < 0.5


def test_an_edge_brought_twice_weighs_once() -> None:
    pins, boards = np.array([10, 20, 20, 30, 40]), np.array([1, 1, 2, 2, 2])
    once = from_edges(pins, boards)
    twice = from_edges(np.concatenate([pins, pins[1:3]]), np.concatenate([boards, boards[1:3]]))
    ids = np.array([10, 20, 30, 40])
    a, b = (CatalogueGraph(graph, ids, WalkConfig(walks=300)) for graph in (once, twice))
    np.testing.assert_array_equal(a.degrees(), b.degrees())
    for name in ("offsets", "ids", "weights"):
        np.testing.assert_array_equal(getattr(a.neighbourhoods(), name), getattr(b.neighbourhoods(), name))


def test_walks_stay_in_their_part_of_the_graph() -> None:
    rng = np.random.default_rng(3)
    part = np.repeat([0, 1], 200)
    pins, boards = rng.integers(0, 40, 400) + 40 * part, rng.integers(1, 13, 400) + 12 * part
    config = WalkConfig(walks=200, hops=4, hard_walks=200, hard_ranks=(5, 20))
    rows = CatalogueGraph(from_edges(pins + 1, boards, pin_ids=np.arange(1, 81)), np.arange(1, 81), config)
    near = rows.neighbourhoods()
    assert near.edges > 400
    assert (np.repeat(np.arange(80), np.diff(near.offsets)) // 40 == near.ids // 40).all()
    ranked = rows.ranked(np.arange(80, dtype=np.int32))
    assert ((ranked < 0) | (ranked // 40 == np.arange(80)[:, None] // 40)).all()


def test_a_pin_on_a_hundred_thousand_boards() -> None:
    """Its own neighbourhood keeps T pins, and to every other pin it is one neighbour of weight at most one."""
    boards = np.arange(1, 100_001)
    pins = np.concatenate([np.ones(100_000, np.int64), 2 + boards % 5_000])
    graph = from_edges(pins, np.concatenate([boards, boards]), pin_ids=np.arange(1, 5_002))
    rows = CatalogueGraph(graph, np.arange(1, 5_002), WalkConfig(walks=50))
    near = rows.neighbourhoods()
    counts = np.diff(near.offsets)
    assert rows.degrees()[0] == 100_000
    assert 0 < counts.max() <= 50 and counts.min() > 0
    np.testing.assert_allclose(np.add.reduceat(near.weights, near.offsets[:-1]), 1, atol=1e-5)
    assert np.isfinite(near.weights).all()


def test_a_board_of_a_hundred_thousand_pins() -> None:
    pins = np.arange(1, 100_001)
    rows = CatalogueGraph(from_edges(pins, np.ones(100_000, np.int64)), pins[:50], WalkConfig(neighbours=20))
    near = rows.neighbourhoods()  # of pins outside the catalogue of fifty nothing is kept
    assert np.diff(near.offsets).max() <= 20
    assert (near.ids < 50).all()
