"""Vectors of many users and pins: the newest token alone in the last block, buckets of like length, bfloat16.

bfloat16 is used where the CPU multiplies it natively, the network is wide enough to gain, and a probe of the
very network says that its vectors stay what they are in float32 (cosine >= 0.999); else float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.models.pinnerformer.network import PinnerFormer
from training.models.pinnerformer.tokens import ActionArrays, collate, window_starts

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

BATCH_TOKENS = 16_384
"""Tokens a batch, padding counted: what bounds memory."""
LEAST_COSINE = 0.999
PROBE_USERS = 8
WIDE = 256
"""Hidden width from which bfloat16 gains more than its casts cost."""
_STEP = 8
"""Lengths are padded to a multiple of this within a batch of like lengths."""


@lru_cache(maxsize=1)
def native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself (AVX-512 BF16 or AMX); False where that cannot be told."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux: float32 is right everywhere
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def embed_users(
    network: PinnerFormer,
    arrays: ActionArrays,
    starts: Ints,
    ends: Ints,
    content: Floats,
    *,
    bfloat16: bool | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Floats:
    """A vector for each slice [start, end) of `arrays`, as of its newest action, (n, D) float32, unit.

    `content` (pins, P) are the catalogue's vectors. A slice without actions has the zero vector. Only the
    newest `length` actions of a year are read. `bfloat16` None decides by CPU and probe; True and False force.
    """
    starts = window_starts(arrays.times_ms, starts, ends, network.config.length, network.config.days)
    runner = lower_precision(network) if bfloat16 else network
    if bfloat16 is None:
        runner = fitting_precision(network, arrays, starts, ends, content)
    return run(runner, arrays, starts, ends, content, batch_tokens)


def fitting_precision(
    network: PinnerFormer, arrays: ActionArrays, starts: Ints, ends: Ints, content: Floats
) -> PinnerFormer:
    """The network itself, or its bfloat16 copy where the CPU gains by it and a few of the slices agree.

    Slices are at most `length` long. One pass over eight of them in each precision: once a night, not a batch.
    """
    some = np.flatnonzero(ends > starts)
    if len(some) == 0 or not native_bfloat16() or network.config.hidden < WIDE:
        return network
    lower, probe = lower_precision(network), some[:: -(-len(some) // PROBE_USERS)]
    exact, rounded = (run(n, arrays, starts[probe], ends[probe], content) for n in (network, lower))
    return lower if (exact * rounded).sum(axis=1).min() >= LEAST_COSINE else network


def run(
    runner: PinnerFormer,
    arrays: ActionArrays,
    starts: Ints,
    ends: Ints,
    content: Floats,
    batch_tokens: int = BATCH_TOKENS,
) -> Floats:
    """`embed_users` in the runner's own precision, of slices at most `length` long."""
    out = np.zeros((len(starts), runner.config.dim), np.float32)
    lengths = ends - starts
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    with torch.inference_mode():
        for batch, width in _buckets(order, lengths, batch_tokens, runner.config.length):
            tokens = collate(arrays, starts[batch], ends[batch], content, width)
            out[batch] = runner.newest(tokens).numpy()
    return out


def embed_pins(network: PinnerFormer, content: Floats, *, batch: int = 65_536) -> Floats:
    """Vectors of the whole catalogue, (pins, D) float32, unit; row i of `content` (pins, P) is pin row i."""
    out = np.empty((len(content), network.config.dim), np.float32)
    with torch.inference_mode():
        for start in range(0, len(content), batch):
            rows = torch.arange(start, min(start + batch, len(content)))
            part = torch.from_numpy(np.ascontiguousarray(content[start : start + batch]))
            out[start : start + batch] = network.pins(part, rows + 1).numpy()
    return out


def lower_precision(network: PinnerFormer) -> PinnerFormer:
    """A copy with bfloat16 weights; time periods keep their float64."""
    made = copy.deepcopy(network)
    for parameter in made.parameters():
        parameter.data = parameter.data.bfloat16()
    return made.eval()


def _buckets(order: Ints, lengths: Ints, tokens: int, longest: int) -> Iterator[tuple[Ints, int]]:
    """(users, padded length) of each batch, shortest users first; `order` ascends in length.

    A batch ends where it is full, or where its shortest user would be padded by more than a quarter.
    """
    start = 0
    while start < len(order):
        stop, width = start, 0
        most = lengths[order[start]] * 5 // 4 + _STEP
        while stop < len(order):
            padded = min(-(-int(lengths[order[stop]]) // _STEP) * _STEP, longest)
            if stop > start and (padded > most or padded * (stop + 1 - start) > tokens):
                break
            width, stop = padded, stop + 1
        yield order[start:stop], width
        start = stop
