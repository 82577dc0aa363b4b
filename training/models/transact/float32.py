"""The shared encoder in float32: the user's part as `columns.encode` takes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.models.transact.columns import encode
from training.models.transact.folding import FoldedLayer
from training.models.transact.lanes import LANES, ROWS, VECTORS

Floats = NDArray[np.float32]


class Layers(NamedTuple):
    """What `FoldedLayer` has, a layer beside the other; scores are in powers of two."""

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

    tokens: Floats  # (D, W) u_t
    scores: Floats  # (T, W) A[t, s] at [s, t]
    exponentials: Floats  # (T, W) E
    values: Floats  # (D, T) of the first layer


class Given(NamedTuple):
    """What candidates bring to the first layer."""

    plus: Floats  # (C, d): c, and what it adds to every value; weights sum to one
    lift: Floats  # (C, T) b_c
    weights: Floats  # (C, T) w_c


class Panel(NamedTuple):
    """Scratch for as many columns as go through a layer together, w = VECTORS LANES of them."""

    x: Floats  # (D, w)
    more: Floats  # (D, w) what is added to x
    weights: Floats  # (S, w), S at least T
    hidden: Floats  # (F, w)
    over: Floats  # (1, w) by what weights are to be multiplied to sum to one
    one: Floats  # (1, w) ones
    none: Floats  # (max(D, S),) zeros
    begin: int  # 0, the first column; numba compiles anew for a number that stands in the code

    @classmethod
    def of(cls, layers: Layers, length: int) -> Panel:
        wide, high, rows = VECTORS * LANES, layers.query.shape[1], -(-length // ROWS) * ROWS
        x, more, weights, hidden = _zeros(wide, high, high, rows, layers.up.shape[1])
        one = np.ones((1, wide), np.float32)
        return cls(x, more, weights, hidden, one.copy(), one, np.zeros(max(high, rows), np.float32), 0)


class Tokens(NamedTuple):
    """Scratch for one candidate."""

    x: Floats  # (D, W)
    y: Floats  # (D, W)
    values: Floats  # (D, W)
    few: Floats  # (D, w) the columns that are asked for
    last: Floats  # (D, w) what becomes of them

    @classmethod
    def of(cls, high: int, wide: int, asked: int) -> Tokens:
        return cls(*_zeros(wide, high, high, high), *_zeros(asked, high, high))


def _zeros(wide: int, *heights: int) -> list[Floats]:
    return [np.zeros((high, wide), np.float32) for high in heights]


@dataclass(frozen=True)
class ColumnUser:
    """What all candidates of a request share."""

    keys: Tensor  # (T, d): b_c = c . keys
    shared: Shared


class ColumnEncoder:
    """The layers of one network, as they are multiplied a candidate."""

    def __init__(self, layers: Sequence[FoldedLayer]) -> None:
        log2e = math.log2(math.e)  # scores are powers of two here
        self.query, self.query_bias = layers[0].query.float() * log2e, layers[0].query_bias.float() * log2e
        self.value, self.value_bias = layers[0].value.float(), layers[0].value_bias.float()
        self.layers = Layers(
            _beside([layer.query * log2e for layer in layers]),
            _beside([layer.query_bias * log2e for layer in layers]),
            *(
                _beside([getattr(layer, name) for layer in layers])
                for name in Layers._fields[2:-1]  # named alike
            ),
            np.float32(layers[0].eps),
        )

    def user(self, tokens: Tensor) -> ColumnUser:
        """`tokens` (T, d) float32, at least one."""
        scores = tokens @ F.linear(tokens, self.query, self.query_bias).t()  # (s, t)
        values = F.linear(tokens, self.value, self.value_bias).t()
        filled = torch.arange(-(-len(tokens) // LANES) * LANES)
        filled[len(tokens) :] = 0
        scores = scores[:, filled]
        exponentials = (scores - scores.amax(dim=0)).exp2()
        shared = Shared(_rows(tokens.t()[:, filled]), scores.numpy(), exponentials.numpy(), _rows(values))
        return ColumnUser(tokens @ self.query, shared)

    def encode(
        self, user: ColumnUser, candidates: Tensor, places: Tensor, most: Tensor | None, out: Tensor
    ) -> None:
        """Of `candidates` (C, d) float32, as they stand in a token.

        The maximum over tokens goes to `most` (C, d), the tokens `places` (k,) one behind the other to `out`
        (C, n) from number d on. Without `most` they go there from the first number on, and the last layer
        answers for them alone.
        """
        lift = candidates @ user.keys.t()  # (C, T)
        weights = (lift - lift.amax(dim=1, keepdim=True)).exp2()
        plus = torch.addmm(candidates, candidates, self.value.t())
        shared, columns = user.shared, places
        asked = F.pad(places, (0, -len(places) % LANES), value=int(places[0]) if len(places) else 0).numpy()
        if most is None:
            most, columns = out.new_empty(0, plus.shape[1]), torch.arange(len(places))
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
