"""Importance neighbourhoods: of every pin its T most visited neighbours and their weights, ragged.

A pin is a row 0..n-1 of the catalogue here; what row stands for which pin id is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Neighbourhoods:
    """Neighbours of n pins: those of row r are `ids[offsets[r]:offsets[r + 1]]`, heaviest first."""

    offsets: NDArray[np.int64]  # (n + 1,)
    ids: Ids  # (edges,)
    weights: Floats  # (edges,) positive, summing to one per pin that has neighbours

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def edges(self) -> int:
        return len(self.ids)

    @classmethod
    def none(cls, pins: int) -> Neighbourhoods:
        """`pins` pins without a neighbour."""
        return cls(np.zeros(pins + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))

    @classmethod
    def from_padded(
        cls, ids: NDArray[np.integer], weights: NDArray[np.floating], rows: NDArray[np.integer] | None = None
    ) -> Neighbourhoods:
        """From (n, T) arrays padded with -1, as the walk engine answers.

        `rows` (n,) says which pin a row of the arrays is of (default 0..n-1): a pin is not its own neighbour,
        and weights are scaled to sum to one over what is left. Entries of weight <= 0 are dropped. Raises
        ValueError on shapes that differ and on weights that are not finite.
        """
        if ids.shape != weights.shape or ids.ndim != 2:
            raise ValueError(f"ids {ids.shape} and weights {weights.shape} must be one (n, T) shape")
        if not np.isfinite(weights).all():
            raise ValueError("a neighbour's weight is not finite; weights are visit counts of random walks")
        own = np.arange(len(ids)) if rows is None else rows
        kept = (ids >= 0) & (ids != own[:, None]) & (weights > 0)
        counts = kept.sum(axis=1)
        return cls._scaled(counts, ids[kept].astype(np.int32), weights[kept].astype(np.float64))

    def top(self, neighbours: int) -> Neighbourhoods:
        """The `neighbours` heaviest of each pin, weights scaled to sum to one again."""
        counts = np.diff(self.offsets)
        if neighbours < 1:
            raise ValueError(f"neighbours is {neighbours}; a neighbourhood keeps at least one")
        if not len(counts) or counts.max() <= neighbours:
            return self
        rank = np.arange(self.edges) - np.repeat(self.offsets[:-1], counts)
        kept = rank < neighbours
        return self._scaled(
            np.minimum(counts, neighbours), self.ids[kept], self.weights[kept].astype(np.float64)
        )

    def even(self) -> Neighbourhoods:
        """The same neighbours, each with the same weight: pooling over them is the plain mean."""
        counts = np.diff(self.offsets)
        return self._scaled(counts, self.ids, np.ones(self.edges))

    def of(self, rows: NDArray[np.integer]) -> Neighbourhoods:
        """Neighbourhoods of `rows` alone, in that order; the neighbours' ids stay rows of the catalogue."""
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        at = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - self.offsets[:-1][rows], counts)
        return Neighbourhoods(offsets, self.ids[at], self.weights[at])

    @classmethod
    def _scaled(cls, counts: NDArray[np.integer], ids: Ids, weights: NDArray[np.float64]) -> Neighbourhoods:
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        row = np.repeat(np.arange(len(counts)), counts)
        total = np.bincount(row, weights=weights, minlength=len(counts))
        return cls(offsets, ids, (weights / total[row]).astype(np.float32))
