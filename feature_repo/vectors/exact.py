"""Brute-force search: the oracle of every index, and its stand-in where one falls short."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from feature_repo.vectors.index import Hits

_BLOCK_FLOATS = 16_000_000
"""Scores held at once, 64 MB."""


def top_k(queries: NDArray[np.float32], vectors: NDArray[np.float32], ids: NDArray[np.int64], k: int) -> Hits:
    """The k largest inner products of each query (q, d) over `vectors` (n, d) named by `ids` (n,).

    Equal scores come in order of id; which of several equal ones fall off the end is not stated.
    """
    q, n = len(queries), len(ids)
    hits = Hits.empty(q, k)
    kept = min(k, n)
    if kept == 0:
        return hits
    step = max(1, _BLOCK_FLOATS // n)
    for start in range(0, q, step):
        scores = queries[start : start + step] @ vectors.T  # (b, n)
        best = _best(scores, kept)
        top = np.take_along_axis(scores, best, axis=1)
        hits.ids[start : start + step, :kept], hits.scores[start : start + step, :kept] = _ordered(
            ids[best], top
        )
    return hits


def top_k_stream(
    queries: NDArray[np.float32], parts: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]], k: int
) -> Hits:
    """`top_k` over (ids, vectors) blocks that need not fit in memory together."""
    hits = Hits.empty(len(queries), k)
    for ids, vectors in parts:
        part = top_k(queries, vectors, ids, k)
        merged_ids = np.concatenate([hits.ids, part.ids], axis=1)
        merged = np.concatenate([hits.scores, part.scores], axis=1)
        best = _best(merged, k)
        hits = Hits(
            *_ordered(np.take_along_axis(merged_ids, best, axis=1), np.take_along_axis(merged, best, axis=1))
        )
    return hits


def recall(found: Hits, exact: Hits, tolerance: float = 1e-5) -> NDArray[np.float64]:
    """(q,) share of the exact top k that `found` holds; NaN for a query with no exact hit.

    A hit counts when its score reaches the k-th exact score within `tolerance`: where many pins share one
    vector, any of them is as right as another.
    """
    expected = exact.counts
    worst = np.where(np.isfinite(exact.scores), exact.scores, np.inf).min(axis=1)  # (q,)
    right = ((found.ids != 0) & (found.scores >= worst[:, None] - tolerance)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, np.minimum(right, expected) / expected, np.nan)


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """(q, k) columns of the k largest scores of each row, unordered."""
    if k >= scores.shape[1]:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]


def _ordered(
    ids: NDArray[np.int64], scores: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows sorted by falling score, then rising id."""
    order = np.lexsort((ids, -scores), axis=1)
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)
