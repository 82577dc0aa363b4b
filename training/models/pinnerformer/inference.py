"""Vectors of many users and pins: padding left out, the newest token alone in the last block, fewer bits.

Products are in bfloat16 where the CPU multiplies it natively, else in eight bits where torch can, if the
network is wide enough to gain and a probe of the very network says that its vectors stay as they are in float32
(cosine >= 0.999); else in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.models.pinnerformer import eight_bits
from training.models.pinnerformer.network import PinnerFormer
from training.models.pinnerformer.tokens import ActionArrays, collate, window_starts

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

BATCH_TOKENS = 16_384
"""Tokens a batch, padding left out: what bounds memory. A user counts as one a head at least, since that is how
often the newest token asks."""
LEAST_COSINE = 0.999
PROBE_USERS = 8
WIDE = 256
"""Hidden width from which fewer bits gain more than their casts cost."""
SLACK = 8
"""Places by which any sequence may be padded, beside a quarter of the shortest one's length."""


class Precision(StrEnum):
    """What products of users' tokens are computed in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    EIGHT_BITS = "eight bits"


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
    precision: Precision | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Floats:
    """A vector for each slice [start, end) of `arrays`, as of its newest action, (n, D) float32, unit.

    `content` (pins, P) are the catalogue's vectors. A slice without actions has the zero vector. Only the
    newest `length` actions of a year are read. `precision` None decides by CPU and probe.
    """
    starts = window_starts(arrays.times_ms, starts, ends, network.config.length, network.config.days)
    if precision is None:
        runner = fitting_precision(network, arrays, starts, ends, content)
    else:
        runner = in_precision(network, precision)
    return run(runner, arrays, starts, ends, content, batch_tokens)


def fitting_precision(
    network: PinnerFormer, arrays: ActionArrays, starts: Ints, ends: Ints, content: Floats
) -> PinnerFormer:
    """The network itself, or its copy in fewer bits where the CPU gains by it and a few of the slices agree.

    Slices are at most `length` long. One pass over eight of them in each precision: once a night, not a batch.
    """
    some, fewest = np.flatnonzero(ends > starts), fewest_bits()
    if len(some) == 0 or fewest is Precision.FLOAT32 or network.config.hidden < WIDE:
        return network
    lower, probe = in_precision(network, fewest), some[:: -(-len(some) // PROBE_USERS)]
    exact, rounded = (run(n, arrays, starts[probe], ends[probe], content) for n in (network, lower))
    return lower if (exact * rounded).sum(axis=1).min() >= LEAST_COSINE else network


def fewest_bits() -> Precision:
    """What this CPU multiplies fastest."""
    if native_bfloat16():
        return Precision.BFLOAT16
    return Precision.EIGHT_BITS if eight_bits.available() else Precision.FLOAT32


def in_precision(network: PinnerFormer, precision: Precision) -> PinnerFormer:
    """The network itself in float32, else a copy."""
    match precision:
        case Precision.FLOAT32:
            return network
        case Precision.BFLOAT16:
            return in_bfloat16(network)
        case Precision.EIGHT_BITS:
            return eight_bits.in_eight_bits(network)


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
        rows = np.maximum(lengths, runner.config.heads)
        for batch in _batches(order, rows, batch_tokens):
            buckets = [collate(arrays, starts[of], ends[of], content) for of in _buckets(batch, lengths)]
            out[batch] = runner.newest(buckets).numpy()
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


def in_bfloat16(network: PinnerFormer) -> PinnerFormer:
    """A copy with bfloat16 weights; time periods keep their float64."""
    made = copy.deepcopy(network)
    for parameter in made.parameters():
        parameter.data = parameter.data.bfloat16()
    return made.eval()


def _batches(order: Ints, rows: Ints, most: int) -> Iterator[Ints]:
    """`order` in parts of at most so many of the users' `rows`, of one user at least."""
    start, ends = 0, rows[order].cumsum()
    while start < len(order):
        known = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, known + most, side="right")))
        yield order[start:stop]
        start = stop


def _buckets(batch: Ints, lengths: Ints) -> Iterator[Ints]:
    """`batch`, ascending in length, in parts of like lengths: padded by a quarter and SLACK at most."""
    start, of_users = 0, lengths[batch]
    while start < len(batch):
        stop = int(np.searchsorted(of_users, of_users[start] * 5 // 4 + SLACK, side="right"))
        yield batch[start:stop]
        start = stop
