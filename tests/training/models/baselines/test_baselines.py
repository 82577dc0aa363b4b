"""Each baseline against its formula in dense algebra, and all of them against a planted matrix."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from scipy import sparse

from training.models.baselines import Scorer, ease, ials, itemknn, popularity, rp3beta

ALL: dict[str, Callable[..., Scorer]] = {
    "popularity": popularity,
    "itemknn": itemknn,
    "rp3beta": rp3beta,
    "ease": partial(ease, ridge=5.0),
    "ials": partial(ials, dim=8, epochs=8),
}


def random_matrix(seed: int, users: int = 40, pins: int = 25, density: float = 0.2) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    return sparse.csr_matrix((rng.random((users, pins)) < density).astype(np.float32))


def blocks() -> sparse.csr_matrix:
    """Two groups of users with pins of their own; user 0 misses pin 0, user 20 misses pin 10."""
    dense = np.zeros((40, 20), np.float32)
    dense[:20, :10] = dense[20:, 10:] = 1.0
    dense[0, 0] = dense[20, 10] = 0.0
    return sparse.csr_matrix(dense)


@pytest.mark.parametrize("name", [n for n in ALL if n != "popularity"])
def test_the_missing_pin_of_a_block_comes_first(name: str) -> None:
    matrix = blocks()
    scores = ALL[name](matrix)(np.array([0, 20]))
    scores[np.asarray(matrix[[0, 20]].todense()) > 0] = -np.inf
    assert scores.argmax(axis=1).tolist() == [0, 10]


@pytest.mark.parametrize("name", ALL)
def test_scores_are_finite_float32_rows_whatever_the_data(name: str) -> None:
    matrix = random_matrix(1).tolil()
    matrix[3] = 0  # a user without pins
    matrix[:, 7] = 0  # a pin without users
    clean = sparse.csr_matrix(matrix)
    repeated = clean * 3.0  # counts: a pair is worth 1 however often it occurs
    scores = ALL[name](clean)(np.array([3, 0, 5]))
    assert scores.shape == (3, 25)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert np.allclose(scores, ALL[name](repeated)(np.array([3, 0, 5])), atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_no_interactions_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no interactions"):
        ALL[name](sparse.csr_matrix((3, 4)))


def test_popularity_counts_users() -> None:
    matrix = random_matrix(2)
    assert np.array_equal(popularity(matrix)(np.array([0, 1]))[1], np.asarray(matrix.sum(axis=0)).ravel())


def test_itemknn_is_the_shrunk_cosine() -> None:
    matrix = random_matrix(3)
    x = matrix.toarray()
    norms = np.linalg.norm(x, axis=0)
    similarity = (x.T @ x) / (np.outer(norms, norms) + 10.0)
    np.fill_diagonal(similarity, 0.0)
    assert np.allclose(itemknn(matrix, neighbours=25)(np.arange(40)), x @ similarity, atol=1e-5)
    least = -np.sort(-similarity, axis=1)[:, 3:4]
    nearest = np.where(similarity >= least, similarity, 0.0)
    assert np.allclose(itemknn(matrix, neighbours=4)(np.arange(40)), x @ nearest, atol=1e-5)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.8, 0.6)])
def test_rp3beta_is_three_steps_and_a_discount(alpha: float, beta: float) -> None:
    matrix = random_matrix(4)
    x = matrix.toarray().astype(np.float64)
    to_pin = x / np.maximum(x.sum(axis=1, keepdims=True), 1) ** alpha
    to_user = x.T / np.maximum(x.sum(axis=0)[:, None], 1) ** alpha
    walk = to_user @ to_pin / np.maximum(x.sum(axis=0), 1) ** beta
    np.fill_diagonal(walk, 0.0)
    found = rp3beta(matrix, alpha=alpha, beta=beta, neighbours=25)(np.arange(40))
    assert np.allclose(found, x @ walk, rtol=1e-4, atol=1e-6)


def test_ease_solves_its_constrained_least_squares() -> None:
    matrix = random_matrix(5, users=80)
    x = matrix.toarray().astype(np.float64)
    ridge = 7.0
    weights = np.zeros((25, 25))
    for pin in range(25):  # each column by itself: regress the pin on all others
        others = np.delete(np.arange(25), pin)
        a = x[:, others]
        weights[others, pin] = np.linalg.solve(a.T @ a + ridge * np.eye(24), a.T @ x[:, pin])
    assert np.allclose(ease(matrix, ridge=ridge)(np.arange(80)), x @ weights, atol=1e-4)


def test_ease_says_when_it_is_too_large() -> None:
    with pytest.raises(ValueError, match="raise max_pins"):
        ease(random_matrix(6), max_pins=10)


def test_ials_ends_where_its_loss_is_least() -> None:
    """At its fixed point, moving any user vector raises the loss; more epochs lower it."""
    matrix = random_matrix(7)
    x = matrix.toarray()

    def loss(scores: np.ndarray) -> float:
        return float((x * (1 - scores) ** 2).sum() + 0.1 * (scores**2).sum())

    losses = [loss(ials(matrix, dim=6, epochs=e, regularisation=1e-6)(np.arange(40))) for e in (1, 3, 10, 40)]
    assert losses == sorted(losses, reverse=True)
    best = sum(0.1 / 1.1 for _ in range(int(x.sum())))  # every observed score at its own optimum, 1 / 1.1
    assert losses[-1] > best
    full = loss(ials(matrix, dim=25, epochs=60, regularisation=1e-9)(np.arange(40)))
    assert full == pytest.approx(best, rel=0.05)


def test_ials_solves_the_normal_equations_of_every_row() -> None:
    """Rows of fewer pairs than dimensions, and of more, against the plain equations of two epochs."""
    matrix, dim, seed = random_matrix(11, users=60, pins=30, density=0.2), 5, 3
    x = matrix.toarray().astype(np.float64)
    few = (x.sum(axis=1) < dim).sum()
    assert 5 < few < 55 and (x.sum(axis=0) > 0).all()

    def solve(pairs: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        rows = []
        for row in pairs:
            own = fixed[row > 0]
            ridge = 0.02 * (len(own) + 0.1 * len(fixed))
            left = own.T @ own + 0.1 * fixed.T @ fixed + ridge * np.eye(dim)
            rows.append(np.linalg.solve(left, own.sum(axis=0)))
        return np.array(rows)

    pins = np.random.default_rng(seed).normal(0.0, 0.1 / np.sqrt(dim), (30, dim))
    for _ in range(2):
        users = solve(x, pins)
        pins = solve(x.T, users)
    scores = ials(matrix, dim=dim, epochs=2, regularisation=0.02, seed=seed)(np.arange(60))
    np.testing.assert_allclose(scores, users @ pins.T, rtol=1e-4, atol=1e-6)


def test_ials_repeats_under_a_seed() -> None:
    matrix = random_matrix(8)
    first, again = (ials(matrix, dim=4, epochs=3, seed=5)(np.arange(9)) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, ials(matrix, dim=4, epochs=3, seed=6)(np.arange(9)))
