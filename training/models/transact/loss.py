"""The multi-task loss with label weights (arXiv 2306.00248, section 3.2).

    L = mean over rows of  w_u sum_h w_h BCE(f_h, y_h),   w_h = sum_a M[h, a] y_a + base_h [no action]

M read literally gives a row without any action no weight at all, and nine of ten rows would teach nothing;
`base` is their weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from training.models.transact.config import Head


def label_matrix(heads: Sequence[Head], actions: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """M (H, A) float32, base (H,) float32, and the label column each head answers for, (H,) int64.

    `actions` name the columns of the labels. Raises ValueError for an action that is none of them.
    """
    known = list(actions)
    for head in heads:
        for action in (head.action, *head.weights):
            if action not in known:
                raise ValueError(f"head {head.action} names action {action!r}; labels hold: {', '.join(known)}")
    matrix = torch.tensor([[head.weights.get(a, head.other) for a in known] for head in heads])
    base = torch.tensor([head.base for head in heads])
    return matrix.float(), base.float(), torch.tensor([known.index(head.action) for head in heads])


def row_weights(labels: Tensor, matrix: Tensor, base: Tensor) -> Tensor:
    """w_h of every row, (B, H), from multi-hot labels (B, A)."""
    labels = labels.to(matrix.dtype)
    return labels @ matrix.t() + (labels.sum(dim=1, keepdim=True) == 0) * base


def multi_task_loss(
    logits: Tensor,
    labels: Tensor,
    matrix: Tensor,
    base: Tensor,
    columns: Tensor,
    user_weights: Tensor | None = None,
    targets: Tensor | None = None,
) -> Tensor:
    """The loss, a scalar. `logits` (B, H) float32, `labels` (B, A) multi-hot, the rest by `label_matrix`;
    `user_weights` (B,), 1 each by default; `targets` (B, H) in [0, 1] stand where each head's labels do."""
    weights = row_weights(labels, matrix, base)
    if user_weights is not None:
        weights = weights * user_weights[:, None]
    wanted = (labels[:, columns] if targets is None else targets).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, wanted, weight=weights, reduction="sum") / len(logits)
