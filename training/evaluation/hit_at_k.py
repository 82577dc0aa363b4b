"""HIT@K/h: how many pins at the top of a request carry action h (TransAct, KDD 2023, section 5).

Rows are grouped into chunks, one ranking request of one user each, and every chunk is sorted by the final score
that pins are ranked by, whatever the head. With beta(c, h) the number of pins among the first K of chunk c that
carry label h,

    HIT@K/h = sum over users and their chunks of beta(c, h) / number of users

so it may exceed 1. Higher is better for what users want, lower for hides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Hits:
    """HIT@K of every head, before the mean over users."""

    k: int
    user_ids: Ints
    """(U,) every user with a row, ascending."""
    values: Doubles
    """(U, H) labelled pins among the first K, summed over the user's chunks."""
    chunks: int

    def hit(self) -> Doubles:
        """HIT@K of each head, (H,)."""
        return self.values.mean(axis=0)


def hit_at_k(
    user_ids: ArrayLike,
    request_ids: ArrayLike,
    score: ArrayLike,
    labels: ArrayLike,
    k: int,
    *,
    seed: int = 0,
) -> Hits:
    """HIT@K over n rows, for every column of labels.

    `user_ids`, `request_ids` and `score` are (n,), `labels` (n, H) 0 or 1, or the chance of
    1 where a simulation knows it. Equal scores are ordered by chance (`seed`): the order in which rows stand is
    often that in which they were shown, and would flatter the policy that chose it. A chunk with fewer than K
    rows counts all of them. Raises ValueError for columns of different lengths, no rows, a score that is not
    finite and labels outside [0, 1].
    """
    users, requests = np.asarray(user_ids), np.asarray(request_ids)
    s, y = np.asarray(score, np.float64), np.asarray(labels)
    if k < 1:
        raise ValueError(f"k is {k}; a list has at least one place")
    if y.ndim != 2 or not len(y) == len(users) == len(requests) == len(s):
        raise ValueError(
            f"labels {y.shape}, {len(users)} users, {len(requests)} requests and {len(s)} scores"
            " must have a row each"
        )
    if len(y) == 0:
        raise ValueError("there are no rows to measure on")
    if not np.isfinite(s).all():
        raise ValueError(f"{int((~np.isfinite(s)).sum())} scores are not finite")
    if not ((y >= 0) & (y <= 1)).all():
        raise ValueError("labels must be 0 or 1, or chances between them")
    names, user = np.unique(users, return_inverse=True)
    _, request = np.unique(requests, return_inverse=True)
    order = np.lexsort((np.random.default_rng(seed).random(len(s)), -s, request, user))
    user, request = user[order], request[order]
    first = np.concatenate([[True], (user[1:] != user[:-1]) | (request[1:] != request[:-1])])
    starts = np.flatnonzero(first)
    rank = np.arange(len(s)) - np.repeat(starts, np.diff(np.append(starts, len(s))))
    top = rank < k
    values = np.zeros((len(names), y.shape[1]))
    np.add.at(values, user[top], y[order[top]])
    return Hits(k, names, values, len(starts))
