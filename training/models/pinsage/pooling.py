"""Neighbourhood pooling by `F.embedding_bag`: no tensor of (rows, T, width) is ever made.

The gradient of a weighted sum is the weighted sum over the transposed edges, so the backward pass is the same
fast gather kernel and not torch's scattered accumulation.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.models.pinsage.blocks import Adjacency
from training.models.pinsage.config import Pooling


def pool(projected: Tensor, adjacency: Adjacency, pooling: Pooling) -> Tensor:
    """Pooled neighbours, (rows, m), of `projected` (sources, m) float32; a row without neighbours is zero.

    Mean pooling takes the adjacency of `Neighbourhoods.even()`: weights are data, the sum is the same.
    """
    if pooling is Pooling.MAX:
        return F.embedding_bag(
            adjacency.indices, projected, adjacency.offsets, mode="max", include_last_offset=True
        )
    return weighted_sum(projected, adjacency)


def weighted_sum(projected: Tensor, adjacency: Adjacency) -> Tensor:
    """Sum of weight * source over the edges of each row, (rows, m); differentiable in `projected`."""
    return _WeightedSum.apply(projected, adjacency)  # type: ignore[no-any-return]


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projected: Tensor, adjacency: Adjacency) -> Tensor:
        ctx.adjacency = adjacency
        return _bag(projected, adjacency)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None
        return _bag(gradient.contiguous(), ctx.adjacency.transposed), None


def _bag(rows: Tensor, adjacency: Adjacency) -> Tensor:
    if len(adjacency.indices) == 0:
        return rows.new_zeros((adjacency.rows, rows.shape[1]))
    return F.embedding_bag(
        adjacency.indices,
        rows,
        adjacency.offsets,
        mode="sum",
        per_sample_weights=adjacency.weights,
        include_last_offset=True,
    )
