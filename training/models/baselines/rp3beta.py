"""RP3beta (Paudel et al., TiiS 2017): a random walk of three steps, the target's popularity discounted."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from training.models.baselines.scorer import Scorer, binary, by_profile, largest_per_row


def rp3beta(matrix: sparse.spmatrix, *, alpha: float = 1.0, beta: float = 0.6, neighbours: int = 200) -> Scorer:
    """Pin -> user -> pin transition probabilities to the power `alpha`, divided by the target's users **
    `beta`.

    beta = 0 is P3alpha. Each pin keeps its `neighbours` largest targets; a user's score sums over the user's
    pins.
    """
    x = binary(matrix)
    users = np.maximum(np.asarray(x.sum(axis=0), np.float32).ravel(), 1.0)
    pins = np.maximum(np.asarray(x.sum(axis=1), np.float32).ravel(), 1.0)
    to_pin = sparse.diags(pins**-alpha) @ x
    to_user = (sparse.diags(users**-alpha) @ x.T).tocsr()
    discount = sparse.diags(users**-beta)

    def rows(start: int, stop: int) -> sparse.csr_matrix:
        return (to_user[start:stop] @ to_pin @ discount).tocsr()

    return by_profile(x, largest_per_row(rows, x.shape[1], neighbours).astype(np.float32))
