"""Sampled softmax over one pool of negatives, each logit corrected by how often its pin is drawn (section 3.2).

    L = -log e^{s(u, p) - log Q(p)} / (e^{s(u, p) - log Q(p)} + sum_j e^{s(u, n_j) - log Q(n_j)})

with s(u, p) = <u, p> / tau. Q(v) is how often v is expected in the pool: as a positive of the batch, at the
rate the sketch counts, and as a uniform draw. Its optimum is s(u, v) = log P(v | u) + a constant of u, whatever
Q is; without the correction it is log P(v | u) - log Q(v). For uniform negatives alone Q is one constant and
cancels.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor


class Negatives(StrEnum):
    """What the pool of negatives holds."""

    RANDOM = "random"
    """Uniform draws from the catalogue."""
    IN_BATCH = "in-batch"
    """Positives of the batch."""
    MIXED = "mixed"


def log_expected(in_batch: int, frequency: Tensor, uniform: int, catalogue: int) -> Tensor:
    """log of how often each pin is expected in a pool of `in_batch` positives and `uniform` draws, (n,).

    `frequency` (n,) is each pin's share of all positives, `catalogue` the number of pins drawn from evenly.
    """
    return (in_batch * frequency + uniform / max(catalogue, 1)).clamp(min=1e-12).log()


def sampled_softmax(
    users: Tensor,
    positives: Tensor,
    pool: Tensor,
    temperature: Tensor,
    *,
    allowed: Tensor,
    weights: Tensor,
    log_q: Tensor | None = None,
    pool_log_q: Tensor | None = None,
) -> Tensor:
    """Weighted sum of every pair's loss.

    `users`, `positives` (n, D) unit, pair by pair; `pool` (m, D) shared by all; `allowed` (n, m) bool, False
    where the negative is one of that user's own positives; `weights` (n,), which sum to 1; `log_q` (n,) of the
    positives and `pool_log_q` (m,) of the negatives, both or neither.
    """
    scaled = users / temperature
    right = (scaled * positives).sum(dim=1)  # (n,)
    if log_q is not None and pool_log_q is not None:
        right = right - log_q
        wrong = torch.addmm(-pool_log_q, scaled, pool.t())  # (n, m)
    else:
        wrong = scaled @ pool.t()
    wrong = wrong.masked_fill_(~allowed, -torch.inf)
    total = torch.logaddexp(right, wrong.logsumexp(dim=1)) if wrong.shape[1] else right
    return ((total - right) * weights).sum()


def even_weights(owners: Tensor, users: int) -> Tensor:
    """Weight of each pair (n,) so that every user that has any counts the same, summing to 1."""
    pairs = torch.bincount(owners, minlength=users)  # (users,)
    return 1 / (pairs[owners] * (pairs > 0).sum())
