"""Attention written out as two batched products and a softmax; torch's own for inference in float32.

On CPUs it is faster than torch's fused kernel at these lengths, in bfloat16 more than twice, forward and
backward together; its price is the scores of every head kept for the backward pass. Forward alone, in float32,
the fused kernel takes six to seven tenths of its time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.models.pinnerformer.packing import Packing


def causal_attention(qkv: Tensor, heads: int) -> Tensor:
    """Every token over itself and the ones before it, (B, L, 3H) -> (B, L, H)."""
    batch, length, width = qkv.shape
    q, k, v = (_by_head(part, heads) for part in qkv.chunk(3, dim=2))  # (B x heads, L, H / heads)
    mask = torch.full((length, length), -torch.inf, dtype=qkv.dtype).triu_(1)
    scores = torch.baddbmm(mask.expand(len(q), length, length), q, k.transpose(1, 2), alpha=q.shape[2] ** -0.5)
    seen = torch.bmm(scores.softmax(dim=2), v)
    return seen.view(batch, heads, length, width // 3 // heads).transpose(1, 2).flatten(2)


def fused_attention(qkv: Tensor, heads: int) -> Tensor:
    """`causal_attention` by torch's kernel."""
    q, k, v = (part.transpose(1, 2) for part in qkv.unflatten(2, (3, heads, -1)).unbind(2))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)


def chosen_attention(queries: Tensor, kv: Tensor, places: Tensor, heads: int) -> Tensor:
    """Some tokens over themselves and the ones before them: (B, S, H) of the tokens at `places` (B, S), over
    (B, L, 2H) -> (B, S, H).
    """
    (batch, chosen, width), length = queries.shape, kv.shape[1]
    k, v = (_by_head(part, heads) for part in kv.chunk(2, dim=2))
    scores = torch.bmm(_by_head(queries, heads), k.transpose(1, 2)).view(batch, heads, chosen, length)
    beyond = torch.arange(length) > places[:, None, :, None]  # (B, 1, S, L)
    weights = (scores * (width // heads) ** -0.5).masked_fill(beyond, -torch.inf).softmax(dim=3)
    seen = torch.bmm(weights.flatten(0, 1), v)
    return seen.view(batch, heads, chosen, -1).transpose(1, 2).flatten(2)


def newest_attention(queries: Tensor, normed: Tensor, packing: Packing, to_kv: Tensor, heads: int) -> Tensor:
    """Every sequence's newest token over all its tokens, without their keys and values being made.

    `queries` (U, H); `normed` (T, H), what keys and values come from, packed; `to_kv` (2H, H) -> (U, H). A
    query goes through the keys' matrix once instead of every token, and what attention took goes through the
    values': the same sums in another order.
    """
    width = queries.shape[1]
    to_keys, to_values = to_kv.view(2, heads, width // heads, width)
    by_head = queries.view(-1, heads, width // heads).transpose(0, 1) * (width // heads) ** -0.5
    asked = torch.bmm(by_head, to_keys).transpose(0, 1)  # (U, heads, H)
    taken, start = [], 0
    for bucket, tokens in zip(packing.buckets, packing.padded(normed), strict=True):
        scores = torch.bmm(asked[start : start + len(tokens)], tokens.transpose(1, 2))  # (B, heads, L)
        weights = scores.masked_fill(~bucket.real[:, None], -torch.inf).softmax(dim=2)
        taken.append(torch.bmm(weights, tokens))
        start += len(tokens)
    return torch.bmm(torch.cat(taken).transpose(0, 1), to_values.transpose(1, 2)).transpose(0, 1).flatten(1)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(B, L, H) -> (B x heads, L, H / heads)."""
    batch, length, width = x.shape
    parts = x.view(batch, length, heads, width // heads).transpose(1, 2)
    return parts.reshape(batch * heads, length, width // heads)
