import numpy as np
import pytest

from tests.training.models.pinsage.graphs import random_neighbourhoods
from training.models.pinsage import Neighbourhoods

IDS = np.array([[2, 1, -1], [1, 0, 2], [-1, -1, -1]], np.int32)
VISITS = np.array([[6, 2, 0], [5, 3, 1], [0, 0, 0]], np.float32)


def test_padding_and_the_pin_itself_fall_away_and_weights_sum_to_one() -> None:
    got = Neighbourhoods.from_padded(IDS, VISITS)
    assert got.offsets.tolist() == [0, 2, 4, 4]
    assert got.ids.tolist() == [2, 1, 0, 2]
    assert got.weights.tolist() == [0.75, 0.25, 0.75, 0.25]


def test_top_keeps_the_heaviest_and_even_forgets_weights() -> None:
    got = Neighbourhoods.from_padded(IDS, VISITS)
    assert got.top(1).ids.tolist() == [2, 0]
    assert got.top(1).weights.tolist() == [1.0, 1.0]
    assert got.even().weights.tolist() == [0.5, 0.5, 0.5, 0.5]
    assert got.top(9) is got


def test_of_takes_rows_in_the_order_asked_for() -> None:
    graph = random_neighbourhoods(30, 5)
    rows = np.array([9, 2, 0, 29])
    got = graph.of(rows)
    for place, row in enumerate(rows):
        mine = slice(got.offsets[place], got.offsets[place + 1])
        theirs = slice(graph.offsets[row], graph.offsets[row + 1])
        np.testing.assert_array_equal(got.ids[mine], graph.ids[theirs])
        np.testing.assert_array_equal(got.weights[mine], graph.weights[theirs])


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="one \\(n, T\\) shape"):
        Neighbourhoods.from_padded(IDS, VISITS[:, :2])
    with pytest.raises(ValueError, match="not finite"):
        Neighbourhoods.from_padded(IDS, np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="at least one"):
        Neighbourhoods.from_padded(IDS, VISITS).top(0)
