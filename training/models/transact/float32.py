"""The shared encoder in float32: the user's part as `columns.encode` takes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.models.transact.columns import SUMS, encode
from training.models.transact.folding import FoldedLayer, centred
from training.models.transact.lanes import LANES, ROWS, VECTORS

Floats = NDArray[np.float32]


class Layers(NamedTuple):
    """What `FoldedLayer` has, a layer beside the other, centred; scores are in powers of two."""

    query: Floats  # (n, D, d), D and F the rows filled up
    query_bias: Floats  # (n, D)
    value: Floats  # (n, D, d)
    value_bias: Floats  # (n, D)
    up: Floats  # (n, F, d)
    up_bias: Floats  # (n, F)
    down: Floats  # (n, D, ffn)
    gain1: Floats  # (n, D)
    shift1: Floats
    gain2: Floats
    shift2: Floats
    eps: np.float32


class Shared(NamedTuple):
    """What all candidates of a request share."""

    tokens: Floats  # (D, W) u_t, centred
    scores: Floats  # (T, W) A[t, s] at [s, t]
    exponentials: Floats  # (T, W) E
    values: Floats  # (D, T) of the first layer, centred


class Given(NamedTuple):
    """What candidates bring to the first layer."""

    plus: Floats  # (C, D): c, and what it adds to every value, centred; weights sum to one
    lift: Floats  # (C, T) b_c
    weights: Floats  # (C, T) w_c


class Panel(NamedTuple):
    """Scratch for as many columns as go through a layer together, w = VECTORS LANES of them."""

    x: Floats  # (D, w) before a norm
    more: Floats  # (D, w) queries
    weights: Floats  # (S, w), S at least T
    hidden: Floats  # (F, w)
    sums: Floats  # (6, w) `columns.SUMS`
    none: Floats  # (max(D, S, F),) zeros
    begin: int  # 0, the first column; numba compiles anew for a number that stands in the code

    @classmethod
    def of(cls, layers: Layers, length: int) -> Panel:
        heights = layers.query.shape[1], -(-length // ROWS) * ROWS, layers.up.shape[1]
        x, more, weights, hidden, sums = (
            _zeros(height, VECTORS * LANES) for height in (heights[0], *heights, len(SUMS))
        )
        return cls(x, more, weights, hidden, sums, _zeros(max(heights)), 0)


class Tokens(NamedTuple):
    """Scratch for one candidate."""

    x: Floats  # (D, W)
    y: Floats  # (D, W)
    values: Floats  # (D, W)
    few: Floats  # (D, w) the columns that are asked for
    last: Floats  # (D, w) what becomes of them

    @classmethod
    def of(cls, high: int, wide: int, asked: int) -> Tokens:
        shapes = ((high, wide), (high, wide), (high, wide), (high, asked), (high, asked))
        return cls(*(_zeros(*shape) for shape in shapes))


def registers(columns: int) -> int:
    """So many columns, filled up to whole registers, at least two: one alone takes the time of two."""
    return max(2, -(-columns // LANES)) * LANES


def _zeros(*shape: int) -> Floats:
    """torch's: they begin where a line of the cache does, as numpy's do not."""
    return torch.zeros(shape).numpy()


@dataclass(frozen=True)
class ColumnUser:
    """What all candidates of a request share."""

    keys: Tensor  # (T, d): b_c = c . keys
    shared: Shared


class ColumnEncoder:
    """The layers of one network, as they are multiplied a candidate."""

    def __init__(self, layers: Sequence[FoldedLayer]) -> None:
        log2e = math.log2(math.e)  # scores are powers of two here
        layers = [
            replace(layer, query=layer.query * log2e, query_bias=layer.query_bias * log2e)
            for layer in centred(layers)
        ]
        first, d = layers[0], len(layers[0].query)
        self.query, self.query_bias = first.query.float(), first.query_bias.float()
        self.value, self.value_bias = first.value.float(), first.value_bias.float()
        self.plus = (torch.eye(d) - 1 / d + first.value.t()).float()  # of a candidate: its own and its values
        self.layers = Layers(
            *(_beside([getattr(layer, name) for layer in layers]) for name in Layers._fields[:-1]),
            np.float32(first.eps),
        )

    def user(self, tokens: Tensor) -> ColumnUser:
        """`tokens` (T, d) float32, at least one."""
        scores = tokens @ F.linear(tokens, self.query, self.query_bias).t()  # (s, t)
        values = F.linear(tokens, self.value, self.value_bias).t()
        filled = F.pad(torch.arange(len(tokens)), (0, registers(len(tokens)) - len(tokens)))
        scores = scores[:, filled]
        exponentials = (scores - scores.amax(dim=0)).exp2()
        own = (tokens - tokens.mean(dim=1, keepdim=True)).t()[:, filled]
        shared = Shared(_rows(own), scores.numpy(), exponentials.numpy(), _rows(values))
        return ColumnUser(tokens @ self.query, shared)

    def encode(
        self, user: ColumnUser, candidates: Tensor, places: Tensor, most: Tensor | None, out: Tensor
    ) -> None:
        """Of `candidates` (C, p) float32, as they stand in the last p numbers of a token.

        The maximum over tokens goes to `most` (C, d), the tokens `places` (k,) one behind the other to `out`
        (C, n) from number d on. Without `most` they go there from the first number on, and the last layer
        answers for them alone.
        """
        d, p = user.keys.shape[1], candidates.shape[1]
        lift = candidates @ user.keys[:, d - p :].t()  # (C, T)
        weights = (lift - lift.amax(dim=1, keepdim=True)).exp2()
        plus = F.pad(candidates @ self.plus[d - p :], (0, -d % ROWS))
        shared, columns = user.shared, places
        spare = registers(len(places)) - len(places)
        asked = F.pad(places, (0, spare), value=int(places[0]) if len(places) else 0).numpy()
        if most is None:
            most, columns = out.new_empty(0, d), torch.arange(len(places))
            if len(self.layers.query) == 1:
                few = (np.ascontiguousarray(part[:, asked]) for part in shared[:3])
                shared = Shared(*few, shared.values)
        tokens, panel = Tokens.of(*shared.tokens.shape, len(asked)), Panel.of(self.layers, lift.shape[1])
        given = Given(plus.numpy(), lift.numpy(), weights.numpy())
        encode(self.layers, shared, given, asked, columns.numpy(), tokens, panel, most.numpy(), out.numpy())


def _rows(x: Tensor) -> Floats:
    """Filled up to a multiple of ROWS of them."""
    return F.pad(x, (0, 0, 0, -len(x) % ROWS)).contiguous().numpy()


def _beside(parts: Sequence[Tensor]) -> Floats:
    """(n, rows, ...) float32, rows filled up."""
    stacked = torch.stack(tuple(parts)).float()
    spare = -stacked.shape[1] % ROWS
    return F.pad(stacked, (*(0, 0) * (stacked.ndim - 2), 0, spare)).contiguous().numpy()
