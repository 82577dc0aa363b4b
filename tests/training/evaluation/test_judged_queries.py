"""Recall, NDCG and reciprocal rank of queries against scikit-learn and by hand."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import ndcg_score

from training.evaluation.judged_queries import MRR, NDCG, RECALL, JudgedQueries, query_metrics, read_judgements
from training.searchsage.evaluation import nearest

PINS = np.arange(1, 31)


def judged() -> JudgedQueries:
    owner = np.array([0, 0, 0, 2, 2, 1, 1])
    pins = np.array([4, 5, 6, 7, 30, 99, 8])
    grades = np.array([1.0, 2.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    return JudgedQueries.of(("oak", "never", "lamp"), owner, pins, grades, PINS)


def test_what_cannot_be_found_is_left_out() -> None:
    found = judged()
    assert found.queries == ("oak", "lamp")  # all that answers "never" is unknown, or not relevant
    assert found.pins.tolist() == [4, 5, 6, 7] and found.offsets.tolist() == [0, 3, 4]
    assert found.take(np.array([False, True])).pins.tolist() == [7]


def test_one_long_query_does_not_widen_the_others() -> None:
    queries = ["x" * 20_000, *(f"q{i % 5}" for i in range(2_000))]
    many = pd.DataFrame({"query": queries, "pin_id": np.arange(len(queries)) % 30 + 1, "relevance": 1.0})
    lake = SimpleNamespace(has=lambda name: True, read=lambda name: many)
    tracemalloc.start()
    found = read_judgements(lake, PINS)  # type: ignore[arg-type]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found is not None and found.queries == ("q0", "q1", "q2", "q3", "q4", "x" * 20_000)
    assert most < 20_000_000  # four bytes a letter of the longest would be 160 MB


def test_values_by_hand() -> None:
    ranked = np.zeros((2, 10), np.int64)
    ranked[0, :3] = [4, 20, 5]
    ranked[1, :2] = [7, 4]
    found = query_metrics(ranked, judged())
    assert found[RECALL].tolist() == [2 / 3, 1]
    assert found[MRR].tolist() == [1 / 3, 1]  # pin 5 is the best answer to "oak"
    best = 2 + 1 / np.log2(3) + 1 / 2
    assert found[NDCG] == pytest.approx([(1 + 2 / 2) / best, 1])
    with pytest.raises(ValueError, match="need 10 pins"):
        query_metrics(ranked[:, :5], judged())


def test_ndcg_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    grades = rng.integers(0, 3, (40, 30)).astype(float)
    grades[:, 0] = 1
    owner, place = np.nonzero(grades)
    asked = JudgedQueries.of([str(i) for i in range(40)], owner, PINS[place], grades[owner, place], PINS)
    ranked = np.stack([rng.permutation(PINS) for _ in range(40)])
    scores = np.zeros((40, 31))
    np.put_along_axis(scores, ranked, np.arange(30, 0, -1.0)[None], axis=1)
    expected = [ndcg_score(grades[i : i + 1], scores[i : i + 1, 1:], k=10) for i in range(40)]
    assert query_metrics(ranked, asked)[NDCG] == pytest.approx(expected)


def test_nearest_is_a_full_sort() -> None:
    rng = np.random.default_rng(1)
    queries, vectors = rng.standard_normal((7, 5)).astype(np.float32), rng.standard_normal((30, 5))
    vectors = vectors.astype(np.float32)
    expected = PINS[np.argsort(-(queries @ vectors.T), axis=1)[:, :10]]
    assert np.array_equal(nearest(queries, vectors, PINS, 10), expected)
    assert nearest(queries, vectors[:3], PINS[:3], 5)[:, 3:].tolist() == [[0, 0]] * 7
