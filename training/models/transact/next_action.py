"""The next-action loss of TransAct V2 (arXiv 2506.02267): a token says which pin was acted on after it.

    L = -sum_t log e^{<u(t), p(t+1)>} / (e^{<u(t), p(t+1)>} + sum_n e^{<u(t), n>})

n are pins the user was shown and did not act on, p(t+1) those of positive actions. The mean over all such t
of the batch is taken, so that its weight means the same for histories of any length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.models.transact.config import NextAction
from training.models.transact.inputs import Rows
from training.models.transact.sequence import Encoded


class NextActionHead(nn.Module):
    """u(t): a token's output in the space of projected pins."""

    def __init__(self, width: int, pin_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, pin_dim)

    def forward(self, columns: Tensor) -> Tensor:
        """(B, L, d) -> (B, L, pin_dim)."""
        return self.query(columns)


def next_action_loss(
    head: NextActionHead, settings: NextAction, rows: Rows, encoded: Encoded, pins: Tensor
) -> Tensor:
    """The loss, a scalar; 0 where no row has a pair and a negative.

    `pins` (n, pin_dim) are the projected vectors of `rows.content`. Columns are those of tokens newest first
    (an appended candidate stands before them). Raises ValueError without negatives.
    """
    if rows.negatives is None:
        raise ValueError("the next-action loss needs pins shown and not acted on; give the rows negatives")
    order, lengths = encoded.seen.order, encoded.seen.lengths
    length = order.shape[1]
    columns, pins = encoded.columns[:, -length:].float(), pins.float()
    older, newer = pairs(rows, order, lengths, settings)
    owners = older[:, 0]
    answers = rows.pins.gather(1, order)[owners, newer]
    shown = rows.negatives[owners]  # (m, N)
    allowed = (shown > 0) & (shown != answers[:, None])
    asked = allowed.any(dim=1)
    if not bool(asked.any()):
        return columns.sum() * 0.0
    owners, shown, allowed, answers = owners[asked], shown[asked], allowed[asked], answers[asked]
    users = head(columns[owners, older[asked, 1]])  # (m, pin_dim)
    right = (users * pins[answers]).sum(dim=1)
    wrong = torch.einsum("md,mnd->mn", users, pins[shown]).masked_fill(~allowed, -torch.inf)
    return (torch.logaddexp(right, wrong.logsumexp(dim=1)) - right).mean()


def pairs(rows: Rows, order: Tensor, lengths: Tensor, settings: NextAction) -> tuple[Tensor, Tensor]:
    """Consecutive realtime actions: ((m, 2) row and place of the older one, (m,) place of the newer one).

    The newer one is a positive action on a pin with a vector, both are among the newest `recent`.
    """
    length = order.shape[1]
    places = torch.arange(length)
    visible = places < lengths[:, None]
    rank = (places + 1).expand(len(rows), length)
    if rows.recent is not None:
        rank = rows.recent.gather(1, order)
    rank = torch.where(visible & (rank > 0) & (rank <= settings.recent), rank, 0)
    at = torch.full((len(rows), settings.recent + 2), -1)  # rank -> place
    at.scatter_(1, rank, places.expand(len(rows), length))
    at[:, 0] = -1
    newer, older = at[:, 1:-1], at[:, 2:]
    codes = rows.actions.gather(1, order).gather(1, newer.clamp(min=0))
    known = rows.pins.gather(1, order).gather(1, newer.clamp(min=0)) > 0
    positive = torch.isin(codes, torch.tensor(settings.positives))
    row, k = torch.nonzero((newer >= 0) & (older >= 0) & positive & known, as_tuple=True)
    return torch.stack([row, older[row, k]], dim=1), newer[row, k]
