"""What a cut in the funnel costs: the share of pins a user finally acted on that it lets through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.evaluation.spread import Spread

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class FunnelRecall:
    """Recall at every budget, request by request."""

    budgets: tuple[int, ...]
    values: Mapping[str, Doubles]
    """By order, (budgets, R): share of a request's engaged pins among its first `budget`."""
    requests: int
    """R: requests with an engaged pin; the others have nothing to lose."""

    def mean(self, order: str, budget: int) -> float:
        """Mean over requests. Raises KeyError for another order, ValueError for another budget."""
        return float(self.values[order][self.budgets.index(budget)].mean())

    def gain(self, order: str, other: str, budget: int) -> Spread:
        """`order` less `other`, request by request, with its 95 % interval."""
        row = self.budgets.index(budget)
        return Spread.of((self.values[order][row] - self.values[other][row])[None])


def funnel_recall(
    request_ids: ArrayLike,
    engaged: ArrayLike,
    orders: Mapping[str, ArrayLike],
    budgets: Sequence[int],
    *,
    logged: ArrayLike | None = None,
) -> FunnelRecall:
    """Recall of finally engaged pins among those that each order would keep.

    Parameters
    ----------
    request_ids, engaged : (n,) a row each candidate that was fetched, shown or not; engaged is 0 or 1.
    orders : scores (n,) by name, larger kept first: the light ranker's beside the sources' own.
    budgets : how many candidates go on.
    logged : (n,) chance with which the row was logged, in (0, 1]. Each row stands for 1 / chance of its like:
    a pin
        goes on where fewer than `budget` are expected above it. 1 for all if left out.

    What nobody was shown nobody could act on: recall flatters whoever agrees with the policy that chose, so
    compare orders with one another. Equal scores keep the rows' order. Raises ValueError for columns of
    different lengths, chances outside their range, scores that are not finite, and where no request has an
    engaged pin.
    """
    requests, happened = np.asarray(request_ids), np.asarray(engaged)
    chance = np.ones(len(requests)) if logged is None else np.asarray(logged, np.float64)
    if not len(requests) == len(happened) == len(chance):
        raise ValueError(f"{len(requests)} requests, {len(happened)} engaged and {len(chance)} logged differ")
    if not np.isin(happened, (0, 1)).all():
        raise ValueError("engaged must be 0 or 1")
    if not ((chance > 0) & (chance <= 1)).all():
        raise ValueError("logged is the chance that a row was kept; it lies in (0, 1]")
    _, request = np.unique(requests, return_inverse=True)
    total = np.bincount(request, happened)
    kept = total > 0
    if not kept.any():
        raise ValueError("no request has an engaged pin; there is nothing to keep")
    values = {}
    for name, given in orders.items():
        score = np.asarray(given, np.float64)
        if score.shape != request.shape or not np.isfinite(score).all():
            raise ValueError(f"order {name}: {len(request)} finite scores are needed")
        above = _expected_above(request, score, 1 / chance)
        found = [np.bincount(request, happened * (above < budget)) / np.maximum(total, 1) for budget in budgets]
        values[name] = np.array(found)[:, kept]
    return FunnelRecall(tuple(budgets), values, int(kept.sum()))


def _expected_above(request: NDArray[np.int64], score: Doubles, stands_for: Doubles) -> Doubles:
    """How many candidates of its request are expected to stand above each row, (n,)."""
    order = np.lexsort((-score, request))
    weight = stands_for[order]
    before = np.cumsum(weight) - weight
    first = np.concatenate([[True], request[order][1:] != request[order][:-1]])
    start = before[first][np.cumsum(first) - 1]
    out = np.empty(len(score))
    out[order] = before - start
    return out
