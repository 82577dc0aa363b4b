"""Full-rank cross layers of DCNv2 (arXiv 2008.13535): x_{l+1} = x_0 * (W_l x_l + b_l) + x_l."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CrossLayers(nn.Module):
    """`layers` of them over rows `width` wide; with none a row comes out as it is."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x0: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        x = x0
        for layer in self.layers:
            x = torch.addcmul(x, x0, layer(x))
        return x
