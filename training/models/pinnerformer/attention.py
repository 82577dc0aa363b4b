"""Attention written out as two batched products and a softmax.

On CPUs it is faster than torch's fused kernel at these lengths, in bfloat16 more than twice, forward and
backward together; its price is the (L, L) scores of every head kept for the backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor


def causal_attention(qkv: Tensor, heads: int) -> Tensor:
    """Every token over itself and the ones before it, (B, L, 3H) -> (B, L, H)."""
    batch, length, width = qkv.shape
    q, k, v = (_by_head(part, heads) for part in qkv.chunk(3, dim=2))  # (B x heads, L, H / heads)
    mask = torch.full((length, length), -torch.inf, dtype=qkv.dtype).triu_(1)
    scores = torch.baddbmm(mask.expand(len(q), length, length), q, k.transpose(1, 2), alpha=q.shape[2] ** -0.5)
    seen = torch.bmm(scores.softmax(dim=2), v)
    return seen.view(batch, heads, length, width // 3 // heads).transpose(1, 2).flatten(2)


def newest_attention(query: Tensor, kv: Tensor, lengths: Tensor, heads: int) -> Tensor:
    """One query a row over the row's first `lengths` tokens: (B, H) and (B, L, 2H) -> (B, H)."""
    batch, length, _ = kv.shape
    k, v = (_by_head(part, heads) for part in kv.chunk(2, dim=2))
    q = query.reshape(batch * heads, 1, -1)
    beyond = torch.arange(length) >= lengths[:, None]  # (B, L)
    scores = torch.bmm(q, k.transpose(1, 2)).view(batch, heads, length) * q.shape[2] ** -0.5
    weights = scores.masked_fill(beyond[:, None], -torch.inf).softmax(dim=2)
    return torch.bmm(weights.view(batch * heads, 1, length), v).view(batch, -1)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(B, L, H) -> (B x heads, L, H / heads)."""
    batch, length, width = x.shape
    parts = x.view(batch, length, heads, width // heads).transpose(1, 2)
    return parts.reshape(batch * heads, length, width // heads)
