"""The matrix products of TransAct's shared form for a request, and nothing else: the floor of `ranking.py`."""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import torch

from training.models.transact import SequenceConfig
from training.models.transact.bfloat16 import chunk
from training.models.transact.columns import taken
from training.models.transact.float32 import registers
from training.models.transact.lanes import LANES, ROWS, VECTORS, product


def products(length: int, count: int, config: SequenceConfig, dtype: torch.dtype) -> Callable[[], None]:
    """The matrix products of our form for a request, and nothing else: the layer shared, then the others."""
    width = config.width
    step = chunk(length, config.width, dtype)
    sizes = [min(step, count - at) for at in range(0, count, step)]
    largest = max(sizes)
    x, wide = (
        torch.randn(largest, length, width, dtype=dtype),
        torch.randn(length, largest * width, dtype=dtype),
    )
    e, scores = torch.rand(length, length, dtype=dtype), torch.rand(largest, length, length, dtype=dtype)
    square = torch.randn(width, width, dtype=dtype)
    up, down = torch.randn(width, config.ffn, dtype=dtype), torch.randn(config.ffn, width, dtype=dtype)
    hidden = torch.randn(largest * length, config.ffn, dtype=dtype)
    outs = [torch.empty_like(t) for t in (wide, x.view(-1, width), hidden, scores, x)]

    def run() -> None:
        for size in sizes:
            rows, flat, few = size * length, x[:size].view(-1, width), hidden[: size * length]
            torch.mm(e, wide[:, : size * width], out=outs[0][:, : size * width])
            for layer in range(config.layers):
                if layer:
                    torch.mm(flat, square, out=outs[1][:rows])
                    torch.mm(flat, square, out=outs[1][:rows])
                    torch.bmm(x[:size], x[:size].transpose(1, 2), out=outs[3][:size])
                    torch.bmm(scores[:size], x[:size], out=outs[4][:size])
                torch.mm(flat, up, out=outs[2][:rows])
                torch.mm(few, down, out=outs[1][:rows])

    return run


def column_products(length: int, count: int, config: SequenceConfig) -> Callable[[], None]:
    """The same products by `lanes.product`, a candidate after the other."""
    rng, panel, d = np.random.default_rng(0), VECTORS * LANES, -(-config.width // ROWS) * ROWS
    wide, far, ffn = registers(length), *(-(-n // ROWS) * ROWS for n in (length, config.ffn))
    shapes = ((d, config.width), (ffn, config.width), (d, config.ffn), (d, wide), (d, wide))
    scratch = ((d, panel), (far, panel), (ffn, panel))
    arrays = [rng.standard_normal(shape, np.float32) for shape in (*shapes, *scratch)]
    none = np.zeros(max(d, far), np.float32)
    return lambda: _column_products(count, config.layers, length, 0, none, *arrays)


@numba.njit(error_model="numpy")
def _column_products(count, layers, length, begin, none, square, up, down, x, values, more, weights, hidden):  # type: ignore[no-untyped-def]
    keys = x[: square.shape[1], : len(weights)].T
    for _ in range(count):
        for n in range(layers):
            at = begin
            while n and at < x.shape[1]:
                vectors = taken(x.shape[1], at)
                product(values, at, none, square, x, at, vectors)
                at += vectors * LANES
            at = begin
            while at < x.shape[1]:
                vectors = taken(x.shape[1], at)
                if n:
                    product(more, begin, none, square, x, at, vectors)
                    product(weights, begin, none, keys, more, begin, vectors)
                product(more, begin, none, values[:, :length], weights, begin, vectors)
                product(hidden, begin, none, up, x, at, vectors)
                product(more, begin, none, down, hidden, begin, vectors)
                at += vectors * LANES
