"""What the networks see: pins by themselves, and users as histories with a profile, as of a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

PROFILE = ("country", "language")
"""Columns of `users` that enter, in order."""
PROFILE_CODES = 64
"""Codes of each, 0 for unknown; names share codes by hash where a data set has more."""
MS_PER_HOUR = 3_600_000.0


@dataclass(frozen=True)
class PinFeatures:
    """n pins by row."""

    content: Floats
    """(n, c) vectors of a pin space, zero or not finite where a pin has none."""
    topics: Ints
    """(n, t) places in the network's topic vocabulary, 0 for none (`topic_places`)."""
    performance: Floats | None = None
    """(n, PERFORMANCE) appeal as of a midnight (`pin_performance`), for networks that read it."""

    def __len__(self) -> int:
        return len(self.content)

    def take(self, rows: Ints) -> PinFeatures:
        performed = None if self.performance is None else self.performance[rows]
        return PinFeatures(self.content[rows], self.topics[rows], performed)

    def performing(self, performance: Floats) -> PinFeatures:
        """The same pins with their appeal (n, PERFORMANCE) as of a midnight."""
        return PinFeatures(self.content, self.topics, performance)

    def known(self) -> NDArray[np.bool_]:
        """(n,) whether a pin has any feature at all; one without is never an item of a history."""
        finite = np.isfinite(self.content).all(axis=1)
        return (finite & self.content.any(axis=1)) | self.topics.any(axis=1)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Content (n, c), rows that are not finite zeroed, and topic places (n, t)."""
        finite = np.isfinite(self.content).all(axis=1, keepdims=True)
        content = np.where(finite, self.content, np.float32(0)).astype(np.float32, copy=False)
        return torch.from_numpy(content), torch.from_numpy(np.ascontiguousarray(self.topics))


def topic_places(topics: Ints, vocabulary: Sequence[int]) -> Ints:
    """Place of each topic id in the ascending `vocabulary`, counted from 1; 0 for none and for unknown ids."""
    known = np.asarray(vocabulary, np.int64)
    if not len(known):
        return np.zeros(np.shape(topics), np.int64)
    at = np.minimum(np.searchsorted(known, topics), len(known) - 1)
    return np.where(known[at] == topics, at + 1, 0)


def profile_codes(values: Sequence[str | None]) -> list[int]:
    """Codes of one user's `PROFILE` values, in order; 0 for a missing one."""
    return [1 + crc32(v.encode()) % (PROFILE_CODES - 1) if isinstance(v, str) and v else 0 for v in values]


class Histories(NamedTuple):
    """b users' last actions, NEWEST FIRST, padded to m, and their profiles."""

    items: Tensor  # (b, m, d) vectors of the pins, zero rows where there is none
    signs: Tensor  # (b, m) int64: 1 positive, -1 negative, 0 neutral, padding, or a pin without a vector
    hours: Tensor  # (b, m) float32: age of the action
    profile: Tensor  # (b, len(PROFILE)) int64
    clusters: Tensor | None = None  # (b, m) int64: the pin's catalogue cluster, for PFS

    @property
    def valid(self) -> Tensor:
        """(b, m) bool: positive actions on pins with a vector. All else would be far from everything."""
        return self.signs > 0

    @property
    def disliked(self) -> Tensor:
        """(b, m) bool: negative actions on pins with a vector."""
        return self.signs < 0


def history(
    vectors: Floats,
    signs: NDArray[np.integer],
    times_ms: Ints,
    now_ms: int,
    profile: Sequence[int] = (0,) * len(PROFILE),
    *,
    length: int,
) -> Histories:
    """One user's `Histories` (b = 1) as of `now_ms`: actions at or after it are left out.

    `vectors` (n, d), `signs` (n,) and `times_ms` (n,) stand NEWEST FIRST, one row an action; a row of zeros
    is a pin without a vector. Of the actions before `now_ms` the newest `length` are kept.
    """
    if not len(vectors) == len(signs) == len(times_ms):
        raise ValueError(
            f"{len(vectors)} vectors, {len(signs)} signs, {len(times_ms)} times; all are one an action"
        )
    kept = (np.asarray(times_ms) < now_ms).nonzero()[0][:length]
    acts = Acts.of(np.asarray(signs)[kept], np.asarray(times_ms)[kept], now_ms, profile)
    return acts.history(vectors[kept])


@dataclass(frozen=True)
class Acts:
    """One user's actions as of a time, NEWEST FIRST, without their pins: alike in every space."""

    signs: Ints  # (n,)
    hours: Floats  # (n,) age
    profile: Ints  # (1, len(PROFILE))

    @classmethod
    def of(cls, signs: NDArray[np.integer], times_ms: Ints, now_ms: int, profile: Sequence[int]) -> Acts:
        """Of actions before `now_ms` alone, newest first."""
        hours = ((now_ms - times_ms.astype(np.int64)) / MS_PER_HOUR).astype(np.float32)
        return cls(signs.astype(np.int64), hours, np.array([profile], np.int64))

    def history(self, vectors: Floats) -> Histories:
        """The newest m actions by the vectors (m, d) of their pins; zeros are a pin without one."""
        items = np.ascontiguousarray(vectors, np.float32)
        signs = np.where(items.any(axis=1), self.signs[: len(items)], 0)
        # One user is a batch of one before torch has it: each call of torch's costs ten of NumPy's.
        arrays = (items[None], signs[None], self.hours[None, : len(items)], self.profile)
        return Histories(*map(torch.from_numpy, arrays))


RECENT = 10
DECAY_HOURS = 168.0
POOLED = 4
DENSE = 3


def pooled(histories: Histories) -> tuple[Tensor, Tensor]:
    """A history as few numbers: (b, POOLED, d) means and (b, DENSE) scalars.

    Means of the valid items: plain, with weights exp(-age / week), of the newest ten; and of the disliked
    ones. Scalars: log counts of both, log hours since the newest valid action. All zero for an empty history.
    """
    valid, hours = histories.valid, histories.hours
    newest = valid & (valid.cumsum(dim=1) <= RECENT)
    weights = torch.stack(
        [valid.float(), valid * torch.exp(-hours / DECAY_HOURS), newest.float(), histories.disliked.float()],
        dim=1,
    )  # (b, POOLED, m)
    total = weights.sum(dim=2, keepdim=True)
    means = torch.bmm(weights / total.clamp(min=1e-6), histories.items)
    since = (
        torch.where(valid, hours, torch.inf).amin(dim=1)
        if hours.shape[1]
        else torch.full((len(hours),), torch.inf)
    )
    since = torch.where(torch.isfinite(since), torch.log1p(since.clamp(min=0)), 0.0)
    dense = torch.stack([torch.log1p(total[:, 0, 0]), torch.log1p(total[:, 3, 0]), since], dim=1) / 5
    return means, dense
