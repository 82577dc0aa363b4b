"""What a ranker foretells of the pins of one request: a probability for each head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bentos.features import Flags, Floats, Ints
from bentos.ranking_features import Seen
from training.models.light_kernels import rows_among


@dataclass(frozen=True)
class Heads:
    """Probabilities of n pins by H heads, as the ranker gives them or calibrated."""

    ranker: str
    """`model@version`."""
    names: tuple[str, ...]
    """Of the H heads, in the ranker's order."""
    pin_ids: Ints  # (n,)
    p: Floats  # (n, H)
    calibrated: bool = False
    reads_query: bool = False
    """Whether the ranker weighs what is searched for: one that does not cannot order results of a search."""
    seen: Seen | None = None
    """What was read for them, where that was in another process and is to be logged."""

    def __post_init__(self) -> None:
        wanted = (len(self.pin_ids), len(self.names))
        if self.p.shape != wanted:
            raise ValueError(f"{self.ranker} gives {self.p.shape} scores; {wanted} are needed")

    @property
    def sound(self) -> Flags:
        """Which pins have a probability for every head, (n,)."""
        if self.p.min(initial=0) >= 0 and self.p.max(initial=0) <= 1:  # neither, where one is NaN
            return np.ones(len(self.p), bool)
        return ((self.p >= 0) & (self.p <= 1)).all(axis=1)

    def take(self, index: NDArray[np.bool_]) -> Heads:
        """Those of the pins that a mask names."""
        return replace(self, pin_ids=self.pin_ids[index], p=self.p[index])

    def with_calibrated(self, p: Floats) -> Heads:
        """The same pins with calibrated probabilities."""
        return replace(self, p=p, calibrated=True)

    def of(self, pin_ids: Ints) -> Floats:
        """Rows of `pin_ids`, (m, H), all of them ranked here."""
        if pin_ids is self.pin_ids:
            return self.p
        return self.p[rows_among(pin_ids, self.pin_ids)]
