"""The sequence module of TransAct (KDD 2023, arXiv 2306.00248, section 3.3).

A token is an action beside the candidate; a small encoder; the first K columns and the maximum over columns.
Padding never reaches anything: no key, -inf under the maximum, zero among the columns, alike in training and
serving. In training the newest hours are hidden, by a time drawn for each example; what is left moves up, so
that the sequence is the one that a request of that time would have had.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.models.transact.config import Fusion, SequenceConfig
from training.models.transact.encoder import EncoderLayer
from training.models.transact.inputs import Rows

MS_PER_HOUR = 3_600_000


@dataclass(frozen=True)
class Seen:
    """The sequence as the encoder sees it: visible actions, newest first, nothing between them."""

    order: Tensor  # (B, L) int64 places in the rows' arrays
    lengths: Tensor  # (B,) int64


@dataclass(frozen=True)
class Encoded:
    """What the module makes of a batch."""

    flat: Tensor  # (B, out) for the ranker
    columns: Tensor | None  # (B, T, d) every token's output, None without an encoder
    seen: Seen


class SequenceEncoder(nn.Module):
    """`pin_dim`-wide pin vectors in, one flat row out. Creating it draws the weights from torch's generator."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.config = config
        wide = config.width if config.tokens == "add" else None
        kinds = config.actions + 2  # padding, the actions, any other
        width = wide or config.action_dim
        self.action = nn.Embedding(kinds, width, padding_idx=0) if config.action_dim else None
        width = wide or config.surface_dim
        self.surface = nn.Embedding(config.surfaces + 1, width) if config.surface_dim else None
        self.position = (
            nn.Parameter(0.02 * torch.randn(config.length, config.width)) if config.positions else None
        )
        self.lead = nn.Parameter(0.02 * torch.randn(config.width)) if config.leads else None
        self.layers = nn.ModuleList(
            EncoderLayer(config.width, config.heads, config.ffn, config.dropout)
            for _ in range(config.layers * config.encodes)
        )
        pooled = config.encodes and config.output.pooled
        self.pool = nn.Linear(config.width, config.width) if pooled else None
        if config.encodes and config.output.random:
            # drawn once: the ranker's inputs have to mean the same thing on every row and in every process
            shares = torch.rand(config.output.columns(config.k, config.places))
            self.register_buffer("shares", shares)

    def forward(
        self, rows: Rows, pins: Tensor, candidates: Tensor, generator: torch.Generator | None = None
    ) -> Encoded:
        """`pins` (n, pin_dim) are the projected vectors of `rows.content`, `candidates` (B, pin_dim).

        `generator` draws the hidden hours in training; None takes torch's own.
        """
        seen = self.visible(rows, generator)
        if self.config.fusion is Fusion.NONE:
            return Encoded(candidates.new_zeros(len(rows), 0), None, seen)
        tokens = self.tokens(rows, seen.order, pins, candidates)
        return Encoded(*self.encode(tokens, candidates, seen.lengths), seen)

    def encode(self, x: Tensor, candidates: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """(flat (B, out), every token's output (B, T, d) or None without an encoder) of tokens x (B, L, d),
        newest first, of which the first `lengths` (B,) are there; (1,) where all rows have as many."""
        config, length = self.config, x.shape[1]
        there = torch.arange(length) < lengths[:, None]  # (B, L)
        if config.fusion is Fusion.AVERAGE:
            return (x * there[..., None]).sum(dim=1) / lengths.clamp(min=1)[:, None], None
        if self.lead is not None:
            padded = nn.functional.pad(candidates, (config.width - config.pin_dim, 0))
            x = torch.cat([(padded + self.lead)[:, None], x], dim=1)
            lengths = lengths + 1
            there = torch.arange(length + 1) < lengths[:, None]
        mask = self.mask(lengths, x.shape[1])
        for layer in self.layers:
            x = layer(x, mask)
        return self.gather(x, there, lengths), x

    def visible(self, rows: Rows, generator: torch.Generator | None = None) -> Seen:
        """Actions strictly before the request; in training without those of the last T hours.

        T is uniform in (0, mask_hours), drawn an example. Raises ValueError for negative codes and for arrays
        wider than `length`.
        """
        codes, wide = rows.actions, rows.actions.shape[1]
        if wide > self.config.length:
            raise ValueError(f"{wide} actions a row; this network reads {self.config.length}")
        if codes.numel() and int(codes.min()) < 0:
            raise ValueError(f"action code {int(codes.min())}; codes count from 1, and 0 is padding")
        shown = (codes > 0) & (rows.times_ms < rows.request_ms[:, None])
        if self.training and self.config.mask_hours:
            hours = torch.rand(len(rows), generator=generator, dtype=torch.float64) * self.config.mask_hours
            shown &= rows.times_ms <= (rows.request_ms - (hours * MS_PER_HOUR).long())[:, None]
        order = torch.argsort(~shown, dim=1, stable=True)  # the visible ones first, as they stood
        spare = self.config.length - wide
        if spare:
            order = nn.functional.pad(order, (0, spare))
        return Seen(order, shown.sum(dim=1))

    def tokens(self, rows: Rows, order: Tensor, pins: Tensor, candidates: Tensor) -> Tensor:
        """(B, L, d) for the places `order` (B, L); those of padding mean nothing. Rows without any place give
        zeros."""
        if rows.actions.shape[1] == 0:
            return candidates.new_zeros(len(rows), self.config.length, self.config.width)
        user = self.user_tokens(
            rows.pins.gather(1, order), rows.actions.gather(1, order), rows.surfaces.gather(1, order), pins
        )
        return self.met(user, candidates)

    def met(self, user: Tensor, candidates: Tensor) -> Tensor:
        """The user's tokens (B, L, d) beside their candidate (B, pin_dim), where it is fused early."""
        if self.config.fusion is not Fusion.CONCAT:
            return user
        return user + nn.functional.pad(candidates, (self.config.width - self.config.pin_dim, 0))[:, None]

    def user_tokens(self, places: Tensor, actions: Tensor, surfaces: Tensor, pins: Tensor) -> Tensor:
        """What a token owes to the user alone, (..., L, d): zero where the candidate's vector is added.

        The arguments but `pins` are (..., L).
        """
        return self.placed(self.placeless_tokens(places, actions, surfaces, pins))

    def placed(self, x: Tensor) -> Tensor:
        """Tokens (..., L, d), newest first, with what they owe to their place."""
        return x if self.position is None else x + self.position[: x.shape[-2]]

    def placeless_tokens(self, places: Tensor, actions: Tensor, surfaces: Tensor, pins: Tensor) -> Tensor:
        """`user_tokens` of tokens whose place is not known yet."""
        config = self.config
        parts = [] if self.action is None else [self.action(actions.clamp(max=config.actions + 1))]
        if self.surface is not None:
            parts.append(self.surface(surfaces.clamp(0, config.surfaces)))
        found = pins[places]
        blank = config.pin_dim * (config.fusion is Fusion.CONCAT)
        if config.tokens == "concat":
            x = nn.functional.pad(torch.cat([*parts, found], dim=-1), (0, blank))
        else:
            x = nn.functional.pad(found, (0, blank))
            for part in parts:
                x = x + part
        return x

    def mask(self, lengths: Tensor, places: int) -> Tensor:
        """Added to scores of T = `places` tokens, (B, 1 or T, T). A row without tokens sees its first place,
        unused."""
        places = torch.arange(places)
        hidden = (places >= lengths.clamp(min=1)[:, None])[:, None]  # (B, 1, T)
        if self.config.causal:  # newest first: older tokens stand behind
            hidden = hidden | (places < places[:, None])
            hidden = hidden & (places != places[:, None])  # padding sees itself, that its softmax is one
        return torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)

    def gather(self, x: Tensor, there: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, d) -> (B, out): the pooled column first, then the others, zero where there is no token. T is
        at least the columns that the output takes."""
        output, parts = self.config.output, []
        if self.pool is not None:
            most = x.masked_fill(~there[..., None], -torch.inf).amax(dim=1)
            parts.append(self.pool(most.masked_fill(lengths[:, None] == 0, 0.0)))
        columns = output.columns(self.config.k, self.config.places)
        if columns:
            kept = x * there[..., None]
            if output.random:
                at = (self.shares * lengths[:, None]).long().clamp(max=x.shape[1] - 1)
                kept = kept.gather(1, at[..., None].expand(len(x), -1, x.shape[2]))
            parts.append(kept[:, :columns].flatten(1))
        return torch.cat(parts, dim=1)
