"""PinnerFormer (KDD 2022, arXiv 2205.04507): a user's vector from the user's actions, by a causal transformer.

    V_0 = W [pin, action, surface, log duration, time] + position
    U = V + MHSA(LN(V)),  V' = U + FFN(LN(U))                       PreNorm, causal, FFN 4H
    E = normalise(MLP(LN(V_L)))                                     H -> 4H -> D, GELU, at every position
    p = normalise(MLP(pin))                                         the pin tower

Where pins have ids, blocks start as the mean of the tokens so far; where they have no content beside them, each
MLP is one matrix, and users and ids start in one space, as SASRec's are.
Each position answers for the user as of that action. Padding stands behind the newest token, so the causal
mask alone keeps it out of everything that is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.pinnerformer.attention import (
    causal_attention,
    chosen_attention,
    fused_attention,
    newest_attention,
)
from training.models.pinnerformer.config import PinnerFormerConfig
from training.models.pinnerformer.packing import Bucket, Packing
from training.models.pinnerformer.products import Linear, product
from training.models.pinnerformer.time_encoding import WIDTH as TIME_WIDTH
from training.models.pinnerformer.time_encoding import TimeEncoding
from training.models.pinnerformer.tokens import Tokens
from training.models.weights import load_network, save_network

FILES = "pinnerformer"
"""Name of the two files of a saved network."""

LEAST_TEMPERATURE = 0.01

ID_SCALE = 0.02
"""Deviation of an id embedding at the start: so small that what is learned of a pin soon outweighs what was
drawn for it, and that content, where pins have it, says first what they are."""


class Block(nn.Module):
    """One PreNorm transformer block, its products without biases (the norms have them)."""

    def __init__(self, config: PinnerFormerConfig) -> None:
        super().__init__()
        width = config.hidden
        self.heads = config.heads
        self.before_attention = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width, bias=False)
        self.out = Linear(width, width, bias=False)
        self.before_ffn = nn.LayerNorm(width)
        self.up = Linear(width, 4 * width, bias=False)
        self.down = Linear(4 * width, width, bias=False)
        self.drop = nn.Dropout(config.dropout)

    def start_as_mean(self) -> None:
        """Set weights under which the block adds the mean of the tokens so far to each token, nearly."""
        width = len(self.out.weight)
        with torch.no_grad():
            nn.init.eye_(self.qkv.weight[2 * width :])
        nn.init.eye_(self.out.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, H) -> (B, L, H)."""
        return self._rest(x, self.attend(self.qkv(self.before_attention(x))))

    def attend(self, qkv: Tensor) -> Tensor:
        """Causal self-attention, (B, L, 3H) -> (B, L, H)."""
        return causal_attention(qkv, self.heads)

    def at(self, x: Tensor, bucket: Bucket, places: Tensor) -> Tensor:
        """`packed` at some tokens of each sequence of one bucket, (t, H) and (B, S) -> (B, S, H), no other one
        computed."""
        normed, width, rows = self.before_attention(x), x.shape[1], bucket.starts[:, None] + places
        queries = product(normed[rows], self.qkv.weight[:width])
        kv = bucket.padded(product(normed, self.qkv.weight[width:]))
        return self._rest(x[rows], chosen_attention(queries, kv, places, self.heads))

    def packed(self, x: Tensor, packing: Packing) -> Tensor:
        """`forward` of packed tokens, (T, H) -> (T, H): only attention sees padding."""
        qkv = packing.padded(self.qkv(self.before_attention(x)))
        fused = x.dtype is torch.float32 and not torch.is_grad_enabled()
        attend = fused_attention if fused else causal_attention
        return self._rest(x, packing.rows(attend(part, self.heads) for part in qkv))

    def newest(self, x: Tensor, packing: Packing) -> Tensor:
        """`packed` at each sequence's newest token, (T, H) -> (U, H), no other one computed."""
        normed, width, newest = self.before_attention(x), x.shape[1], packing.newest
        queries = product(normed[newest], self.qkv.weight[:width])
        seen = newest_attention(queries, normed, packing, self.qkv.weight[width:], self.heads)
        return self._rest(x[newest], seen)

    def _rest(self, x: Tensor, seen: Tensor) -> Tensor:
        x = x + self.drop(self.out(seen))
        return x + self.drop(self.down(F.gelu(self.up(self.before_ffn(x)))))


class PinnerFormer(nn.Module):
    """Both towers and the temperature. `content_dim` is 0 for data without content; `pins` counts the
    catalogue of the id embedding (0 without one)."""

    def __init__(self, config: PinnerFormerConfig, content_dim: int, pins: int = 0) -> None:
        super().__init__()
        if content_dim == 0 and (config.id_dim == 0 or pins == 0):
            raise ValueError("pins have no content: give the network an id embedding (id_dim > 0, pins > 0)")
        self.config, self.content_dim, self.pin_count = config, content_dim, pins
        features, width = config.features, config.hidden
        pin_width = content_dim + config.id_dim
        self.id_embedding = nn.Embedding(pins + 1, config.id_dim) if config.id_dim else None
        self.action = nn.Embedding(config.actions + 1, config.action_dim) if features.action else None
        self.surface = nn.Embedding(config.surfaces + 1, config.surface_dim) if features.surface else None
        self.time = TimeEncoding() if features.time else None
        self.position = nn.Parameter(0.02 * torch.randn(config.length, width)) if features.position else None
        widths = (
            pin_width * features.pin,
            config.action_dim * features.action,
            config.surface_dim * features.surface,
            int(features.duration),
            TIME_WIDTH * features.time,
        )
        if sum(widths) == 0:
            raise ValueError("a token without any feature says nothing; switch at least one on")
        self.token = Linear(sum(widths), width)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        if content_dim:
            self.user_head = nn.Sequential(Linear(width, 4 * width), nn.GELU(), Linear(4 * width, config.dim))
            self.pin_tower = nn.Sequential(Linear(pin_width, width), nn.GELU(), Linear(width, config.dim))
        else:
            self.user_head = Linear(width, config.dim, bias=False)
            self.pin_tower = Linear(pin_width, config.dim, bias=False)
        if self.id_embedding is not None:
            self._start_as_mean()
        self.tau = nn.Parameter(torch.tensor(config.temperature))

    def _start_as_mean(self) -> None:
        """Set weights under which a user is, nearly, the mean of the user's pins: without content in the space
        of their ids, with it in that of tokens.

        All that joins two ids is who took both pins. A mean, which factor models have by construction, finds
        that in few steps; from weights drawn at random every user's order is learned by heart first.
        """
        nn.init.normal_(self.id_embedding.weight, std=ID_SCALE)
        for block in self.blocks:
            block.start_as_mean()
        if not self.content_dim:
            for layer in (self.token, self.user_head, self.pin_tower):
                nn.init.eye_(layer.weight)
            nn.init.zeros_(self.token.bias)

    @property
    def temperature(self) -> Tensor:
        """tau >= 0.01, a scalar."""
        return self.tau.clamp(min=LEAST_TEMPERATURE)

    def forward(self, tokens: Tokens) -> Tensor:
        """The user's vector as of every token, (B, L, D), unit; those of padding mean nothing."""
        return self.vectors(self.hidden(tokens))

    def hidden(self, tokens: Tokens) -> Tensor:
        """V_L, (B, L, H)."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return x

    def hidden_at(self, tokens: Tokens, places: Tensor) -> Tensor:
        """`hidden` at the tokens `places` (B, S) of each row, (B, S, H): the last block for them alone, the
        others without padding."""
        bucket = Bucket.of(tokens.lengths)
        x = bucket.rows(self.embed(tokens))
        for block in self.blocks[:-1]:
            x = block.packed(x, Packing((bucket,)))
        return self.blocks[-1].at(x, bucket, places)

    def newest(self, buckets: Sequence[Tokens]) -> Tensor:
        """Users' vectors, (U, D), unit: `forward` at each row's newest token, bucket after bucket."""
        packing = Packing.of([tokens.lengths for tokens in buckets])
        x = packing.rows(self.embed(tokens) for tokens in buckets)
        for block in self.blocks[:-1]:
            x = block.packed(x, packing)
        return self.vectors(self.blocks[-1].newest(x, packing))

    def vectors(self, hidden: Tensor) -> Tensor:
        """The output layers, (..., H) -> (..., D) float32, unit."""
        return F.normalize(self.user_head(self.norm(hidden)).float(), dim=-1)

    def pins(self, content: Tensor, rows: Tensor) -> Tensor:
        """The pin tower: content (n, P) and catalogue row + 1 (n,) -> (n, D) float32, unit."""
        return F.normalize(self.pin_tower(self._pin_inputs(content, rows)).float(), dim=-1)

    def embed(self, tokens: Tokens) -> Tensor:
        """V_0, (B, L, H), in the weights' own precision. Raises ValueError for sequences beyond `length`."""
        length = tokens.pins.shape[1]
        if length > self.config.length:
            raise ValueError(f"{length} tokens a sequence; this network reads {self.config.length}")
        features = self.config.features
        parts = [self._pin_inputs(tokens.content, tokens.pins)] if features.pin else []
        if self.action is not None:
            parts.append(self.action(tokens.actions.clamp(0, self.config.actions)))
        if self.surface is not None:
            parts.append(self.surface(tokens.surfaces.clamp(0, self.config.surfaces)))
        if features.duration:
            parts.append(tokens.durations_s.clamp(min=0).log1p()[..., None])
        if self.time is not None:
            parts.append(self.time(tokens.times_ms, tokens.lengths))
        dtype = self.token.weight.dtype
        x = self.token(torch.cat([part.to(dtype) for part in parts], dim=-1))
        if self.position is not None:
            age = (tokens.lengths[:, None] - 1 - torch.arange(length)).clamp(min=0)  # 0 is the newest
            x = x + self.position[age]
        return self.drop(x)

    def clamp_temperature(self) -> None:
        """Bring the parameter itself back to its least value, where it would get no gradient any more."""
        with torch.no_grad():
            self.tau.clamp_(min=LEAST_TEMPERATURE)

    def _pin_inputs(self, content: Tensor, rows: Tensor) -> Tensor:
        """Content scaled to unit variance a number (its vectors are unit), beside the id embedding."""
        dtype = self.token.weight.dtype
        parts = [content.to(dtype) * self.content_dim**0.5] if self.content_dim else []
        if self.id_embedding is not None:
            known = torch.where(rows <= self.pin_count, rows, 0)  # pins that came after training
            parts.append(self.id_embedding(known))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and settings (JSON) into `folder`."""
        settings = {
            "network": self.config.model_dump(mode="json"),
            "content_dim": self.content_dim,
            "pins": self.pin_count,
        }
        save_network(self, folder, FILES, settings)

    @classmethod
    def load(cls, folder: Path) -> PinnerFormer:
        """The network saved in `folder`, in evaluation mode. Raises FileNotFoundError where there is none."""
        return load_network(
            folder,
            FILES,
            lambda s: cls(PinnerFormerConfig.model_validate(s["network"]), s["content_dim"], s["pins"]),
        )


def seeded(config: PinnerFormerConfig, content_dim: int, pins: int, seed: int) -> PinnerFormer:
    """A network with weights drawn from `seed`, torch's global generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PinnerFormer(config, content_dim, pins)
