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
