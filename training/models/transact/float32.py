"""The shared encoder in float32: the user's part as `tiles.encode` takes it."""

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

from training.models.transact.folding import FoldedLayer, centred
from training.models.transact.lanes import LANES, ROWS, VECTORS, taken
from training.models.transact.tiles import GROUP, LEAST_TOTAL, SUMS, encode

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


class Layers(NamedTuple):
    """What `FoldedLayer` has, a layer beside the other, centred; scores are in powers of two.

    D and F are `registers` of d and of the FFN's width, filled up with zeros; matrices are (in, out) in strips.
    """

    query: Floats  # (n, strips, D, w)
    query_bias: Floats  # (n, D)
    value: Floats  # (n, strips, D, w)
    value_bias: Floats  # (n, D)
    up: Floats  # (n, strips, D, w)
    up_bias: Floats  # (n, F)
    down: Floats  # (n, strips, F, w)
    gain1: Floats  # (n, D)
    shift1: Floats
    gain2: Floats
    shift2: Floats
    eps: np.float32
    d: int


class Shared(NamedTuple):
    """What all candidates of a request share, T a multiple of ROWS and S `registers` of the tokens."""

    tokens: Floats  # (T, D) u_t, centred
    scores: Floats  # (T, S) A
    exponentials: Floats  # (T, T) E
    values: Floats  # (strips, T, w) of the first layer, centred


class Given(NamedTuple):
    """What candidates bring to the first layer."""

    plus: Floats  # (C, D): c, and what it adds to every value, centred; weights sum to one
    lift: Floats  # (C, S) b_c
    weights: Floats  # (C, T) w_c
    over: Floats  # (C, T) what makes products of E and w_c sum to one
    sound: Bools  # (C,) whether float32 holds their sums


class Panel(NamedTuple):
    """Scratch for as many rows as go through a layer together."""

    x: Floats  # (GROUP, D) queries, then what norms are made of
    weights: Floats  # (GROUP, S)
    hidden: Floats  # (GROUP, F)
    sums: Floats  # (6, whole registers of GROUP) `tiles.SUMS`
    hide: Floats  # (1, S) 0, and -inf behind the last token
    most: Floats  # (1, D)
    begin: int  # 0, the first row; numba compiles anew for a number that stands in the code

    @classmethod
    def of(cls, layers: Layers, hide: Floats) -> Panel:
        wide, far = layers.query_bias.shape[1], layers.up_bias.shape[1]
        shapes = (GROUP, wide), (GROUP, hide.shape[1]), (GROUP, far), (len(SUMS), registers(GROUP))
        return cls(*(_zeros(*shape) for shape in shapes), hide, _zeros(1, wide), 0)


class Tokens(NamedTuple):
    """Scratch for one candidate."""

    x: Floats  # (T, D), or (W, D) where one layer answers for those that are asked for alone
    values: Floats  # (strips, T, w)
    keys: Floats  # (strips, D, w) of x.T
    few: Floats  # those that are asked for, (W, D)

    @classmethod
    def of(cls, shared: Shared, asked: int) -> Tokens:
        (rows, wide), (count, high, w) = shared.tokens.shape, shared.values.shape
        keys = -(-shared.scores.shape[1] // w), wide, w
        return cls(*(_zeros(*shape) for shape in ((rows, wide), (count, high, w), keys, (asked, wide))))


def registers(columns: int) -> int:
    """So many columns, filled up to whole registers, at least two: one alone takes the time of two."""
    return max(2, -(-columns // LANES)) * LANES


def strips(x: Tensor) -> Tensor:
    """(..., k, n) as `lanes.tiled` takes it, (..., strips, k, VECTORS LANES); n a number of `registers`."""
    parts, at = [], 0
    while at < x.shape[-1]:
        columns = taken(x.shape[-1], at) * LANES
        parts.append(F.pad(x[..., at : at + columns], (0, VECTORS * LANES - columns)))
        at += columns
    return torch.stack(parts, dim=-3)


def _zeros(*shape: int) -> Floats:
    """torch's: they begin where a line of the cache does, as numpy's do not."""
    return torch.zeros(shape).numpy()


@dataclass(frozen=True)
class TileUser:
    """What all candidates of a request share."""

    keys: Tensor  # (T, d): b_c = c . keys
    shared: Shared


class TileEncoder:
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
            *(_beside([getattr(layer, name) for layer in layers]) for name in Layers._fields[:-2]),
            np.float32(first.eps),
            d,
        )

    def user(self, tokens: Tensor) -> TileUser:
        """`tokens` (T, d) float32, at least one."""
        length, wide = len(tokens), self.layers.query_bias.shape[1]
        scores = F.linear(tokens, self.query, self.query_bias) @ tokens.t()  # (t, s)
        high, far = -(-length // ROWS) * ROWS, registers(length)
        filled = F.pad(torch.arange(length), (0, high - length))
        scores = scores[filled]
        exponentials = (scores - scores.amax(dim=1, keepdim=True)).exp2()
        own = (tokens - tokens.mean(dim=1, keepdim=True))[filled]
        values = F.linear(tokens, self.value, self.value_bias)
        values = F.pad(values, (0, wide - values.shape[1], 0, high - length))
        shared = Shared(
            F.pad(own, (0, wide - own.shape[1])).numpy(),
            F.pad(scores, (0, far - length)).numpy(),
            F.pad(exponentials, (0, high - length)).numpy(),
            strips(values).numpy(),
        )
        return TileUser(tokens @ self.query, shared)

    def encode(
        self, user: TileUser, candidates: Tensor, places: Tensor, most: Tensor | None, out: Tensor
    ) -> None:
        """Of `candidates` (C, p) float32, as they stand in the last p numbers of a token.

        The maximum over tokens goes to `most` (C, d), the tokens `places` (k,) one behind the other to `out`
        (C, n) from number d on. Without `most` they go there from the first number on, and the last layer
        answers for them alone.
        """
        (length, d), p = user.keys.shape, candidates.shape[1]
        shared, columns = user.shared, places
        spare = -len(places) % ROWS
        asked = F.pad(places, (0, spare), value=int(places[0]) if len(places) else 0).numpy()
        if most is None:
            most, columns = out.new_empty(0, d), torch.arange(len(places))
            if len(self.layers.query) == 1:
                shared = Shared(*(part[asked] for part in shared[:3]), shared.values)
        hidden = shared.scores.shape[1] - length
        lift = candidates @ user.keys[:, d - p :].t()  # (C, T)
        weights = (lift - lift.amax(dim=1, keepdim=True)).exp2()
        weights = F.pad(weights, (0, shared.exponentials.shape[1] - length))
        sums = weights @ torch.from_numpy(shared.exponentials).t()
        plus = candidates @ self.plus[d - p :]
        given = Given(
            F.pad(plus, (0, shared.tokens.shape[1] - d)).numpy(),
            F.pad(lift, (0, hidden), value=-torch.inf).numpy(),
            weights.numpy(),
            sums.reciprocal().numpy(),
            (sums.amin(dim=1) > float(LEAST_TOTAL)).numpy(),
        )
        hide = F.pad(torch.zeros(1, length), (0, hidden), value=-torch.inf).numpy()
        tokens, panel = Tokens.of(shared, len(asked)), Panel.of(self.layers, hide)
        encode(self.layers, shared, given, asked, columns.numpy(), tokens, panel, most.numpy(), out.numpy())


def _beside(parts: Sequence[Tensor]) -> Floats:
    """(n, out) float32 filled up to `registers`, or of matrices (n, strips, in, w), transposed."""
    stacked = torch.stack(tuple(parts)).float()
    for dim in range(1, stacked.ndim):
        spare = registers(stacked.shape[dim]) - stacked.shape[dim]
        stacked = F.pad(stacked, (*(0, 0) * (stacked.ndim - 1 - dim), 0, spare))
    return (strips(stacked.mT) if stacked.ndim == 3 else stacked).contiguous().numpy()
