"""How far to go from where fine-tuning began: the weights between start and end that find most.

Few pairs teach an encoder this catalogue's words and cost it some of the language it knew. Weights on the line
between the two keep much of both (Wortsman et al., CVPR 2022); which, is chosen on pairs that nothing was
learned from, and the start is among them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.evaluation.judged_queries import RECALL, engaged_queries, query_metrics
from training.models.searchsage.network import QueryTower
from training.models.searchsage.tokens import QueryTokens
from training.searchsage.encoding import encode
from training.searchsage.evaluation import nearest_pins
from training.searchsage.frozen_pins import FrozenPins
from training.searchsage.pairs import QueryPairs

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the way from the start."""

Weights = dict[str, Tensor]


def weights_of(network: nn.Module) -> Weights:
    """A copy of all of them."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def go(network: nn.Module, start: Weights, end: Weights, share: float) -> None:
    """Set the weights to `start` + `share` * (`end` - `start`)."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.lerp(start[name], end[name], share))


def found(tower: QueryTower, tokens: QueryTokens, pairs: QueryPairs, pins: FrozenPins) -> float:
    """Recall@10 of `pairs`, mean over their queries; 0 where none of their pins can be found."""
    asked = engaged_queries(pairs, pins.ids[pins.candidates])
    if not len(asked):
        return 0.0
    with torch.inference_mode():
        vectors = encode(tower, tokens(asked.queries)).numpy()
    return float(query_metrics(nearest_pins(vectors, pins, 10), asked)[RECALL].mean())


def settle(
    tower: QueryTower, start: Weights, tokens: QueryTokens, pairs: QueryPairs, pins: FrozenPins
) -> dict[float, float]:
    """Bring the tower to the share of its way from `start` that finds most of `pairs`, the least of equals;
    recall@10 of each share."""
    end = weights_of(tower)
    recall = {}
    for share in SHARES:
        go(tower, start, end, share)
        recall[share] = found(tower, tokens, pairs, pins)
    go(tower, start, end, max(recall, key=lambda share: recall[share]))
    return recall
