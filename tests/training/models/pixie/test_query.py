"""What a walk starts from: weights, step allocation, histories, boards and biases."""

from __future__ import annotations

import numpy as np
import pytest

from training.models.pin_board_graph import GraphInfo, from_edges, label
from training.models.pixie.query import (
    MS_PER_DAY,
    Bias,
    Query,
    allocate_steps,
    bias_for,
    board_query,
    by_code,
    history_query,
)

SAVE, CLICK, HIDE, OPEN = 1, 2, 3, 4
WEIGHTS = by_code({SAVE: 1.0, CLICK: 0.5, HIDE: -1.0})


def test_steps_follow_the_paper_with_the_logarithm_of_the_largest_degree() -> None:
    degrees = np.array([1, 10, 100, 1_000, 10_000])
    assert allocate_steps(100_000, np.ones(5), degrees, 1_000_000).tolist() == [26, 213, 1705, 12790, 85266]


def test_no_query_pin_goes_without_a_step() -> None:
    steps = allocate_steps(1_000, np.ones(3), np.array([1, 50_000, 100_000]), 100_000)
    assert steps.tolist() == [1, 1000, 1]  # the pin of the largest degree has s = 0


def test_weights_share_the_steps() -> None:
    assert allocate_steps(1_000, np.array([3.0, 1.0]), np.array([7, 7]), 100).tolist() == [750, 250]


@pytest.mark.parametrize("degree", [1, 9])
def test_pins_of_the_largest_degree_share_by_weight(degree: int) -> None:
    assert allocate_steps(900, np.array([2.0, 1.0]), np.array([degree] * 2), degree).tolist() == [600, 300]


def test_steps_may_ignore_degrees() -> None:
    steps = allocate_steps(1_000, np.array([3.0, 1.0]), np.array([1, 9_000]), 9_000, by_degree=False)
    assert steps.tolist() == [750, 250]


def test_no_pins_no_steps() -> None:
    assert len(allocate_steps(1_000, np.empty(0), np.empty(0, np.int64), 5)) == 0


def test_repeated_pins_add_up_and_weightless_ones_fall_away() -> None:
    query = Query.of([7, 3, 7, 5], [1.0, 2.0, 0.5, 0.0])
    assert query.pin_ids.tolist() == [3, 7]
    assert query.weights.tolist() == [2.0, 1.5]


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_that_are_none_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="query pin 8 has weight"):
        Query.of([3, 8], [1.0, weight])


def test_the_heaviest_stay_and_the_rest_is_not_answered() -> None:
    query = Query.of([1, 2, 3, 4], [5.0, 1.0, 5.0, 1.0], exclude=[9]).heaviest(3)
    assert query.pin_ids.tolist() == [1, 2, 3]
    assert query.exclude.tolist() == [4, 9]


def test_a_history_weighs_actions_by_kind_and_age() -> None:
    now = 100 * MS_PER_DAY
    query = history_query(
        np.array([1, 2, 1, 3]),
        np.array([SAVE, CLICK, CLICK, OPEN]),
        now - MS_PER_DAY * np.array([0, 7, 14, 0]),
        now,
        WEIGHTS,
        half_life_days=7.0,
    )
    assert query.pin_ids.tolist() == [1, 2]
    assert np.allclose(query.weights, [1.0 + 0.5 * 0.25, 0.5 * 0.5])


def test_a_hidden_pin_is_neither_asked_nor_answered() -> None:
    query = history_query(np.array([1, 1, 2]), np.array([SAVE, HIDE, SAVE]), np.array([5, 6, 7]), 10, WEIGHTS)
    assert query.pin_ids.tolist() == [2]
    assert query.exclude.tolist() == [1]


def test_a_history_knows_nothing_of_the_future() -> None:
    query = history_query(np.array([1, 2, 3]), np.array([SAVE, SAVE, HIDE]), np.array([5, 11, 12]), 10, WEIGHTS)
    assert query.pin_ids.tolist() == [1]
    assert len(query.exclude) == 0


def test_an_empty_history_is_an_empty_query() -> None:
    none = np.empty(0, np.int64)
    assert len(history_query(none, none, none, 10, WEIGHTS)) == 0
    with pytest.raises(ValueError, match="NaN"):
        by_code({SAVE: float("nan")})


def test_a_board_is_its_pins() -> None:
    graph = from_edges(np.array([1, 2, 3, 4]), np.array([1, 1, 1, 2]))
    query = board_query(graph, 1)
    assert query.pin_ids.tolist() == query.exclude.tolist() == [1, 2, 3]
    some = board_query(graph, 1, max_pins=2, seed=4)
    assert len(some) == 2
    assert some.exclude.tolist() == [1, 2, 3]
    assert board_query(graph, 1, max_pins=2, seed=4).pin_ids.tolist() == some.pin_ids.tolist()
    assert len(board_query(graph, 99)) == 0


def test_biases_are_ranges_of_labels() -> None:
    def graph(languages: tuple[str, ...], topics: tuple[int, ...]):
        info = GraphInfo(languages=languages, topics=topics)
        return from_edges(np.array([1]), np.array([1]), pin_labels=label(np.array([1])), info=info)

    both = graph(("en", "pt"), (70, 30))
    assert bias_for(both, language="pt") == Bias(512, 768)
    assert bias_for(both, language="pt", topic=30) == Bias(514, 515)
    assert bias_for(both, language="fi") is None
    assert bias_for(both, language="en", topic=999) == Bias(256, 512)
    with pytest.raises(ValueError, match="give a language"):
        bias_for(both, topic=70)
    assert bias_for(graph((), (70, 30)), topic=30) == Bias(2, 3)
