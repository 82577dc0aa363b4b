"""The item tower, and the user tower that crosses a condition with a user's fields (DHEN, two levels)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.interests.config import ItemTowerConfig, UserTowerConfig
from training.models.interests.features import DENSE, POOLED, PROFILE, PROFILE_CODES, Histories, pooled
from training.models.pin_performance import PERFORMANCE

FIELDS = POOLED + 1 + len(PROFILE)


class ItemTower(nn.Module):
    """e = normalise([W2 GELU(W1 x), V2 GELU(V1 [x, performance])]), x = [content, mean topic embedding].

    The second part is there where performance is read. A pin of neither content nor topics is the zero row.
    """

    def __init__(self, config: ItemTowerConfig, content_dim: int, topics: int, dim: int) -> None:
        super().__init__()
        self.topics = nn.EmbeddingBag(topics + 1, config.topic_dim, mode="mean", padding_idx=0)
        width, moved = content_dim + config.topic_dim, config.performance_dim * config.performance
        if moved >= dim:
            raise ValueError(f"performance takes {moved} of {dim} dimensions; leave some to what a pin is")
        self.lift, self.head = nn.Linear(width, config.hidden), nn.Linear(config.hidden, dim - moved)
        self.performed = (
            nn.Sequential(
                nn.Linear(width + PERFORMANCE, config.hidden), nn.GELU(), nn.Linear(config.hidden, moved)
            )
            if moved
            else None
        )

    def forward(self, content: Tensor, topics: Tensor, performance: Tensor | None = None) -> Tensor:
        """(n, c), (n, t) and (n, PERFORMANCE) -> (n, dim), unit rows."""
        x = torch.cat([content, self.topics(topics)], dim=1)
        out = self.head(F.gelu(self.lift(x)))
        if self.performed is not None:
            if performance is None:
                raise ValueError("this network reads pins' performance as of a midnight, and was given none")
            out = torch.cat([out, self.performed(torch.cat([x, performance], dim=1))], dim=1)
        known = (content != 0).any(dim=1) | (topics > 0).any(dim=1)
        return F.normalize(out, dim=1) * known[:, None]


class UserFields(nn.Module):
    """A user as `FIELDS` tokens: pooled history, scalars, profile."""

    def __init__(self, dim: int, token: int) -> None:
        super().__init__()
        self.pooled = nn.ModuleList(nn.Linear(dim, token) for _ in range(POOLED))
        self.dense = nn.Linear(DENSE, token)
        self.profile = nn.ModuleList(nn.Embedding(PROFILE_CODES, token) for _ in PROFILE)

    def forward(self, histories: Histories) -> Tensor:
        """(b, FIELDS, token)."""
        means, dense = pooled(histories)
        tokens = [project(means[:, i]) for i, project in enumerate(self.pooled)]
        tokens.append(self.dense(dense))
        tokens += [embed(histories.profile[:, i]) for i, embed in enumerate(self.profile)]
        return torch.stack(tokens, dim=1)


class MaskBlock(nn.Module):
    """One block of a parallel MaskNet: ReLU(LN(W (mask * LN(x)))), the mask a two-layer MLP of x."""

    def __init__(self, width: int, config: UserTowerConfig) -> None:
        super().__init__()
        hidden = max(1, round(config.mask_ratio * width))
        self.norm = nn.LayerNorm(width)
        self.mask = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.out = nn.Sequential(nn.Linear(width, config.block), nn.LayerNorm(config.block), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.mask(x) * self.norm(x))


class UserTower(nn.Module):
    """Every condition crossed with the user's fields; one unit embedding a condition."""

    def __init__(self, config: UserTowerConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.condition = nn.Linear(dim, config.token)
        self.fields = UserFields(dim, config.token)
        width, wide = (1 + FIELDS) * config.token, config.blocks * config.block
        layer = nn.TransformerEncoderLayer(
            config.token, config.heads, 2 * config.token, dropout=0.0, batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.first = nn.Sequential(nn.Linear(width, config.mlp), nn.ReLU(), nn.Linear(config.mlp, width))
        self.first_norm = nn.LayerNorm(width)
        self.masked = nn.ModuleList(MaskBlock(width, config) for _ in range(config.blocks))
        self.second = nn.Sequential(nn.Linear(width, config.mlp), nn.ReLU(), nn.Linear(config.mlp, wide))
        self.second_norm = nn.LayerNorm(wide)
        self.head = nn.Linear(wide, dim)

    def forward(self, conditions: Tensor, fields: Tensor) -> Tensor:
        """(b, K, dim) and (b, FIELDS, token) -> (b, K, dim), unit rows."""
        b, k, dim = conditions.shape
        shared = fields[:, None].expand(b, k, *fields.shape[1:])
        tokens = torch.cat([self.condition(conditions)[:, :, None], shared], dim=2).flatten(0, 1)
        flat = tokens.flatten(1)  # (b * K, width)
        x = self.first_norm(self.transformer(tokens).flatten(1) + self.first(flat))
        crossed = torch.cat([block(x) for block in self.masked], dim=1)
        out = self.head(self.second_norm(crossed + self.second(x))).view(b, k, dim)
        return F.normalize(out + conditions if self.config.residual else out, dim=2)
