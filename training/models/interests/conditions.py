"""How a history becomes K conditions: capsules (DCM, MIND, one interest), attention, tokens, sub-sequences.

Every constructor answers `Conditions` from `Histories`. A history without a valid item has one condition, the
zero vector: the user tower then speaks from the profile alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from training.models.interests.config import Construction, InterestsConfig
from training.models.interests.features import Histories
from training.models.interests.routing import Assignment, assign, spread


class Conditions(NamedTuple):
    """K slots a user; the live ones come first."""

    vectors: Tensor  # (b, K, d), zero in dead slots
    mask: Tensor  # (b, K) bool: live slots, at least one a user
    weights: Tensor  # (b, K) share of the user's interest, 0 in dead slots, rows sum to 1


def conditions_of(vectors: Tensor, mask: Tensor, weights: Tensor) -> Conditions:
    """`Conditions` with dead slots zeroed and the first slot of a user without any made a zero condition."""
    cold = ~mask.any(dim=1)
    mask = torch.cat([mask[:, :1] | cold[:, None], mask[:, 1:]], dim=1)
    weights = torch.where(mask, weights.clamp(min=1e-12), 0.0)
    alive = mask & ~cold[:, None]
    return Conditions(
        torch.where(alive[:, :, None], vectors, 0.0), mask, weights / weights.sum(dim=1, keepdim=True)
    )


def squash(v: Tensor) -> Tensor:
    """v |v| / (1 + |v|^2): the capsule's non-linearity, safe at zero."""
    square = (v * v).sum(dim=-1, keepdim=True)
    return v * (torch.sqrt(square + 1e-12) / (1 + square))


class _Sums(torch.autograd.Function):
    """(b, K, d) the sums that routing made of `items`; their gradient, with weights and clusters held."""

    @staticmethod
    def forward(ctx: Any, items: Tensor, found: Assignment) -> Tensor:
        ctx.found = found
        return torch.from_numpy(found.sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.from_numpy(spread(gradient.numpy(), ctx.found)), None


class Capsules(nn.Module):
    """Routing by agreement. Farthest point and single assignment together are DCM and run compiled."""

    def __init__(self, config: InterestsConfig) -> None:
        super().__init__()
        self.interests = config.interests
        self.lasting = config.dim if config.routing.shared_map else config.lasting
        self.routing = config.routing
        self.map = nn.Linear(config.dim, config.dim, bias=False) if config.routing.shared_map else None
        if self.map is not None:
            nn.init.orthogonal_(self.map.weight)
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("noise", torch.randn(config.length, config.interests, generator=generator))

    def forward(self, histories: Histories, generator: torch.Generator | None = None) -> Conditions:
        """Random starts are drawn from `generator`; without one they are fixed, so that serving repeats itself:
        the newest valid item for farthest point, one draw of logits kept with the weights for the other."""
        valid, items = histories.valid, histories.items
        compiled = self.routing.farthest_point and self.routing.single_assignment
        if not compiled:
            items = items * valid[:, :, None]
        if self.map is not None:
            items = self.map(items)
        return (self._compiled if compiled else self._soft)(items, valid, generator)

    def _routed(self, items: Tensor) -> Tensor:
        """(b, m, lasting) what routing sees, no gradient: how a pin sells is no interest of a user."""
        seen = items.detach()
        if self.lasting == seen.shape[2]:
            return seen
        return nn.functional.normalize(seen[:, :, : self.lasting], dim=2)

    def _compiled(self, items: Tensor, valid: Tensor, generator: torch.Generator | None) -> Conditions:
        found = assign(
            self._routed(items).numpy(),
            valid.numpy(),
            _first(valid, generator).numpy(),
            self.interests,
            self.routing.iterations,
            self.routing.sharpness,
            summed=items.detach().numpy(),
        )
        alive = torch.arange(self.interests) < torch.from_numpy(found.counts)[:, None]
        return conditions_of(squash(_Sums.apply(items, found)), alive, torch.from_numpy(found.shares))

    def _soft(self, items: Tensor, valid: Tensor, generator: torch.Generator | None) -> Conditions:
        """Every other combination, in torch; only the last mean carries a gradient, as in public code."""
        b, m, _ = items.shape
        k, sharpness = self.interests, self.routing.sharpness
        fixed = self._routed(items)
        alive = torch.ones(b, k, dtype=torch.bool)
        if self.routing.farthest_point:
            centroids, alive = farthest_points(fixed, valid, _first(valid, generator), k)
            logits = sharpness * torch.bmm(fixed, centroids.transpose(1, 2))  # (b, m, K)
        else:
            start = self.noise[:m] if generator is None else torch.randn(b, m, k, generator=generator)
            logits = start.expand(b, m, k)
            if self.routing.adaptive:
                most = torch.log2(valid.sum(dim=1).clamp(min=2)).long()  # (b,)
                alive = torch.arange(k) < most[:, None]
        for turn in range(self.routing.iterations):
            shares = self._shares(logits, valid, alive)
            if turn + 1 < self.routing.iterations:
                agreement = sharpness * torch.bmm(
                    fixed, squash(torch.bmm(shares.transpose(1, 2), fixed)).transpose(1, 2)
                )
                # MIND adds agreement to its random logits; from given centroids the logits are the agreement.
                logits = agreement if self.routing.farthest_point else logits + agreement
        weights = shares.sum(dim=1)
        vectors = squash(torch.bmm(shares.transpose(1, 2), items))
        return _live_first(conditions_of(vectors, alive & (weights > 0), weights))

    def _shares(self, logits: Tensor, valid: Tensor, alive: Tensor) -> Tensor:
        shares = torch.softmax(logits.masked_fill(~alive[:, None, :], -torch.inf), dim=2)
        shares = torch.nan_to_num(shares) * valid[:, :, None]
        if not self.routing.single_assignment:
            return shares
        best = shares.argmax(dim=2, keepdim=True)
        return torch.zeros_like(shares).scatter(2, best, shares.gather(2, best))


def farthest_points(items: Tensor, valid: Tensor, first: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """VA-FPI in torch: centroids (b, K, d) and which of them are there (b, K); invalid items count as -inf."""
    b, m, _ = items.shape
    order = valid.cumsum(dim=1) - 1
    pick = ((order == (first % valid.sum(dim=1).clamp(min=1))[:, None]) & valid).float().argmax(dim=1)
    users = torch.arange(b)
    nearest = items.new_full((b, m), -torch.inf)
    centroids, there = [], []
    alive = valid.any(dim=1)
    for _ in range(k):
        centroids.append(items[users, pick] * alive[:, None])
        there.append(alive)
        nearest = torch.maximum(nearest, torch.bmm(items, centroids[-1][:, :, None])[:, :, 0])
        far = (-nearest).masked_fill(~valid, -torch.inf)
        pick = far.argmax(dim=1)
        alive = alive & (-far[users, pick] <= 1 - 1e-5)
    return torch.stack(centroids, dim=1), torch.stack(there, dim=1)


class SelfAttention(nn.Module):
    """ComiRec-SA: A = softmax_m(W2 tanh(W1 (H + position))), conditions A H."""

    def __init__(self, config: InterestsConfig) -> None:
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(config.length, config.dim))
        self.lift = nn.Linear(config.dim, 4 * config.dim, bias=False)
        self.heads = nn.Linear(4 * config.dim, config.interests, bias=False)

    def forward(self, histories: Histories, generator: torch.Generator | None = None) -> Conditions:
        items, valid = histories.items, histories.valid
        logits = self.heads(torch.tanh(self.lift(items + self.position[: items.shape[1]])))  # (b, m, K)
        return _attended(items, valid, logits.transpose(1, 2))


class Tokens(nn.Module):
    """K learned interest tokens that query the history (MVKE without its gate); token + what it found."""

    def __init__(self, config: InterestsConfig) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(config.interests, config.dim) / config.dim**0.5)
        self.keys = nn.Linear(config.dim, config.dim, bias=False)
        self.scale = config.routing.sharpness

    def forward(self, histories: Histories, generator: torch.Generator | None = None) -> Conditions:
        items, valid = histories.items, histories.valid
        logits = self.scale * (self.keys(items) @ self.tokens.t()).transpose(1, 2)  # (b, K, m)
        found = _attended(items, valid, logits)
        return found._replace(vectors=found.vectors + self.tokens * found.mask[:, :, None])


class SubSequences(nn.Module):
    """PFS: the history split by the catalogue's K-means clusters, each part read by a causal transformer.

    The K parts with most items are kept; a part's condition is the transformer's output at its newest item.
    """

    def __init__(self, config: InterestsConfig) -> None:
        super().__init__()
        self.interests, self.clusters = config.interests, config.clusters
        self.position = nn.Parameter(0.02 * torch.randn(config.length, config.dim))
        self.layer = nn.TransformerEncoderLayer(
            config.dim, 2, 2 * config.dim, dropout=0.0, batch_first=True, norm_first=True
        )
        self.heads = 2

    def forward(self, histories: Histories, generator: torch.Generator | None = None) -> Conditions:
        items, valid, clusters = histories.items, histories.valid, histories.clusters
        if clusters is None:
            raise ValueError("sub-sequences need the catalogue cluster of every pin of the histories")
        b, m, d = items.shape
        if m == 0:
            nothing = items.new_zeros(b, self.interests)
            return conditions_of(items.new_zeros(b, self.interests, d), nothing > 0, nothing)
        counts = torch.zeros(b, self.clusters).scatter_add_(1, clusters, valid.float())
        k = min(self.interests, self.clusters)
        sizes, chosen = counts.topk(k, dim=1)  # (b, k)
        same = (clusters[:, :, None] == clusters[:, None, :]) & valid[:, None, :]
        older = (
            torch.arange(m)[:, None] <= torch.arange(m)[None, :]
        )  # newest first: a token sees itself and older
        blocked = ~(same & older) & ~torch.eye(m, dtype=torch.bool)
        read = items + self.layer(
            items + self.position[:m], src_mask=blocked.repeat_interleave(self.heads, dim=0)
        )
        inside = valid[:, None, :] & (clusters[:, None, :] == chosen[:, :, None])  # (b, k, m)
        newest = inside.float().argmax(dim=2)
        vectors = read.gather(1, newest[:, :, None].expand(b, k, d))
        vectors = nn.functional.pad(vectors, (0, 0, 0, self.interests - k))
        sizes = nn.functional.pad(sizes, (0, self.interests - k))
        return conditions_of(vectors, sizes > 0, sizes)


def constructor(config: InterestsConfig) -> nn.Module | None:
    """The module of `config.construction`; None where callers give the conditions (topics)."""
    made = {
        Construction.CAPSULES: Capsules,
        Construction.SELF_ATTENTION: SelfAttention,
        Construction.TOKENS: Tokens,
        Construction.PFS: SubSequences,
    }
    kind = made.get(config.construction)
    return kind(config) if kind is not None else None


def _first(valid: Tensor, generator: torch.Generator | None) -> Tensor:
    """(b,) which valid item comes first: random with a generator, else the newest."""
    if generator is None:
        return torch.zeros(len(valid), dtype=torch.int64)
    return torch.randint(0, 2**31 - 1, (len(valid),), generator=generator)


def _attended(items: Tensor, valid: Tensor, logits: Tensor) -> Conditions:
    """Conditions by attention over valid items; `logits` (b, K, m). Interests weigh the same."""
    if items.shape[1] == 0:
        shares = logits
    else:
        shares = torch.nan_to_num(torch.softmax(logits.masked_fill(~valid[:, None, :], -torch.inf), dim=2))
    mask = valid.any(dim=1)[:, None].expand(logits.shape[:2])
    return conditions_of(torch.bmm(shares, items), mask, mask.float())


def _live_first(found: Conditions) -> Conditions:
    order = torch.argsort(found.mask.int(), dim=1, descending=True, stable=True)
    return Conditions(
        found.vectors.gather(1, order[:, :, None].expand_as(found.vectors)),
        found.mask.gather(1, order),
        found.weights.gather(1, order),
    )
