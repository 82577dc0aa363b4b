"""Sampled softmax over a pool of items with logQ, on the embedding that the engagement is associated with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.models.interests.config import Association, InterestsConfig


def sampled_softmax(queries: Tensor, pool: Tensor, positives: Tensor, log_q: Tensor, blocked: Tensor) -> Tensor:
    """Mean of -log e^(q.y - log p_y) / (e^(q.y - log p_y) + sum_k e^(q.k - log p_k)).

    `queries` (n, d), already over the temperature; `pool` (u, d) distinct items; `positives` (n,) their place
    in the pool; `log_q` (u,); `blocked` (n, u) bool: items that are no negatives of a query (its user's own).
    """
    logits = queries @ pool.t() - log_q
    own = F.one_hot(positives, len(pool)).bool()
    return F.cross_entropy(logits.masked_fill(blocked & ~own, -torch.inf), positives)


def associated(
    vectors: Tensor, mask: Tensor, items: Tensor, config: InterestsConfig, generator: torch.Generator | None
) -> Tensor:
    """The query (n, d) that each engagement trains; `vectors` (n, K, d) its user's, `items` (n, d) its pin's.

    Dead slots take no part. Gumbel noise is drawn from `generator`; without one the best scoring is taken.
    """
    scores = torch.einsum("nkd,nd->nk", vectors, items).masked_fill(~mask, -torch.inf)
    if config.association is Association.LABEL_AWARE:
        shares = torch.softmax(config.label_power * scores, dim=1)
        return F.normalize(torch.einsum("nk,nkd->nd", shares, vectors), dim=1)
    if config.association is Association.GUMBEL and generator is not None:
        uniform = torch.rand(scores.shape, generator=generator).clamp(1e-9, 1 - 1e-7)
        noisy = (scores / config.temperature - torch.log(-torch.log(uniform))) / config.gumbel_temperature
        soft = torch.softmax(noisy, dim=1)
        hard = F.one_hot(soft.argmax(dim=1), soft.shape[1]).to(soft.dtype)
        return torch.einsum("nk,nkd->nd", hard + soft - soft.detach(), vectors)
    return vectors[torch.arange(len(vectors)), scores.argmax(dim=1)]
