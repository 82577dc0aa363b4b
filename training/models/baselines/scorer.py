"""What a fitted baseline is, and the sparse pin-pin matrices most of them share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float32]
Scorer = Callable[[NDArray[np.integer]], Floats]
"""User rows (n,) -> scores (n, pins) float32."""

ROWS = 512
"""Pin rows of a product held at once: it is nearly dense where pins are popular."""


def binary(matrix: sparse.spmatrix) -> sparse.csr_matrix:
    """`matrix` as CSR float32 with each pair once and worth 1. Raises ValueError for an empty one."""
    clean = sparse.csr_matrix(matrix, dtype=np.float32, copy=True)
    clean.sum_duplicates()
    clean.eliminate_zeros()
    if not clean.nnz:
        raise ValueError("no interactions: a baseline has nothing to learn from")
    clean.data[:] = 1.0
    return clean


def by_profile(matrix: sparse.csr_matrix, similarity: sparse.spmatrix | Floats) -> Scorer:
    """Scores are sums of `similarity` rows (pins, pins) over a user's pins."""

    def score(users: NDArray[np.integer]) -> Floats:
        scores = matrix[users] @ similarity
        return np.asarray(scores.todense() if sparse.issparse(scores) else scores, np.float32)

    return score


def largest_per_row(rows: Callable[[int, int], sparse.csr_matrix], pins: int, k: int) -> sparse.csr_matrix:
    """The k largest entries of each row of a (pins, pins) matrix that `rows(start, stop)` yields block by
    block.

    The diagonal and entries <= 0 are left out; entries that tie with the k-th all stay.
    """
    blocks = []
    for start in range(0, pins, ROWS):
        block = sparse.csr_matrix(rows(start, min(start + ROWS, pins)), dtype=np.float32)
        _keep_largest(block, start, k)
        block.eliminate_zeros()
        blocks.append(block)
    return sparse.vstack(blocks, format="csr")


def _keep_largest(block: sparse.csr_matrix, first: int, k: int) -> None:
    """Set what is not kept to zero; `first` is the pin of the first row."""
    lengths = np.diff(block.indptr)
    own = np.repeat(np.arange(first, first + len(lengths)), lengths)
    block.data[(block.indices == own) | (block.data < 0)] = 0
    for row in np.flatnonzero(lengths > k):
        entries = block.data[block.indptr[row] : block.indptr[row + 1]]
        entries[entries < np.partition(entries, len(entries) - k)[len(entries) - k]] = 0
