"""Hard negatives: pins related to the query, but not as closely as its positive.

The paper draws them from personalised-PageRank ranks 2000-5000 of the query among 2 billion pins. On a
catalogue of thousands that window is most of the graph, so the ranks are a setting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int32]

RankedNeighbours = Callable[[Rows], NDArray[np.integer]]
"""Rows of q pins -> (q, R) rows by falling personalised PageRank, padded with -1."""


@dataclass(frozen=True)
class HardNegatives:
    """For each pin of the catalogue, up to P candidates drawn from its window of ranks."""

    candidates: Rows  # (n, P) padded with -1
    counts: NDArray[np.int32]  # (n,) candidates of each pin; 0 for pins never asked for or with a short walk

    def draw(self, queries: Rows, each: int, rng: np.random.Generator) -> Rows:
        """`each` candidates a query, with replacement, (q, each); -1 for a query that has none."""
        counts = self.counts[queries]
        at = (rng.random((len(queries), each)) * counts[:, None]).astype(np.int64)
        drawn = self.candidates[queries[:, None], np.minimum(at, self.candidates.shape[1] - 1)]
        return np.where(counts[:, None] > 0, drawn, -1).astype(np.int32)

    @property
    def coverage(self) -> float:
        """Share of pins with candidates among those that have any asked for."""
        return float((self.counts > 0).mean()) if len(self.counts) else 0.0


def hard_negatives(
    ranked: RankedNeighbours,
    queries: Rows,
    pins: int,
    *,
    low: int,
    high: int,
    kept: int = 64,
    seed: int = 7,
    chunk: int = 2_048,
) -> HardNegatives:
    """Candidates of each distinct query: at most `kept` pins of its ranks [low, high), drawn uniformly.

    Memory is 4 * pins * kept bytes and one chunk of ranked lists. A query whose walks reached no rank `low`
    has no candidates: nearer ones may well be right answers. Raises ValueError unless 0 < low < high.
    """
    if not 0 < low < high:
        raise ValueError(f"ranks [{low}, {high}) of hard negatives; they need 0 < low < high")
    candidates = np.full((pins, kept), -1, np.int32)
    counts = np.zeros(pins, np.int32)
    wanted = np.unique(queries)
    for start in range(0, len(wanted), chunk):
        rows = wanted[start : start + chunk]
        window = ranked(rows)[:, low:high]
        reached = (window >= 0).sum(axis=1)
        rng = np.random.default_rng([seed, start])
        keys = np.where(window >= 0, rng.random(window.shape), 2.0)
        order = np.argsort(keys, axis=1)[:, :kept]
        counts[rows] = np.minimum(reached, kept)
        drawn = np.take_along_axis(window, order, axis=1)
        candidates[rows, : drawn.shape[1]] = drawn
    return HardNegatives(candidates, counts)
