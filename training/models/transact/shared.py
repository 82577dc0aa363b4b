"""The encoder for one user and many candidates, with everything that the candidates share made once.

A token is x_t = u_t + c, u_t the user's and c the candidate's. In the first layer, with one head,

    score(t, s) = A[t, s] + b_c[s] + (what is the same for every s)   A = (u_t Q + q)(u_s K), b_c = (c Q)(u_s K)
    attention   = sum_s E[t, s] w_c[s] (v_s + V c) / sum_s E[t, s] w_c[s]   E = exp(A - max), w_c likewise

so that a candidate needs no projection of its tokens and no product of queries and keys: E is one matrix, and
all candidates' weighted values stand beside each other in one product with it. Where E and w_c lie so far apart
that their product vanishes in float32, the candidate's scores are made and normalised as they are.

In every layer the output projection is multiplied into the values (weights that sum to one carry biases
through), and the keys' into the queries: two projections instead of four. Biases that would cost a pass of
their own are moved into the norm before them. Nothing here is an approximation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.models.transact import kernels
from training.models.transact.config import Fusion, SequenceConfig
from training.models.transact.encoder import EncoderLayer
from training.models.transact.sequence import SequenceEncoder

LEAST_TOTAL = 1e-25
"""Sums of weights below this have lost digits to underflow."""
_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")


def second_cache() -> int:
    """Bytes of a core's second cache; 1 MiB where the system does not say."""
    try:
        return int(_CACHE.read_text().strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        return 2**20


CHUNK_BYTES = int(0.6 * second_cache())
"""Tokens worked on at a time: what stays in the second cache, with the scores made of it."""


def shareable(config: SequenceConfig) -> bool:
    """Whether the algebra holds for this configuration; the network's own forward serves the others."""
    return config.fusion is Fusion.CONCAT and config.heads == 1 and not config.causal


@dataclass(frozen=True)
class FoldedLayer:
    """An encoder layer's weights as serving multiplies them; matrices are (in, out), in working precision."""

    query: Tensor  # (d, d): x_t query + query_bias, times x_s, is the score but for what all s share
    query_bias: Tensor  # (d,)
    value: Tensor  # (d, d) values through the output projection
    value_bias: Tensor  # (d,)
    up: Tensor  # (d, ffn)
    up_bias: Tensor
    down: Tensor  # (ffn, d)
    norm1: tuple[NDArray, NDArray, np.float32]  # gain, shift with the bias of `down`, eps
    norm2: tuple[NDArray, NDArray, np.float32]

    @classmethod
    def of(cls, layer: EncoderLayer, dtype: torch.dtype) -> FoldedLayer:
        """Folded in float64. A score is scaled by d^-0.5 within `query`."""
        state = {name: t.detach().double() for name, t in layer.state_dict().items()}
        q, k, v = state["qkv.weight"].chunk(3)
        qb, _, vb = state["qkv.bias"].chunk(3)
        out, scale = state["out.weight"], len(q) ** -0.5
        down_bias = state["down.bias"]
        return cls(
            query=(q.t() @ k * scale).to(dtype),
            query_bias=(qb @ k * scale).to(dtype),
            value=(out @ v).t().contiguous().to(dtype),
            value_bias=(out @ vb + state["out.bias"]).to(dtype),
            up=state["up.weight"].t().contiguous().to(dtype),
            up_bias=(state["up.bias"] - state["up.weight"] @ down_bias).to(dtype),
            down=state["down.weight"].t().contiguous().to(dtype),
            norm1=_norm(layer.norm1, down_bias),
            norm2=_norm(layer.norm2),
        )


@dataclass(frozen=True)
class UserPart:
    """What all candidates of a request share, float32 but for `exponentials`."""

    tokens: Tensor  # (T, d) u_t
    keys: Tensor  # (T, d): b_c = c . keys
    values: Tensor  # (T, d) values through the output projection, biases in
    scores: Tensor  # (T, T) A
    exponentials: Tensor  # (T, T) E, in the working precision


@dataclass(frozen=True)
class CandidatePart:
    """What candidates bring to the first layer, float32."""

    added: Tensor  # (C, d): c, and what it adds to every value; weights sum to one
    lift: Tensor  # (C, T) b_c
    weights: Tensor  # (C, T) w_c, rounded to the working precision
    total: Tensor  # (C, T) sum_s E[t, s] w_c[s]

    def part(self, rows: slice) -> CandidatePart:
        return CandidatePart(self.added[rows], self.lift[rows], self.weights[rows], self.total[rows])


class SharedEncoder:
    """The sequence module of one network, folded. `dtype` is float32 or bfloat16; in and out are float32."""

    def __init__(self, module: SequenceEncoder, dtype: torch.dtype = torch.float32) -> None:
        if not shareable(module.config):
            raise ValueError("only one-head, early-fused, not causal encoders share their first layer")
        self.config, self.dtype = module.config, dtype
        self.first = FoldedLayer.of(module.layers[0], torch.float32)
        self.layers = [FoldedLayer.of(layer, dtype) for layer in module.layers]
        self.pool = None if module.pool is None else (module.pool.weight.detach(), module.pool.bias.detach())
        self.shares = module.shares if module.config.output.random else None

    def user(self, tokens: Tensor) -> UserPart:
        """Once a request: `tokens` (T, d) float32 of the visible actions, by `SequenceEncoder.user_tokens`."""
        first = self.first
        keys = tokens @ first.query.t()  # (T, d)
        scores = (tokens @ first.query + first.query_bias) @ tokens.t()
        values = torch.addmm(first.value_bias, tokens, first.value)
        exponentials = (scores - scores.amax(dim=1, keepdim=True)).exp() if len(tokens) else scores
        return UserPart(tokens, keys, values, scores, exponentials.to(self.dtype))

    def candidates(self, user: UserPart, vectors: Tensor) -> Tensor:
        """The sequence's part of x_0 for each candidate, (N, out) float32; `vectors` (N, pin_dim) projected."""
        config, count, length = self.config, len(vectors), len(user.tokens)
        pooled = 0 if self.pool is None else config.width
        out = torch.zeros(count, config.out)
        if length:
            places, given = self._places(length), self._given(user, vectors)
            most, kept = torch.empty(count, config.width), out[:, pooled:].unflatten(1, (-1, config.width))
            step = max(1, CHUNK_BYTES // (length * config.width * self.dtype.itemsize))
            for at in range(0, count, step):
                part = slice(at, at + step)
                self._chunk(user, given.part(part), places, most[part], kept[part])
        if self.pool is not None:
            weight, bias = self.pool
            out[:, :pooled] = torch.addmm(bias, most, weight.t()) if length else bias
        return out

    def _given(self, user: UserPart, vectors: Tensor) -> CandidatePart:
        padded = F.pad(vectors, (self.config.width - self.config.pin_dim, 0))  # (N, d)
        lift = padded @ user.keys.t()  # (N, T)
        weights = (lift - lift.amax(dim=1, keepdim=True)).exp().to(self.dtype).float()
        total = weights @ user.exponentials.float().t()  # (N, T)
        added = torch.addmm(padded, padded, self.first.value)
        return CandidatePart(added, lift, weights, total)

    def _places(self, length: int) -> Tensor:
        """Tokens whose columns are put out, those of them that are there."""
        if self.shares is not None:
            return (self.shares * length).long().clamp(max=length - 1)
        return torch.arange(min(self.config.output.columns(self.config.k, self.config.places), length))

    def _chunk(self, user: UserPart, given: CandidatePart, places: Tensor, most: Tensor, kept: Tensor) -> None:
        """Some candidates: the maximum into `most` (C, d), the columns of `places` into the first of `kept`
        (C, k, d). Without a maximum the last layer answers for `places` alone."""
        last, everything = len(self.layers) - 1, self.pool is not None
        x = self._first(user, given, None if everything or last else places)
        self._feed(x, self.layers[0])
        for i, layer in enumerate(self.layers[1:], start=1):
            _norm_rows(x, self.layers[i - 1].norm2)
            rows = x if everything or i < last else x[:, places]
            x = self._layer(x, rows, layer)
        at = places if everything else torch.arange(len(places))
        kernels.last_norm(_bits(x), *self.layers[-1].norm2, at.numpy(), most.numpy(), kept.numpy())

    def _first(self, user: UserPart, given: CandidatePart, places: Tensor | None) -> Tensor:
        """The first layer up to its first norm, (C, T, d) or, at `places` alone, (C, k, d)."""
        own, exponentials, scores, total = user.tokens, user.exponentials, user.scores, given.total
        if places is not None:
            own, exponentials, scores, total = (
                own[places],
                exponentials[places],
                scores[places],
                total[:, places],
            )
        count, (length, width) = len(given.added), user.tokens.shape
        x = torch.empty(count, len(own), width, dtype=self.dtype)
        if float(total.min()) >= LEAST_TOTAL:
            weighted = torch.empty(length, count, width, dtype=self.dtype)
            kernels.weighted(given.weights.numpy(), user.values.numpy(), given.added.numpy(), _bits(weighted))
            seen = exponentials @ weighted.view(length, -1)
        else:
            total = torch.ones_like(total)
            softmax = (scores + given.lift[:, None]).softmax(dim=2)  # (C, T, T)
            seen = softmax @ user.values + given.added[:, None]
            seen = seen.transpose(0, 1).to(self.dtype).contiguous()
        seen = seen.view(len(own), count, width)
        kernels.first_norm(_bits(seen), total.numpy(), own.numpy(), *self.layers[0].norm1, _bits(x))
        return x

    def _layer(self, x: Tensor, rows: Tensor, layer: FoldedLayer) -> Tensor:
        """A later layer up to its last norm, for `rows` (C, k, d) of `x` (C, T, d); both may change."""
        width = x.shape[2]
        values = torch.addmm(layer.value_bias, x.view(-1, width), layer.value).view(x.shape)
        queries = torch.addmm(layer.query_bias, rows.reshape(-1, width), layer.query).view(rows.shape)
        weights = torch.bmm(queries, x.transpose(1, 2))  # (C, k, T)
        kernels.softmax(_bits(weights.view(-1, weights.shape[2])))
        rows = rows.contiguous().baddbmm_(weights, values)
        _norm_rows(rows, layer.norm1)
        self._feed(rows, layer)
        return rows

    def _feed(self, x: Tensor, layer: FoldedLayer) -> None:
        """x + W2 relu(W1 x), in place."""
        flat = x.view(-1, x.shape[2])
        flat.addmm_(torch.addmm(layer.up_bias, flat, layer.up).relu_(), layer.down)


def _norm(norm: torch.nn.LayerNorm, added: Tensor | None = None) -> tuple[NDArray, NDArray, np.float32]:
    shift = norm.bias.detach().double() + (0 if added is None else added)
    return norm.weight.detach().float().numpy(), shift.float().numpy(), np.float32(norm.eps)


def _norm_rows(x: Tensor, norm: tuple[NDArray, NDArray, np.float32]) -> None:
    kernels.norm(_bits(x.view(-1, x.shape[2])), *norm)


def _bits(x: Tensor) -> NDArray:
    """The tensor's own memory as the kernels take it."""
    return x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()
