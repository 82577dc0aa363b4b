"""What queries find among frozen pins, exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.models.lexical import LexicalIndex
from training.searchsage.frozen_pins import FrozenPins
from training.searchsage.pairs import QueryPairs

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

BLOCK = 512
"""Queries scored at once."""


def nearest(queries: Floats, vectors: Floats, ids: Ints, k: int) -> Ints:
    """Ids (q, k) of the rows of `vectors` (p, d) with the highest product with each query (q, d), best first,
    zero-padded where there are fewer than k."""
    out = np.zeros((len(queries), k), np.int64)
    most = min(k, len(ids))
    for start in range(0, len(queries) if most else 0, BLOCK):
        scores = queries[start : start + BLOCK] @ vectors.T
        best = np.argpartition(-scores, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        out[start : start + BLOCK, :most] = ids[np.take_along_axis(best, order, axis=1)]
    return out


def nearest_pins(queries: Floats, pins: FrozenPins, k: int) -> Ints:
    """`nearest` among the pins that could be found."""
    return nearest(queries, pins.vectors[pins.candidates], pins.ids[pins.candidates], k)


def word_pins(words: LexicalIndex, queries: Sequence[str], k: int) -> Ints:
    """Ids (q, k) of the pins that say each query's words, best first, zero-padded."""
    out = np.zeros((len(queries), k), np.int64)
    for row, query in enumerate(queries):
        found, _ = words.search(query, k)
        out[row, : len(found)] = found
    return out


def popular_pins(pairs: QueryPairs, candidates: Ints, k: int) -> Ints:
    """The k candidates (pin ids) with most pairs, best first, zero-padded (k,): one answer to every query."""
    pins, counts = np.unique(pairs.pins[np.isin(pairs.pins, candidates)], return_counts=True)
    best = pins[np.lexsort((pins, -counts))][:k]
    return np.pad(best, (0, k - len(best))).astype(np.int64)
