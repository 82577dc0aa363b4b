"""The matrix products of TransAct's shared form for a request, and nothing else: the floor of `ranking.py`."""

from __future__ import annotations

from collections.abc import Callable

import numba
import torch
from torch import Tensor

from training.models.transact import SequenceConfig
from training.models.transact.bfloat16 import chunk
from training.models.transact.float32 import registers, strips
from training.models.transact.lanes import ROWS, store, tiled
from training.models.transact.tiles import GROUP


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


def tile_products(length: int, count: int, config: SequenceConfig) -> Callable[[], None]:
    """The same products by `lanes.tiled`, a candidate after the other."""
    generator = torch.Generator().manual_seed(0)
    wide, far, ffn = (registers(n) for n in (config.width, length, config.ffn))
    high = -(-length // ROWS) * ROWS

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    matrices = (wide, wide), (wide, ffn), (ffn, wide), (high, wide), (wide, far)
    scratch = (high, wide), (high, high), (GROUP, wide), (GROUP, far), (GROUP, ffn)
    arrays = *(strips(drawn(*shape)) for shape in matrices), *(drawn(*shape) for shape in scratch)
    return lambda: _tile_products(count, config.layers, 0, *(array.numpy() for array in arrays))


@numba.njit(error_model="numpy")
def _stored(tile, i, j, strip, to, more, last):  # type: ignore[no-untyped-def]
    store(to, i, j, tile)


@numba.njit(error_model="numpy")
def product(left, right, out):  # type: ignore[no-untyped-def]
    """out = left @ `right`, the latter in strips."""
    tiled(_stored, left, out.shape[0], right, out.shape[1], out, None, None)


@numba.njit(error_model="numpy")
def _tile_products(count, layers, begin, square, up, down, values, keys, x, shared, more, weights, hidden):  # type: ignore[no-untyped-def]
    for _ in range(count):
        for n in range(layers):
            if n:
                product(x, square, x)
            at = begin
            while at < len(x):
                rows = min(len(more), len(x) - at)
                own, few = x[at : at + rows], more[:rows]
                if n:
                    product(own, square, few)
                    product(few, keys, weights[:rows])
                    product(weights[:rows], values, few)
                else:
                    product(shared[at : at + rows], values, few)
                product(few, up, hidden[:rows])
                product(hidden[:rows], down, own)
                at += rows
