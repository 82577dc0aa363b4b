"""Two releases on the same users or rows: the difference of their means, and how sure it is.

The interval is a bootstrap over users (percentile method; Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, section 13.3): rows of one user rise and fall together, so users are drawn, not rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from validation.gate_results import Paired

Floats = NDArray[np.float64]

DRAWS = 1_000
TAIL = 0.05
"""Share of the draws below the interval, and above it: each of its ends is a one-sided 95 % bound."""

_CELLS = 4_000_000
"""Draws x users held in memory at once."""


def paired(
    metric: str,
    candidate: Floats,
    champion: Floats,
    users: NDArray[np.int64] | None = None,
    *,
    larger_is_better: bool = True,
    seed: int = 0,
) -> Paired:
    """Compare two aligned samples (n,); `users` (n,) say whose each value is, None: each is another user's.

    Raises ValueError where they are not aligned, or empty.
    """
    if not 0 < len(candidate) == len(champion):
        raise ValueError(f"{metric}: {len(candidate)} and {len(champion)} values cannot be paired")
    low, high = bootstrap(candidate - champion, users, seed=seed)
    return Paired(
        metric=metric,
        candidate=float(candidate.mean()),
        champion=float(champion.mean()),
        low=low,
        high=high,
        n=len(candidate),
        larger_is_better=larger_is_better,
    )


def bootstrap(
    values: Floats, users: NDArray[np.int64] | None = None, *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """(low, high) of the mean of `values` (n,): its `TAIL` and 1 - `TAIL` quantiles over draws of users."""
    if users is None:
        sums, counts = values, np.ones(len(values))
    else:
        _, owner = np.unique(users, return_inverse=True)
        sums, counts = np.bincount(owner, values), np.bincount(owner).astype(np.float64)
    rng, n = np.random.default_rng(seed), len(sums)
    at_once = max(1, _CELLS // n)
    means = []
    for start in range(0, draws, at_once):
        drawn = rng.integers(n, size=(min(at_once, draws - start), n))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [TAIL, 1 - TAIL])
    return float(low), float(high)
