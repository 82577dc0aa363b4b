"""HIT@K/h against its definition, written out as loops, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluation.hit_at_k import hit_at_k


def naive(users, requests, score, labels, k) -> np.ndarray:
    """The definition: sum over u, sum over c of u, of beta(c, h); over |U|."""
    total = np.zeros(labels.shape[1])
    for u in set(users.tolist()):
        for c in {r for v, r in zip(users.tolist(), requests.tolist(), strict=True) if v == u}:
            rows = [i for i in range(len(users)) if (users[i], requests[i]) == (u, c)]
            for i in sorted(rows, key=lambda i: -score[i])[:k]:
                total += labels[i]
    return total / len(set(users.tolist()))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_it_is_the_definition(seed: int, k: int):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 80))
    users, requests = rng.integers(1, 6, n) * 10, rng.integers(-3, 3, n)  # requests repeat across users
    score = rng.permutation(n).astype(np.float32)
    labels = (rng.random((n, 3)) < 0.3).astype(np.int8)
    got = hit_at_k(users, requests, score, labels, k)
    np.testing.assert_allclose(got.hit(), naive(users, requests, score, labels, k))
    assert got.chunks == len({*zip(users.tolist(), requests.tolist(), strict=True)})


def test_by_hand():
    """User 7 has two requests, user 9 one; saves and hides; the first two places of each count."""
    users = [7, 7, 7, 7, 7, 9, 9, 9]
    requests = [1, 1, 1, 2, 2, 3, 3, 3]
    score = [0.9, 0.8, 0.7, 0.1, 0.2, 0.5, 0.6, 0.4]
    labels = [[1, 0], [1, 0], [1, 1], [0, 1], [1, 0], [0, 0], [0, 0], [1, 1]]
    got = hit_at_k(users, requests, score, labels, 2)
    np.testing.assert_array_equal(got.values, [[3, 1], [0, 0]])
    np.testing.assert_allclose(got.hit(), [1.5, 0.5])  # above 1: several pins of a page may be saved
    assert got.user_ids.tolist() == [7, 9]


def test_ties_do_not_follow_the_order_in_which_rows_stand():
    n, pages = 10, 2000
    requests = np.repeat(np.arange(pages), n)
    labels = np.tile(np.arange(n) == 0, pages)[:, None]  # what was shown first was saved
    got = hit_at_k(requests, requests, np.zeros(n * pages), labels, 3)
    assert got.hit()[0] == pytest.approx(0.3, abs=0.04)
    again = hit_at_k(requests, requests, np.zeros(n * pages), labels, 3)
    np.testing.assert_array_equal(got.values, again.values)


def test_chances_count_as_much_as_they_say():
    got = hit_at_k([1, 1, 1], [1, 1, 1], [0.1, 0.3, 0.2], [[0.9], [0.25], [0.5]], 2)
    np.testing.assert_allclose(got.values, [[0.75]])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"score": [0.1, np.nan]}, "1 scores are not finite"),
        ({"labels": [[0], [2]]}, "0 or 1"),
        ({"user_ids": [1]}, "1 users"),
        ({"k": 0}, "k is 0"),
        ({"user_ids": [], "request_ids": [], "score": [], "labels": np.empty((0, 1))}, "no rows"),
    ],
)
def test_bad_rows_are_named(change: dict, match: str):
    rows = {"user_ids": [1, 1], "request_ids": [1, 1], "score": [0.1, 0.2], "labels": [[0], [1]], "k": 1}
    with pytest.raises(ValueError, match=match):
        hit_at_k(**(rows | change))
