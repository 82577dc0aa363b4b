"""Streaming estimate of how often an item is in a batch (Yi et al., RecSys 2019, algorithm 2).

A[h(y)] last step that had y,  B[h(y)] mean gap between such steps
B <- (1 - a) B + a (t - A);  A <- t;  p = 1 / B
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_PRIMES = (2_654_435_761, 2_246_822_519, 3_266_489_917, 668_265_263)


class StreamingFrequency(nn.Module):
    """Probability that an item is in a batch, from batches as they come; state is kept in buffers.

    Collisions make an item look more frequent, so with several hashes the longest gap counts (paper, 5.2).
    """

    def __init__(self, buckets: int, rate: float = 0.05, hashes: int = 2, first_gap: float = 100.0) -> None:
        """`rate` is a; a slot starts as if its item came once in `first_gap` batches."""
        super().__init__()
        if not 1 <= hashes <= len(_PRIMES):
            raise ValueError(f"{hashes} hashes; 1 to {len(_PRIMES)} are there")
        self.rate = rate
        self.hashes = hashes
        self.buckets = buckets
        self.register_buffer("last", torch.zeros(hashes, buckets, dtype=torch.float64))
        self.register_buffer("gap", torch.full((hashes, buckets), first_gap, dtype=torch.float64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def update(self, items: Tensor) -> None:
        """One batch has gone by that held `items`, (n,) int64 distinct ids."""
        self.step += 1
        now = float(self.step)
        for hashed, slots in enumerate(self._slots(items)):
            slots = slots.unique()
            gap = now - self.last[hashed, slots]
            self.gap[hashed, slots] = (1 - self.rate) * self.gap[hashed, slots] + self.rate * gap
            self.last[hashed, slots] = now

    def probability(self, items: Tensor) -> Tensor:
        """(n,) float32 in (0, 1]."""
        gaps = torch.stack([self.gap[hashed, slots] for hashed, slots in enumerate(self._slots(items))])
        return (1 / gaps.amax(dim=0).clamp(min=1)).float()

    def _slots(self, items: Tensor) -> list[Tensor]:
        return [((items + 1) * prime % 4_294_967_296 * self.buckets) >> 32 for prime in _PRIMES[: self.hashes]]
