"""A PostNorm transformer encoder layer, attention written out.

    Y = LN(X + MHSA(X)),  X' = LN(Y + W2 relu(W1 Y))

Equal to torch's TransformerEncoderLayer, without its fast path: that one returns zeros at padded places in
evaluation and something else in training, and what pools over them then differs.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.up = nn.Linear(width, ffn)
        self.down = nn.Linear(ffn, width)
        self.norm2 = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.qkv.weight)
        for bias in (self.qkv.bias, self.out.bias):
            nn.init.zeros_(bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d); `mask` is added to the scores, (B or 1, T or 1, T): 0 or -inf."""
        x = self.norm1(x + self.drop(self.out(self._attend(self.qkv(x), mask))))
        return self.norm2(x + self.drop(self.down(self.drop(F.relu(self.up(x))))))

    def _attend(self, qkv: Tensor, mask: Tensor) -> Tensor:
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, T, d / heads)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3) + mask[:, None]
        return (self.drop(scores.softmax(dim=3)) @ v).transpose(1, 2).flatten(2)
