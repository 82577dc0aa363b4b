import numpy as np
import pytest

from training.pinsage.evaluation import evaluate_pairs, pair_ranks, popularity_metrics, rank_metrics
from training.pinsage.pairs import Pairs


def some_pairs(queries: list[int], positives: list[int]) -> Pairs:
    return Pairs(np.array(queries, np.int32), np.array(positives, np.int32), np.zeros(len(queries), np.int64))


def test_ranks_against_sorting_every_candidate() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((80, 5)).astype(np.float32)
    queries = rng.integers(0, 80, 300)
    positives = (queries + rng.integers(1, 80, 300)) % 80
    got = pair_ranks(vectors, some_pairs(queries.tolist(), positives.tolist()), block=64)
    for q, i, rank in zip(queries, positives, got, strict=True):
        order = [c for c in np.argsort(-(vectors @ vectors[q])) if c != q]
        assert order.index(i) + 1 == rank


def test_collapsed_vectors_rank_last() -> None:
    ranks = pair_ranks(np.ones((50, 4), np.float32), some_pairs([0, 1], [2, 3]))
    assert ranks.tolist() == [49, 49]


def test_candidates_limit_the_field_and_an_absent_positive_is_ranked_as_if_there() -> None:
    vectors = np.array([[1.0], [0.9], [0.8], [0.7], [0.6]], np.float32)
    assert pair_ranks(vectors, some_pairs([0], [3]), candidates=np.array([1, 3, 4])).tolist() == [2]
    assert pair_ranks(vectors, some_pairs([0], [3]), candidates=np.array([1, 4])).tolist() == [2]


def test_metrics_by_hand() -> None:
    metrics = rank_metrics(np.array([1, 10, 11, 100]), 500, hit_at=(10, 100))
    assert metrics.hit_rate == {10: 0.5, 100: 1.0}
    assert metrics.mrr == pytest.approx((1 + 1 + 1 / 2 + 1 / 10) / 4)
    assert np.isnan(rank_metrics(np.empty(0, np.int64), 500).mrr)


def test_popularity_ignores_the_query() -> None:
    # by degree: 2, 0, 1, 3; the query itself is no candidate
    metrics = popularity_metrics(np.array([5, 2, 9, 0]), some_pairs([2, 3], [0, 1]))
    assert metrics.mrr == 1.0 and metrics.pairs == 2


def test_vectors_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        evaluate_pairs(np.full((3, 2), np.nan, np.float32), some_pairs([0], [1]))
