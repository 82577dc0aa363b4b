"""The encoder for one user and many candidates, with everything that the candidates share made once.

A token is x_t = u_t + c, u_t the user's and c the candidate's. In the first layer, with one head,

    score(t, s) = A[t, s] + b_c[s] + (what is the same for every s)   A = (u_t Q + q)(u_s K), b_c = (c Q)(u_s K)
    attention   = sum_s softmax_s(score(t, s)) v_s + V c

so that a candidate needs no projection of its tokens there and no product of queries and keys. Without padding:
a short history costs what it is long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.models.transact.bfloat16 import RowEncoder
from training.models.transact.float32 import TileEncoder
from training.models.transact.folding import FoldedLayer, shareable
from training.models.transact.sequence import SequenceEncoder


@dataclass(frozen=True)
class UserPart:
    """What all candidates of a request share; without actions there is nothing."""

    length: int
    part: Any


class SharedEncoder:
    """The sequence module of one network, folded. `dtype` is float32 or bfloat16; in and out are float32.

    Raises ValueError for a configuration that does not share its first layer.
    """

    def __init__(self, module: SequenceEncoder, dtype: torch.dtype = torch.float32) -> None:
        if not shareable(module.config):
            raise ValueError("only one-head, early-fused, not causal encoders share their first layer")
        self.config = module.config
        layers = [FoldedLayer.of(layer) for layer in module.layers]
        self.encoder = TileEncoder(layers) if dtype is torch.float32 else RowEncoder(layers)
        self.pool = None if module.pool is None else (module.pool.weight.detach(), module.pool.bias.detach())
        self.shares = module.shares if module.config.output.random else None

    def user(self, tokens: Tensor) -> UserPart:
        """Once a request: `tokens` (T, d) float32 of the visible actions, by `SequenceEncoder.user_tokens`."""
        return UserPart(len(tokens), self.encoder.user(tokens) if len(tokens) else None)

    def candidates(self, user: UserPart, vectors: Tensor) -> Tensor:
        """The sequence's part of x_0 for each candidate, (N, out) float32; `vectors` (N, pin_dim) projected."""
        config, count, places = self.config, len(vectors), self._places(user.length)
        out = torch.empty(count, config.out)
        out[:, config.width * (config.output.pooled + len(places)) :] = 0
        most = None if self.pool is None else torch.empty(count, config.width)
        if user.length and count:
            self.encoder.encode(user.part, vectors, places, most, out)
        if self.pool is not None and most is not None:
            weight, bias = self.pool
            out[:, : config.width] = torch.addmm(bias, most, weight.t()) if user.length else bias
        return out

    def _places(self, length: int) -> Tensor:
        """Tokens whose columns are put out, those of them that are there."""
        if self.shares is not None and length:
            return (self.shares * length).long().clamp(max=length - 1)
        return torch.arange(min(self.config.output.columns(self.config.k, self.config.places), length))
