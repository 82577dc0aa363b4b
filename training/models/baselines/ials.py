"""iALS (Hu et al., ICDM 2008) with the regulariser of Rendle et al. (RecSys 2022, "Revisiting iALS")."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.models.baselines.scorer import Floats, Scorer, binary


def ials(
    matrix: sparse.spmatrix,
    *,
    dim: int = 64,
    unobserved: float = 0.1,
    regularisation: float = 0.003,
    epochs: int = 16,
    seed: int = 7,
) -> Scorer:
    """Least squares of (1 - <u, p>)^2 over observed pairs and `unobserved` * <u, p>^2 over all pairs.

    A row's ridge is `regularisation` * (its pairs + `unobserved` * the other side's size). Users and pins are
    solved in turn, exactly, `epochs` times. Rows without pairs get the zero vector.
    """
    x = binary(matrix)
    turned = x.T.tocsr()
    rng = np.random.default_rng(seed)
    pins = rng.normal(0.0, 0.1 / np.sqrt(dim), (x.shape[1], dim))
    users = np.zeros((x.shape[0], dim))
    for _ in range(epochs):
        _solve(x.indptr, x.indices, pins, users, unobserved, regularisation)
        _solve(turned.indptr, turned.indices, users, pins, unobserved, regularisation)
    user_vectors, pin_vectors = users.astype(np.float32), pins.astype(np.float32)

    def score(rows: NDArray[np.integer]) -> Floats:
        return user_vectors[rows] @ pin_vectors.T

    return score


@numba.njit(cache=True)
def _solve(indptr, indices, fixed, solved, unobserved, regularisation):
    """Overwrite each row of `solved` by its least-squares solution, given `fixed`.

    In the eigenbasis of the part that all rows share, that part and the ridge are diagonal, D. With the row's
    pairs A (n, dim), a row of few solves n equations in place of dim:
    (D + A'A)^-1 A'1 = D^-1 A' (1 + A D^-1 A')^-1 1.

    numba compiles loops in a fraction of the time of assignments of rows.
    """
    dim = fixed.shape[1]
    shared, basis = np.linalg.eigh(unobserved * (fixed.T @ fixed))
    turned = fixed @ basis
    for row in range(len(indptr) - 1):
        ends = indices[indptr[row] : indptr[row + 1]]
        n = len(ends)
        if n == 0:
            solved[row] = 0.0
            continue
        observed = turned[ends]
        diagonal = shared + regularisation * (n + unobserved * len(fixed))
        if n < dim:
            left = (observed / diagonal) @ observed.T
            for k in range(n):
                left[k, k] += 1.0
            made = (np.linalg.solve(left, np.ones(n)) @ observed) / diagonal
        else:
            left = observed.T @ observed
            for k in range(dim):
                left[k, k] += diagonal[k]
            made = np.linalg.solve(left, observed.sum(axis=0))
        for k in range(dim):
            solved[row, k] = made[k]
    back = solved @ basis.T
    for row in range(len(solved)):
        for k in range(dim):
            solved[row, k] = back[row, k]
