"""AUC as a mean over users, so that two rankers' can be held against each other user by user."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def auc_by_user(label: ArrayLike, score: ArrayLike, users: ArrayLike) -> Floats:
    """(u,): what each of the u users' rows add to the AUC of all rows (n,), in ascending order of user.

    Their mean is the AUC, and its error over users is that of rows that stand together by user (Obuchowski,
    Biometrics 53, 1997): a positive counts by the share of negatives below it, a negative by that of positives
    above, ties half. NaN where all labels are alike.
    """
    y, s = np.asarray(label) > 0, np.asarray(score, np.float64)
    _, owner = np.unique(np.asarray(users), return_inverse=True)
    many = int(owner.max(initial=-1)) + 1
    if y.all() or not y.any():
        return np.full(many, np.nan)
    placed = np.where(y, _below(s, np.sort(s[~y])), 1 - _below(s, np.sort(s[y])))
    auc = placed[y].mean()
    share = np.where(y, 1 / y.sum(), 1 / (~y).sum())
    return auc + many * np.bincount(owner, (placed - auc) * share)


def _below(values: Floats, others: Floats) -> Floats:
    """Share of `others`, ascending, below each of `values`, ties half."""
    left, right = (np.searchsorted(others, values, side=side) for side in ("left", "right"))
    return (left + right) / (2 * len(others))
