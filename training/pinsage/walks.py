"""From the pin-board graph to what PinSage reads: neighbourhoods, degrees and ranked lists by catalogue row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.models.pin_board_graph import PinBoardGraph
from training.models.pin_board_overlay import GraphView
from training.models.pinsage.neighbourhoods import Neighbourhoods
from training.models.pixie import importance_neighbours
from training.pinsage.negatives import HardNegatives, hard_negatives
from training.pinsage.pairs import Pairs

Ids = NDArray[np.int64]
Rows = NDArray[np.int32]

_CHUNK = 65_536


class WalkConfig(BaseModel):
    """The random walks. The paper names only T (50); their number and length it does not give."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    neighbours: int = Field(50, ge=1)
    """T, most visited pins kept."""
    walks: int = Field(200, ge=1)
    hops: int = Field(2, ge=1)
    """Pin -> board -> pin steps of a walk."""
    hard_walks: int = Field(2_000, ge=1)
    hard_hops: int = Field(4, ge=1)
    """Walks that rank hard negatives reach further, by more walks of more steps."""
    hard_ranks: tuple[int, int] = (2_000, 5_000)
    """Window [low, high) of ranks hard negatives come from; the paper's, for 2 billion pins."""
    seed: int = 7
    threads: int = Field(1, ge=1)


@dataclass(frozen=True)
class CatalogueGraph:
    """A graph seen by rows of a catalogue: row r is `pin_ids[r]`. Neither need know all pins of the other."""

    graph: PinBoardGraph | GraphView
    pin_ids: Ids
    config: WalkConfig

    def degrees(self) -> NDArray[np.int64]:
        """Boards of each row, (n,) int64; 0 for a pin the graph does not know."""
        index = self.graph.index_of(self.pin_ids)
        out = np.zeros(len(index), np.int64)
        out[index >= 0] = self.graph.degrees(index[index >= 0])
        return out

    def neighbourhoods(self) -> Neighbourhoods:
        """Importance neighbourhoods of every row; neighbours outside the catalogue are left out."""
        c = self.config
        return self._walked(c.walks, c.hops, c.neighbours)

    def uniform(self) -> Neighbourhoods:
        """GraphSAGE's neighbours of every row: T draws of a board of the pin and a pin of the board, weighed
        alike. What is drawn twice is there once, and none is chosen for being drawn often."""
        return self._walked(self.config.neighbours, 1, self.config.neighbours).even()

    def hard(self, pairs: Pairs, kept: int = 64) -> HardNegatives:
        """Hard negatives of the pairs' queries, by rank of visits of the longer walks."""
        low, high = self.config.hard_ranks
        return hard_negatives(
            self.ranked, pairs.queries, len(self.pin_ids), low=low, high=high, kept=kept, seed=self.config.seed
        )

    def ranked(self, rows: Rows) -> Rows:
        """Rows most visited from each of `rows`, best first, (n, hard_ranks[1]) padded with -1."""
        index = self.graph.index_of(self.pin_ids[rows])
        c = self.config
        out = np.full((len(rows), c.hard_ranks[1]), -1, np.int32)
        known = index >= 0
        found, _ = importance_neighbours(
            self.graph,
            index[known],
            walks=c.hard_walks,
            hops=c.hard_hops,
            top=c.hard_ranks[1],
            seed=c.seed,
            threads=c.threads,
        )
        out[known] = self._rows_of(found)
        return out

    def _walked(self, walks: int, hops: int, top: int) -> Neighbourhoods:
        index = self.graph.index_of(self.pin_ids)
        counts = np.zeros(len(index), np.int64)
        ids, weights = [], []
        for start in range(0, len(index), _CHUNK):
            rows = start + np.flatnonzero(index[start : start + _CHUNK] >= 0)
            found, visits = importance_neighbours(
                self.graph,
                index[rows],
                walks=walks,
                hops=hops,
                top=top,
                seed=self.config.seed,
                threads=self.config.threads,
            )
            part = Neighbourhoods.from_padded(self._rows_of(found), visits, rows)
            counts[rows] = np.diff(part.offsets)
            ids.append(part.ids)
            weights.append(part.weights)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        nothing = Neighbourhoods.none(0)
        return Neighbourhoods(
            offsets, np.concatenate([nothing.ids, *ids]), np.concatenate([nothing.weights, *weights])
        )

    def _rows_of(self, indexes: Rows) -> Rows:
        """Catalogue row of each graph index, -1 for padding and for pins outside the catalogue."""
        order = np.argsort(self.pin_ids, kind="stable")
        known = self.graph.ids_of(np.arange(self.graph.pins, dtype=np.int32))
        at = np.minimum(np.searchsorted(self.pin_ids, known, sorter=order), max(len(order) - 1, 0))
        if not len(order):
            return np.full(indexes.shape, -1, np.int32)
        rows = np.where(self.pin_ids[order[at]] == known, order[at], -1)
        return np.where(indexes >= 0, rows[indexes], -1).astype(np.int32)
