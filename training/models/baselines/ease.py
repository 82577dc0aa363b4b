"""EASE (Steck, WWW 2019): a linear autoencoder that may not predict a pin from itself, in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from training.models.baselines.scorer import Floats, Scorer, binary


def ease(matrix: sparse.spmatrix, *, ridge: float = 250.0, max_pins: int = 20_000) -> Scorer:
    """B = -P / diag(P) with a zero diagonal, P = (X'X + ridge I)^-1; scores are X B.

    Pins without users score 0. Float32, whose error the ridge bounds. Time grows with pins^3 and memory with
    pins^2 (12 bytes each): raises ValueError beyond `max_pins` pins that have users.
    """
    x = binary(matrix)
    pins = np.flatnonzero(np.diff(x.tocsc().indptr))
    if len(pins) > max_pins:
        raise ValueError(
            f"EASE inverts a {len(pins)} x {len(pins)} matrix; raise max_pins ({max_pins}) to allow it"
        )
    used = x[:, pins]
    gram = (used.T @ used).toarray()
    gram[np.diag_indices_from(gram)] += ridge
    factor, _ = linalg.cho_factor(gram, lower=True, overwrite_a=True)
    inverse = linalg.lapack.spotri(factor, lower=1, overwrite_c=1)[0]
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)

    def score(users: NDArray[np.integer]) -> Floats:
        scores = np.zeros((len(users), x.shape[1]), np.float32)
        scores[:, pins] = used[users] @ weights
        return scores

    return score
