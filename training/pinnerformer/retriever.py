"""A trained network with its catalogue and users' timelines: what it recommends to whom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training.models.pinnerformer.inference import embed_pins, embed_users
from training.models.pinnerformer.network import PinnerFormer
from training.pinnerformer.evaluation import known_pins, top_pins
from training.pinnerformer.timelines import Timelines

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Retriever:
    """Retrieves as of `as_of_ms`: actions from then on are not seen, though `timelines` may hold them."""

    network: PinnerFormer
    content: Floats  # (pins, P)
    pin_ids: Ints  # (pins,)
    candidates: NDArray[np.integer]
    """Catalogue rows that may be recommended."""
    timelines: Timelines
    as_of_ms: int

    @cached_property
    def pin_vectors(self) -> Floats:
        """(pins, D), the pin tower's."""
        return embed_pins(self.network, self.content)

    def user_vectors(self, users: Ints, ends: Ints | None = None) -> Floats:
        """Vectors of `users` (places), (n, D), from their rows before `ends` (default: before `as_of_ms`)."""
        ends = self._ends(users) if ends is None else ends
        starts = self.timelines.offsets[:-1][users]
        return embed_users(self.network, self.timelines.arrays, starts, ends, self.content)

    def top(self, users: Ints, count: int) -> Ints:
        """Catalogue rows for `users` (places), best first, without those acted on; (n, count), -1 padded."""
        known = known_pins(self.timelines, users, self._ends(users))
        return top_pins(self.user_vectors(users), self.pin_vectors, self.candidates, known, count)

    def recommend(self, user_ids: Ints, k: int) -> Ints:
        """Pin ids for each of `user_ids`, best first, (n, k) int64, zero-padded; a user without actions before
        `as_of_ms` gets none."""
        at = np.minimum(np.searchsorted(self.timelines.users, user_ids), max(len(self.timelines) - 1, 0))
        known = self.timelines.users[at] == user_ids if len(self.timelines) else np.zeros(len(user_ids), bool)
        known[known] = self._ends(at[known]) > self.timelines.offsets[:-1][at[known]]
        out = np.zeros((len(user_ids), k), np.int64)
        rows = self.top(at[known], k)
        out[known] = np.where(rows >= 0, self.pin_ids[rows], 0)
        return out

    def _ends(self, users: Ints) -> Ints:
        return self.timelines.ends_before(users, np.full(len(users), self.as_of_ms))
