"""Max-margin loss over shared negatives and hard ones (paper, equation 1 and section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def max_margin_loss(
    queries: Tensor, positives: Tensor, negatives: Tensor, allowed: Tensor, margin: float
) -> Tensor:
    """Mean of max(0, q.n - q.i + margin) over the allowed (query, negative) pairs; 0 where none is allowed.

    `queries`, `positives` (b, d); `negatives` (n, d), shared by all queries, or (b, n, d), each query's own;
    `allowed` (b, n) bool, False where the negative is the query or its positive again.
    """
    right = (queries * positives).sum(dim=1)  # (b,)
    if negatives.dim() == 2:
        wrong = queries @ negatives.t()  # (b, n)
    else:
        wrong = torch.bmm(negatives, queries[:, :, None])[:, :, 0]
    hinge = F.relu(wrong - (right - margin)[:, None])
    mask = allowed.to(hinge.dtype)
    return (hinge * mask).sum() / mask.sum().clamp(min=1)


def allowed_negatives(query_pins: Tensor, positive_pins: Tensor, negative_pins: Tensor) -> Tensor:
    """(b, n) bool: which negatives are neither the query nor a duplicate of its positive.

    `negative_pins` is (n,) when shared, (b, n) when each query has its own; -1 there is no negative at all.
    """
    pins = negative_pins if negative_pins.dim() == 2 else negative_pins[None, :]
    return (pins != query_pins[:, None]) & (pins != positive_pins[:, None]) & (pins >= 0)
