"""What one step sees, a pure function of (seed, epoch, step), and how likely each pin was to be in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


SHARE = 8
"""Parts of a batch, of which a query has one at most where it has pairs for more."""


@dataclass(frozen=True)
class Batch:
    """b pairs, the u distinct queries they have, and the pool of m distinct pins they are told apart from."""

    queries: Ints  # (u,) places of the queries
    owner: Ints  # (b,) which of `queries` each pair has
    pool: Ints  # (m,) catalogue rows, distinct: the batch's own pins first, then random ones
    positive: Ints  # (b,) place of each pair's pin in the pool
    answers: NDArray[np.bool_]  # (u, m) pins that answer the query in this batch

    def softmax(self, scores: Tensor) -> Tensor:
        """Cross-entropy of each pair's pin among the pool by `scores` (u, m), mean over the pairs.

        Other answers of its query are no negatives of a pair.
        """
        owner, positive = torch.from_numpy(self.owner), torch.from_numpy(self.positive)
        blocked = torch.from_numpy(self.answers)[owner]
        blocked[torch.arange(len(owner)), positive] = False
        return F.cross_entropy(scores[owner].masked_fill(blocked, -torch.inf), positive)


@dataclass(frozen=True)
class BatchPlan:
    """How pairs become batches. Those of a query stand together, so that it is encoded about once an epoch, but
    fill no more than one part in SHARE of a batch: it has to be told from others. Creating a plan does nothing.
    """

    query: Ints  # (n,) place of each pair's query
    rows: Ints  # (n,) catalogue row of each pair's pin
    size: int
    """Pairs a batch, at most."""
    random: int
    """Pins drawn evenly from `candidates` beside the batch's own."""
    candidates: Ints
    """Catalogue rows."""
    seed: int

    def order(self, epoch: int) -> list[Ints]:
        """Pairs of every batch of `epoch`."""
        rng = np.random.default_rng([self.seed, epoch])
        pairs = rng.permutation(len(self.rows))
        nth = pd.Series(self.query[pairs]).groupby(self.query[pairs]).cumcount().to_numpy()
        most = max(1, self.size // SHARE)
        _, group = np.unique(np.stack([self.query[pairs], nth // most]), axis=1, return_inverse=True)
        place = rng.permutation(int(group.max(initial=-1)) + 1)[group]
        pairs, place = pairs[np.argsort(place, kind="stable")], np.sort(place)
        ends = np.append(np.flatnonzero(np.diff(place)) + 1, len(pairs))  # of each group
        batches, start = [], 0
        while start < len(pairs):
            stop = ends[np.searchsorted(ends, start + self.size, side="right") - 1]
            batches.append(pairs[start:stop])
            start = stop
        return batches

    def batch(self, epoch: int, step: int, pairs: Ints) -> Batch:
        """Batch `step` of `epoch`, whose pairs `order` chose."""
        queries, owner = np.unique(self.query[pairs], return_inverse=True)
        own, positive = np.unique(self.rows[pairs], return_inverse=True)
        pool = own
        if self.random:
            rng = np.random.default_rng([self.seed, epoch, step])
            drawn = rng.choice(self.candidates, min(self.random, len(self.candidates)), replace=False)
            pool = np.concatenate([own, drawn[~np.isin(drawn, own)]])
        answers = np.zeros((len(queries), len(pool)), bool)
        answers[owner, positive] = True
        return Batch(queries, owner, pool, positive, answers)

    def log_q(self, catalogue: int) -> Floats:
        """Log of the chance that a pin is in a batch's pool, (catalogue,): by its pairs, or by the draw.

        Pins that can be in no pool have that of one pair.
        """
        share = np.bincount(self.rows, minlength=catalogue) / max(1, len(self.rows))
        absent = (1 - share) ** min(self.size, len(self.rows))  # of the batch's own
        drawn = np.zeros(catalogue)
        if self.random:
            drawn[self.candidates] = min(1.0, self.random / len(self.candidates))
        inside = 1 - absent * (1 - drawn)
        return np.log(np.maximum(inside, 1 / max(1, len(self.rows)))).astype(np.float32)
