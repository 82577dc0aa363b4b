"""The shared encoder in float32: the user's part as `columns.encode` takes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.models.transact.columns import Floats, Layers, Panel, Shared, Tokens, encode
from training.models.transact.folding import FoldedLayer
from training.models.transact.lanes import LANES, ROWS


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
        shared = Shared(_rows(tokens.t()[:, filled]), scores[:, filled].numpy(), _rows(values))
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
        plus = torch.addmm(candidates, candidates, self.value.t())
        shared, columns = user.shared, places
        asked = F.pad(places, (0, -len(places) % LANES), value=int(places[0]) if len(places) else 0).numpy()
        if most is None:
            most, columns = out.new_empty(0, plus.shape[1]), torch.arange(len(places))
            if len(self.layers.query) == 1:
                few = (np.ascontiguousarray(part[:, asked]) for part in (shared.tokens, shared.scores))
                shared = Shared(*few, shared.values)
        tokens, panel = Tokens.of(*shared.tokens.shape, len(asked)), Panel.of(self.layers, lift.shape[1])
        given = (plus.numpy(), lift.numpy(), asked, columns.numpy())
        encode(self.layers, shared, *given, tokens, panel, most.numpy(), out.numpy())


def _rows(x: Tensor) -> Floats:
    """Filled up to a multiple of ROWS of them."""
    return F.pad(x, (0, 0, 0, -len(x) % ROWS)).contiguous().numpy()


def _beside(parts: Sequence[Tensor]) -> Floats:
    """(n, rows, ...) float32, rows filled up."""
    stacked = torch.stack(tuple(parts)).float()
    spare = -stacked.shape[1] % ROWS
    return F.pad(stacked, (*(0, 0) * (stacked.ndim - 2), 0, spare)).contiguous().numpy()
