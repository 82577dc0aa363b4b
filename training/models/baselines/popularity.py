"""The same list for everyone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.models.baselines.scorer import Floats, Scorer, binary


def popularity(matrix: sparse.spmatrix) -> Scorer:
    """A pin scores the number of users who have it."""
    counts = np.asarray(binary(matrix).sum(axis=0), np.float32).ravel()

    def score(users: NDArray[np.integer]) -> Floats:
        return np.tile(counts, (len(users), 1))

    return score
