"""Queries and the pins that answer them: recall, NDCG and reciprocal rank, one value a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.searchsage.pairs import QueryPairs
from validation.lake import Lake
from validation.tables import QUERY_JUDGEMENTS

Ints = NDArray[np.int64]
Values = NDArray[np.float64]

K = 10
RECALL, NDCG, MRR = f"Recall@{K}", f"NDCG@{K}", f"MRR@{K}"


@dataclass(frozen=True)
class JudgedQueries:
    """Query `queries[i]` is answered by pins `pins[offsets[i]:offsets[i + 1]]`, distinct."""

    queries: tuple[str, ...]
    offsets: Ints  # (q + 1,)
    pins: Ints  # (h,) ids
    relevance: Values  # (h,) above 0

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def owner(self) -> Ints:
        """(h,) place of the query of each answer."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @classmethod
    def of(
        cls, queries: Sequence[str], owner: Ints, pins: Ints, relevance: Values, candidates: Ints
    ) -> JudgedQueries:
        """From (query, pin, relevance) triples in any order, each pair once.

        What is not relevant, or not among the `candidates` (pin ids), cannot be found and is left out, and so
        is a query of which nothing is left.
        """
        kept = (relevance > 0) & np.isin(pins, candidates)
        used, owner = np.unique(owner[kept], return_inverse=True)
        order = np.argsort(owner, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(used)))]).astype(np.int64)
        texts = tuple(queries[place] for place in used.tolist())
        return cls(texts, offsets, pins[kept][order], relevance[kept][order].astype(np.float64))

    def take(self, kept: NDArray[np.bool_]) -> JudgedQueries:
        """The queries of a mask (q,)."""
        rows = kept[self.owner]
        counts = np.diff(self.offsets)[kept]
        return JudgedQueries(
            tuple(query for query, keep in zip(self.queries, kept.tolist(), strict=True) if keep),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            self.pins[rows],
            self.relevance[rows],
        )


def engaged_queries(pairs: QueryPairs, candidates: Ints) -> JudgedQueries:
    """Every query of `pairs`, answered by the pins that people engaged with after it, all as relevant."""
    both = np.unique(np.stack([pairs.query, pairs.pins]), axis=1)
    return JudgedQueries.of(pairs.queries, both[0], both[1], np.ones(both.shape[1]), candidates)


def read_judgements(lake: Lake, candidates: Ints) -> JudgedQueries | None:
    """The lake's judged queries; None where it has none."""
    if not lake.has(QUERY_JUDGEMENTS.name):
        return None
    rows = lake.read(QUERY_JUDGEMENTS.name)
    owner, queries = pd.factorize(rows["query"], sort=True)
    found = JudgedQueries.of(
        queries.tolist(),
        owner.astype(np.int64),
        rows["pin_id"].to_numpy(np.int64),
        rows["relevance"].to_numpy(np.float64),
        candidates,
    )
    return found if len(found) else None


def query_metrics(ranked: Ints, judged: JudgedQueries) -> dict[str, Values]:
    """RECALL, NDCG and MRR by query, float64 (q,), of int64 (q, >= K) pin ids, best first, zero-padded.

    Recall is the share of a query's answers among the first K. NDCG's gain is the relevance itself, discounted
    by log2(place + 1). MRR is 1 over the place of the first answer of the query's highest relevance, 0 past K.
    Raises ValueError for a shape that does not fit.
    """
    if ranked.ndim != 2 or len(ranked) != len(judged) or ranked.shape[1] < K:
        raise ValueError(f"{len(judged)} queries need {K} pins each, got an array {ranked.shape}")
    gains = _gains(ranked[:, :K], judged)
    counts = np.diff(judged.offsets)
    discount = 1 / np.log2(np.arange(2, K + 2))
    best = np.zeros((len(judged), K))
    order = np.lexsort((-judged.relevance, judged.owner))
    place = np.arange(len(judged.pins)) - judged.offsets[judged.owner]
    early = place < K
    best[judged.owner[early], place[early]] = judged.relevance[order][early]
    highest = best[:, :1]
    right = (gains > 0) & (gains >= highest)
    first = np.where(right.any(axis=1), right.argmax(axis=1), K)
    return {
        RECALL: (gains > 0).sum(axis=1) / counts,
        NDCG: (gains @ discount) / (best @ discount),
        MRR: np.where(first < K, 1 / (first + 1.0), 0.0),
    }


def _gains(ranked: Ints, judged: JudgedQueries) -> Values:
    """(q, k): relevance of the pin at each place, 0 for padding."""
    size = int(max(ranked.max(initial=0), judged.pins.max(initial=0))) + 1
    keys = judged.owner * size + judged.pins
    order = np.argsort(keys)
    asked = np.arange(len(ranked))[:, None] * size + ranked
    at = np.minimum(np.searchsorted(keys, asked, sorter=order), max(len(keys) - 1, 0))
    found = order[at]
    return np.where((keys[found] == asked) & (ranked > 0), judged.relevance[found], 0.0)
