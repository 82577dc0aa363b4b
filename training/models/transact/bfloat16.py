"""The shared encoder in bfloat16: torch's products over some candidates at a time, the kernels between them.

In the first layer E w_c stands for the weights of candidate c:

    attention = sum_s E[t, s] w_c[s] (v_s + V c) / sum_s E[t, s] w_c[s]   E = exp(A - max), w_c = exp(b_c - max)

so that E is one matrix, and all candidates' weighted values stand beside each other in one product with it.
Where E and w_c lie so far apart that their product vanishes in float32, the candidate's scores are made and
normalised as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.models.transact import kernels
from training.models.transact.folding import FoldedLayer

LEAST_TOTAL = 1e-25
"""Sums of weights below this have lost digits to underflow."""
_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
Norm = tuple[NDArray[np.float32], NDArray[np.float32], np.float32]
"""Gain, shift, eps."""


def second_cache() -> int:
    """Bytes of a core's second cache; 1 MiB where the system does not say."""
    try:
        return int(_CACHE.read_text().strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        return 2**20


CHUNK_BYTES = int(0.6 * second_cache())
"""Tokens worked on at a time: what stays in the second cache, with the scores made of it."""


def chunk(length: int, width: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Candidates at a time."""
    return max(1, CHUNK_BYTES // (length * width * dtype.itemsize))


@dataclass(frozen=True)
class RowLayer:
    """A layer as rows of tokens are multiplied, (in, out), bfloat16."""

    query: Tensor
    query_bias: Tensor
    value: Tensor
    value_bias: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    norm1: Norm
    norm2: Norm

    @classmethod
    def of(cls, layer: FoldedLayer) -> RowLayer:
        def low(x: Tensor) -> Tensor:
            return x.t().contiguous().bfloat16() if x.ndim == 2 else x.bfloat16()

        names = ("query", "query_bias", "value", "value_bias", "up", "up_bias", "down")
        norms = ((layer.gain1, layer.shift1), (layer.gain2, layer.shift2))
        return cls(
            *(low(getattr(layer, name)) for name in names),
            *((gain.float().numpy(), shift.float().numpy(), np.float32(layer.eps)) for gain, shift in norms),
        )


@dataclass(frozen=True)
class RowUser:
    """What all candidates of a request share, float32 but for `exponentials`."""

    tokens: Tensor  # (T, d) u_t
    keys: Tensor  # (T, d): b_c = c . keys
    values: Tensor  # (T, d)
    scores: Tensor  # (T, T) A
    exponentials: Tensor  # (T, T) E, bfloat16


@dataclass(frozen=True)
class CandidatePart:
    """What candidates bring to the first layer, float32."""

    added: Tensor  # (C, d): c, and what it adds to every value; weights sum to one
    lift: Tensor  # (C, T) b_c
    weights: Tensor  # (C, T) w_c, rounded to bfloat16
    total: Tensor  # (C, T) sum_s E[t, s] w_c[s]

    def part(self, rows: slice) -> CandidatePart:
        return CandidatePart(self.added[rows], self.lift[rows], self.weights[rows], self.total[rows])


class RowEncoder:
    """The layers of one network; in and out are float32."""

    def __init__(self, layers: Sequence[FoldedLayer]) -> None:
        first = layers[0]
        self.query, self.query_bias = first.query.float(), first.query_bias.float()
        self.value, self.value_bias = first.value.float(), first.value_bias.float()
        self.layers = [RowLayer.of(layer) for layer in layers]

    def user(self, tokens: Tensor) -> RowUser:
        """`tokens` (T, d) float32, at least one."""
        scores = F.linear(tokens, self.query, self.query_bias) @ tokens.t()
        values = F.linear(tokens, self.value, self.value_bias)
        exponentials = (scores - scores.amax(dim=1, keepdim=True)).exp()
        return RowUser(tokens, tokens @ self.query, values, scores, exponentials.bfloat16())

    def encode(
        self, user: RowUser, candidates: Tensor, places: Tensor, most: Tensor | None, out: Tensor
    ) -> None:
        """As `TileEncoder.encode`."""
        (length, width), given = user.tokens.shape, self._given(user, candidates)
        kept = out[:, 0 if most is None else width :].unflatten(1, (-1, width))
        step = chunk(length, width)
        for at in range(0, len(candidates), step):
            part = slice(at, at + step)
            self._chunk(user, given.part(part), places, None if most is None else most[part], kept[part])

    def _given(self, user: RowUser, candidates: Tensor) -> CandidatePart:
        candidates = F.pad(candidates, (user.keys.shape[1] - candidates.shape[1], 0))  # (C, d)
        lift = candidates @ user.keys.t()  # (C, T)
        weights = (lift - lift.amax(dim=1, keepdim=True)).exp().bfloat16().float()
        total = weights @ user.exponentials.float().t()  # (C, T)
        return CandidatePart(torch.addmm(candidates, candidates, self.value.t()), lift, weights, total)

    def _chunk(
        self, user: RowUser, given: CandidatePart, places: Tensor, most: Tensor | None, kept: Tensor
    ) -> None:
        last, everything = len(self.layers) - 1, most is not None
        x = self._first(user, given, None if everything or last else places)
        self._feed(x, self.layers[0])
        for i, layer in enumerate(self.layers[1:], start=1):
            _norm_rows(x, self.layers[i - 1].norm2)
            rows = x if everything or i < last else x[:, places]
            x = self._layer(x, rows, layer)
        at = places if everything else torch.arange(len(places))
        most = torch.empty(len(x), x.shape[2]) if most is None else most
        kernels.last_norm(_bits(x), *self.layers[-1].norm2, at.numpy(), most.numpy(), kept.numpy())

    def _first(self, user: RowUser, given: CandidatePart, places: Tensor | None) -> Tensor:
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
        x = torch.empty(count, len(own), width, dtype=torch.bfloat16)
        if float(total.min()) >= LEAST_TOTAL:
            weighted = torch.empty(length, count, width, dtype=torch.bfloat16)
            kernels.weighted(given.weights.numpy(), user.values.numpy(), given.added.numpy(), _bits(weighted))
            seen = exponentials @ weighted.view(length, -1)
        else:
            total = torch.ones_like(total)
            softmax = (scores + given.lift[:, None]).softmax(dim=2)  # (C, T, T)
            seen = softmax @ user.values + given.added[:, None]
            seen = seen.transpose(0, 1).bfloat16().contiguous()
        seen = seen.view(len(own), count, width)
        kernels.first_norm(_bits(seen), total.numpy(), own.numpy(), *self.layers[0].norm1, _bits(x))
        return x

    def _layer(self, x: Tensor, rows: Tensor, layer: RowLayer) -> Tensor:
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

    def _feed(self, x: Tensor, layer: RowLayer) -> None:
        """x + W2 relu(W1 x), in place."""
        flat = x.view(-1, x.shape[2])
        flat.addmm_(torch.addmm(layer.up_bias, flat, layer.up).relu_(), layer.down)


def _norm_rows(x: Tensor, norm: Norm) -> None:
    kernels.norm(_bits(x.view(-1, x.shape[2])), *norm)


def _bits(x: Tensor) -> NDArray[np.uint16]:
    """The tensor's own memory as the kernels take it."""
    return x.view(torch.int16).numpy().view(np.uint16)
