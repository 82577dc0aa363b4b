"""Hit-rate@K and scaled MRR on held-out later pairs (paper, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.pinsage.pairs import Pairs

Floats = NDArray[np.float32]

HIT_AT = (10, 50, 100)
MRR_SCALE = 10
"""Ranks a step of the scaled MRR holds. The paper's 100 is for 5 million candidates."""


@dataclass(frozen=True)
class RankMetrics:
    """How well vectors rank the right answers of held-out pairs."""

    pairs: int
    candidates: int
    hit_rate: dict[int, float]
    """Share of pairs whose positive is among the K nearest of its query, by K."""
    mrr: float
    """Mean of 1 / ceil(rank / MRR_SCALE)."""

    def named(self, prefix: str = "") -> dict[str, float]:
        """Flat metrics for the registry."""
        hits = {f"{prefix}hit_rate_at_{k}": value for k, value in self.hit_rate.items()}
        return hits | {f"{prefix}scaled_mrr": self.mrr}


def pair_ranks(
    vectors: Floats, pairs: Pairs, *, candidates: NDArray[np.integer] | None = None, block: int = 512
) -> NDArray[np.int64]:
    """Rank, from 1, of each pair's positive among `candidates` (default: all pins) by inner product.

    The query is never its own candidate. A candidate that ties with the positive counts as before it, so
    vectors that collapsed to one point rank last, not first. `candidates` are distinct rows; a positive
    that is not among them is ranked as if it were. Vectors that are not finite raise ValueError.
    """
    if not np.isfinite(vectors).all():
        raise ValueError("vectors hold numbers that are not finite")
    rows = np.arange(len(vectors)) if candidates is None else np.asarray(candidates)
    pool = np.ascontiguousarray(vectors[rows].T)
    place = np.full(len(vectors), -1, np.int64)
    place[rows] = np.arange(len(rows))
    ranks = np.empty(len(pairs), np.int64)
    for start in range(0, len(pairs), block):
        queries, positives = pairs.queries[start : start + block], pairs.positives[start : start + block]
        scores = vectors[queries] @ pool  # (b, candidates)
        own = place[queries]
        scores[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
        at = place[positives]
        inside = at >= 0
        right = np.einsum("bd,bd->b", vectors[queries], vectors[positives])
        # the very number the matrix product gave, so that a positive ties with itself alone
        right[inside] = scores[np.flatnonzero(inside), at[inside]]
        ahead = (scores >= right[:, None]).sum(axis=1)
        ranks[start : start + block] = ahead + ~inside
    return ranks


def rank_metrics(ranks: NDArray[np.int64], candidates: int, hit_at: tuple[int, ...] = HIT_AT) -> RankMetrics:
    """Metrics of `pair_ranks`. No pairs at all give NaN, not a number that looks like a result."""
    if len(ranks) == 0:
        return RankMetrics(0, candidates, dict.fromkeys(hit_at, float("nan")), float("nan"))
    hits = {k: float((ranks <= k).mean()) for k in hit_at}
    return RankMetrics(len(ranks), candidates, hits, float((1 / np.ceil(ranks / MRR_SCALE)).mean()))


def evaluate_pairs(
    vectors: Floats, pairs: Pairs, *, candidates: NDArray[np.integer] | None = None
) -> RankMetrics:
    """`pair_ranks` and `rank_metrics` together."""
    count = len(vectors) if candidates is None else len(candidates)
    return rank_metrics(pair_ranks(vectors, pairs, candidates=candidates), count)


def popularity_metrics(degrees: NDArray[np.integer], pairs: Pairs) -> RankMetrics:
    """The same for an order by degree that ignores the query; ties by row."""
    order = np.argsort(-degrees, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(1, len(order) + 1)
    ranks = place[pairs.positives] - (place[pairs.queries] < place[pairs.positives])
    return rank_metrics(ranks, len(degrees))


def random_pair_kurtosis(vectors: Floats, *, pairs: int = 20_000, seed: int = 7) -> float:
    """Excess kurtosis of the cosine of random pins: lower spreads the space wider (paper, section 4.3)."""
    from scipy.stats import kurtosis

    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, len(vectors), (2, pairs))
    cosine = np.einsum("nd,nd->n", vectors[a], vectors[b])[a != b]
    return float(kurtosis(cosine))
