"""What one training step sees, as a pure function of (seed, epoch, step): any step can be made again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from training.models.pinnerformer.loss import Negatives
from training.models.pinnerformer.objectives import Objective, last_with_label, targets
from training.models.pinnerformer.tokens import MS_PER_DAY, Tokens, collate, window_starts
from training.pinnerformer.timelines import Timelines

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_SHUFFLED = 16
"""Batches' worth of sequences that are put together in order of length, so that little is padded."""


class Sampling(BaseModel):
    """How sequences, labels and negatives are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Objective = Objective.DENSE_ALL_ACTION
    window_days: float = Field(28.0, gt=0)
    """K: labels of the all-action objectives come from so many days after the token."""
    users: int = Field(64, ge=1)
    """Sequences a step."""
    positions: int = Field(32, ge=1)
    """Pairs a sequence gives at most (SASRec takes every token)."""
    longest_share: float = Field(0.25, ge=0, le=1)
    """Share of sequences that end at the user's last action that has a label; the others end anywhere."""
    sequences_per_user: int = Field(4, ge=1)
    """Sequences an epoch takes of a user at most: one for each `length` of the user's actions."""
    negatives: Negatives = Negatives.MIXED
    in_batch: int = Field(512, ge=1)
    """Positives of the batch in the pool at most (the paper: 5,000)."""
    random: int = Field(512, ge=1)
    """Uniform pins in the pool (the paper: 8,192)."""


@dataclass(frozen=True)
class Batch:
    """One step: sequences, which of their tokens predict which pins, and the pool of negatives."""

    tokens: Tokens
    owners: Tensor  # (n,) sequence of each pair
    positions: Tensor  # (n,) its token
    positives: Tensor  # (n,) int64 catalogue rows
    pool: Tensor  # (m,) int64 catalogue rows: positives of the batch, then uniform pins
    in_batch: int
    """How many of the pool are positives of the batch."""
    allowed: Tensor  # (b, m) bool: the pin is none of the sequence's user's positives of this batch


@dataclass(frozen=True)
class BatchPlan:
    """How timelines become batches. Creating it does nothing."""

    timelines: Timelines
    content: Floats  # (pins, P)
    candidates: NDArray[np.int32]
    """Catalogue rows that uniform negatives are drawn from: pins that exist."""
    sampling: Sampling
    length: int
    days: float
    seed: int

    @cached_property
    def ends(self) -> Ints:
        """Per user, the end of the rows that some label follows, (U,)."""
        lines = self.timelines
        return last_with_label(lines.arrays.times_ms, lines.offsets, lines.labels)

    @cached_property
    def takers(self) -> Ints:
        """User places, each as often as an epoch takes a sequence of it, (s,)."""
        rows = self.ends - self.timelines.offsets[:-1]
        times = np.minimum(-(-rows // self.length), self.sampling.sequences_per_user)
        return np.repeat(np.arange(len(rows)), times)

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return -(-len(self.takers) // self.sampling.users)

    def order(self, epoch: int) -> list[tuple[Ints, Ints, Ints]]:
        """(users, starts, ends) of every step; sequences end at random rows that a label follows."""
        rng = np.random.default_rng([self.seed, epoch])
        users = rng.permutation(self.takers)
        first, last = self.timelines.offsets[:-1][users], self.ends[users]
        ends = first + 1 + (rng.random(len(users)) * (last - first)).astype(np.int64)
        ends = np.where(rng.random(len(users)) < self.sampling.longest_share, last, ends)
        starts = window_starts(self.timelines.arrays.times_ms, first, ends, self.length, self.days)
        size, batches = self.sampling.users, []
        for at in range(0, len(users), size * _SHUFFLED):
            alike = at + np.argsort((ends - starts)[at : at + size * _SHUFFLED], kind="stable")
            for begin in range(0, len(alike), size):
                chosen = alike[begin : begin + size]
                batches.append((users[chosen], starts[chosen], ends[chosen]))
        return [batches[i] for i in rng.permutation(len(batches))]

    def batch(self, epoch: int, step: int, chosen: tuple[Ints, Ints, Ints]) -> Batch:
        """Batch `step` of `epoch`, of the sequences `chosen` by `order`."""
        lines, sampling = self.timelines, self.sampling
        users, starts, ends = chosen
        rng = np.random.default_rng([self.seed, epoch, step])
        pairs = targets(
            sampling.objective,
            lines.arrays.times_ms,
            users,
            starts,
            ends,
            lines.labels,
            horizon_ms=int(sampling.window_days * MS_PER_DAY),
            positions=sampling.positions,
            rng=rng,
        )
        positives = lines.labels.pin_rows[pairs.labels].astype(np.int64)
        shared = positives[:0]
        if sampling.negatives is not Negatives.RANDOM:
            shared = rng.permutation(positives)[: sampling.in_batch]
        uniform = self.candidates[:0]
        if sampling.negatives is not Negatives.IN_BATCH:
            uniform = self.candidates[rng.integers(0, len(self.candidates), sampling.random)]
        pool = np.concatenate([shared, uniform.astype(np.int64)])
        return Batch(
            tokens=collate(lines.arrays, starts, ends, self.content),
            owners=torch.from_numpy(pairs.owners),
            positions=torch.from_numpy(pairs.positions),
            positives=torch.from_numpy(positives),
            pool=torch.from_numpy(pool),
            in_batch=len(shared),
            allowed=torch.from_numpy(allowed_pins(users, users[pairs.owners], positives, pool)),
        )


def allowed_pins(users: Ints, owners: Ints, positives: Ints, pool: Ints) -> NDArray[np.bool_]:
    """(b, m): pool pin j is none of the positives of user `users[i]` among the pairs (owners, positives)."""
    scale = int(max(pool.max(initial=0), positives.max(initial=0))) + 1
    own = np.unique(owners * scale + positives)
    asked = users[:, None] * scale + pool[None, :]
    if len(own) == 0:
        return np.ones(asked.shape, np.bool_)
    at = np.minimum(np.searchsorted(own, asked), len(own) - 1)
    return own[at] != asked
