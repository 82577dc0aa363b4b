"""Users' actions as the network's input: one token an action, oldest first, padded behind the newest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

MS_PER_DAY = 86_400_000


@dataclass(frozen=True)
class ActionArrays:
    """Actions of many users, each user's oldest first; parallel arrays, 18 bytes an action."""

    pin_rows: NDArray[np.int32]  # (a,) rows of the catalogue, -1 for a pin it lacks
    actions: NDArray[np.int8]  # (a,) codes of the vocabulary, negative ones among them
    surfaces: NDArray[np.int8]  # (a,)
    durations_s: Floats  # (a,) 0 where unknown
    times_ms: Ints  # (a,) Unix ms

    def __len__(self) -> int:
        return len(self.times_ms)

    def take(self, chosen: NDArray[np.generic]) -> ActionArrays:
        """The rows `chosen`, by place or mask."""
        return ActionArrays(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Tokens:
    """A batch of sequences. Row b holds `lengths[b]` tokens and then padding, whose values mean nothing."""

    content: Tensor  # (B, L, P) content vectors, zero where the pin has none
    pins: Tensor  # (B, L) int64 catalogue row + 1, 0 for a pin the catalogue lacks
    actions: Tensor  # (B, L) int64
    surfaces: Tensor  # (B, L) int64
    durations_s: Tensor  # (B, L) float32
    times_ms: Tensor  # (B, L) int64
    lengths: Tensor  # (B,) int64, at least 1


def window_starts(times_ms: Ints, starts: Ints, ends: Ints, length: int, days: float) -> Ints:
    """Where each slice [start, end) begins when only its newest `length` actions of `days` are kept.

    Ages count from the slice's newest action. An empty slice stays empty.
    """
    first = np.maximum(starts, ends - length)
    reach = int(days * MS_PER_DAY)
    for i in np.flatnonzero(ends > first):
        oldest = times_ms[ends[i] - 1] - reach
        if times_ms[first[i]] < oldest:
            first[i] += np.searchsorted(times_ms[first[i] : ends[i]], oldest)
    return first


def collate(
    arrays: ActionArrays, starts: Ints, ends: Ints, content: Floats, padded: int | None = None
) -> Tokens:
    """Tokens of the slices [start, end) of `arrays`, padded to the longest (or to `padded`).

    `content` (n, P) are the catalogue's vectors. Raises ValueError for an empty slice: a user without an
    action has no vector.
    """
    lengths = ends - starts
    if len(lengths) == 0 or lengths.min() < 1:
        raise ValueError("every sequence needs at least one action; leave users without any out")
    width = int(lengths.max()) if padded is None else padded
    places = np.minimum(starts[:, None] + np.arange(width), ends[:, None] - 1)  # padding repeats the newest
    rows = arrays.pin_rows[places]
    vectors = content[np.maximum(rows, 0)]
    vectors[rows < 0] = 0
    return Tokens(
        content=torch.from_numpy(vectors),
        pins=torch.from_numpy(rows.astype(np.int64) + 1),
        actions=torch.from_numpy(arrays.actions[places].astype(np.int64)),
        surfaces=torch.from_numpy(arrays.surfaces[places].astype(np.int64)),
        durations_s=torch.from_numpy(arrays.durations_s[places]),
        times_ms=torch.from_numpy(arrays.times_ms[places]),
        lengths=torch.from_numpy(lengths.astype(np.int64)),
    )
