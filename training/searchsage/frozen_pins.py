"""The pins that queries are learned against, and what a query finds among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FrozenPins:
    """Pins by row, whose vectors do not move."""

    ids: Ints  # (p,) ascending
    vectors: Floats  # (p, d) rows of about unit length, zero where the space has none
    candidates: Ints  # rows that could have been found when training ends

    def rows(self, pin_ids: Ints) -> Ints:
        """Row of each pin, -1 where it is unknown or has no vector."""
        if not len(self.ids):
            return np.full(len(pin_ids), -1, np.int64)
        at = np.minimum(np.searchsorted(self.ids, pin_ids), len(self.ids) - 1)
        return np.where((self.ids[at] == pin_ids) & self.vectors[at].any(axis=1), at, -1)
