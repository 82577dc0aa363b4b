"""How often a pin comes up as a positive, in memory that does not grow with the catalogue: count-min sketch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_PRIME = 2**31 - 1


class CountMinSketch(nn.Module):
    """`depth` rows of `width` counters; an estimate is the least of a pin's counters (Cormode 2005).

    Never too low; too high by more than e / width of the total with probability below exp(-depth). The
    counters are a buffer, so that a checkpoint of the trainer holds them.
    """

    def __init__(self, width: int = 65_536, depth: int = 4, seed: int = 7) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("counts", torch.zeros(depth, width, dtype=torch.int64))
        self.register_buffer("a", torch.randint(1, _PRIME, (depth, 1), generator=generator), persistent=False)
        self.register_buffer("b", torch.randint(0, _PRIME, (depth, 1), generator=generator), persistent=False)

    @property
    def total(self) -> int:
        """Everything counted so far."""
        return int(self.counts[0].sum())

    def add(self, pins: Tensor) -> None:
        """Count (n,) int64 pin rows, repeats as often as they come."""
        places = self._places(pins)
        self.counts.scatter_add_(1, places, torch.ones_like(places))

    def estimate(self, pins: Tensor) -> Tensor:
        """Counts of (n,) pin rows, (n,) int64."""
        return self.counts.gather(1, self._places(pins)).min(dim=0).values

    def _places(self, pins: Tensor) -> Tensor:
        return (self.a * pins[None, :] + self.b) % _PRIME % self.counts.shape[1]  # (depth, n)
