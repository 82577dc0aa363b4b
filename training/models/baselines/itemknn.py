"""Pins near the user's pins, by the users they share."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from training.models.baselines.scorer import Scorer, binary, by_profile, largest_per_row


def itemknn(matrix: sparse.spmatrix, *, neighbours: int = 100, shrink: float = 10.0) -> Scorer:
    """Shrunk cosine: common users / (sqrt(users of i) sqrt(users of j) + shrink), the `neighbours` largest a
    pin.
    """
    x = binary(matrix)
    length = np.sqrt(np.asarray(x.sum(axis=0), np.float32).ravel())
    turned = x.T.tocsr()

    def rows(start: int, stop: int) -> sparse.csr_matrix:
        common = (turned[start:stop] @ x).tocoo()
        common.data /= length[start + common.row] * length[common.col] + shrink
        return common.tocsr()

    return by_profile(x, largest_per_row(rows, x.shape[1], neighbours))
