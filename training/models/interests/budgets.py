"""Serving several embeddings at the price of one: budgets, one search each, dedup, round robin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from training.models.interests.inference import UserEmbeddings

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

FOLLOWED = 5
"""Followed topics asked for a request (K_ex)."""

Search = Callable[[Floats, int], Ints]
"""(one query (d,), k) -> at most k pin ids, best first; 0 pads."""


def weighted_budgets(weights: Floats, total: int) -> Ints:
    """`total` results over interests in proportion to `weights`, (K,) int64, summing to `total`.

    By largest remainder, ties to the earlier interest, and no interest is left without a result while others
    have two. Raises ValueError for weights that are negative or sum to nothing.
    """
    weights = np.asarray(weights, np.float64)
    if not len(weights):
        return np.empty(0, np.int64)
    whole = float(weights.sum())
    if not (weights.min() >= 0 and 0 < whole < np.inf):
        raise ValueError(
            f"weights {weights.tolist()} share nothing out; they must be non-negative, some above 0"
        )
    exact = [weight / whole * total for weight in weights.tolist()]
    budgets = [int(share) for share in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: budgets[i] - exact[i])
    for i in by_rest[: total - sum(budgets)]:
        budgets[i] += 1
    for starved in [i for i, share in enumerate(exact) if budgets[i] == 0 and share > 0]:
        richest = budgets.index(max(budgets))
        if budgets[richest] < 2:
            break
        budgets[richest] -= 1
        budgets[starved] += 1
    return np.array(budgets, np.int64)


def equal_budgets(interests: int, total: int) -> Ints:
    """`total` results over `interests` as evenly as whole numbers allow, the earlier ones first."""
    return np.array([total // interests + (i < total % interests) for i in range(interests)], np.int64)


def sample_followed(followed: Ints, seed: Sequence[int], count: int = FOLLOWED) -> Ints:
    """At most `count` distinct topics of those a user follows, drawn evenly by `seed` (user, request)."""
    distinct = np.unique(np.asarray(followed, np.int64))
    distinct = distinct[distinct > 0]
    if len(distinct) <= count:
        return distinct
    return np.random.default_rng(list(seed)).choice(distinct, count, replace=False)


def round_robin(found: Sequence[Ints]) -> tuple[Ints, Ints]:
    """Every interest's best, then every interest's second, and so on, each pin once.

    Returns (pin ids, interest that brought each). A pin that several interests found stays where it first
    comes; padding (0) is dropped.
    """
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    pins = np.concatenate([np.asarray(f, np.int64) for f in found])
    owner = np.repeat(np.arange(len(found)), [len(f) for f in found])
    rank = np.concatenate([np.arange(len(f)) for f in found])
    order = np.lexsort((owner, rank))
    pins, owner = pins[order], owner[order]
    pins, owner = pins[pins != 0], owner[pins != 0]
    first = np.sort(np.unique(pins, return_index=True)[1])
    return pins[first], owner[first]


def retrieve(user: UserEmbeddings, search: Search, total: int) -> tuple[Ints, Ints]:
    """(pin ids, interest of each) of all of a user's embeddings for at most `total` results asked for.

    Implicit interests share the budget by weight; topics come with equal weights and so share it equally.
    """
    budgets = weighted_budgets(user.weights, total)
    return round_robin([search(v, int(k)) for v, k in zip(user.vectors, budgets, strict=True) if k > 0])
