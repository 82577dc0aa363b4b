"""Pin-board graphs of any size with a planted likeness of pins: where importance pooling can be asked for.

Pins belong to fine tastes and tastes to themes. A board is somebody's: most of its pins are of one taste, some
of its theme, the rest anything popular. People go from pin to pin within a taste, less often within a theme or
anywhere. Content shows the theme well and the taste badly, so the taste has to be read off the boards; and a
taste is smaller than a neighbourhood, so most neighbours are noise. A demo world cannot show this: its boards
are as short as its month, so a pin has fewer neighbours than T.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.models.pin_board_graph import PinBoardGraph, from_edges
from training.pinsage.pairs import Pairs

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class PlantedBoards:
    """The laws of one catalogue; equal ones make equal graphs."""

    pins: int
    taste: int = 8
    """Pins a taste."""
    theme: int = 32
    """Tastes a theme."""
    degree: float = 6.0
    """Mean boards a pin."""
    board: float = 12.0
    """Mean pins a board; sizes are lognormal."""
    board_shares: tuple[float, float] = (0.6, 0.2)
    """Of a board's pins, those of its taste and those of its theme; the rest come from the whole catalogue."""
    pair_shares: tuple[float, float] = (0.7, 0.15)
    """The same of the next pin somebody acts on."""
    popularity: float = 1.0
    """Standard deviation of the log of a pin's popularity."""
    content: tuple[float, float, float] = (1.0, 0.25, 1.0)
    """Lengths of theme, taste and noise in a content vector."""
    dim: int = 64
    seed: int = 7

    @property
    def tastes(self) -> int:
        return max(self.pins // self.taste, 1)


@dataclass(frozen=True)
class Planted:
    """One catalogue: row i is pin id i + 1, and rows of a taste (of a theme) stand together."""

    laws: PlantedBoards
    graph: PinBoardGraph
    content: Floats  # (n, dim) unit rows

    @property
    def pin_ids(self) -> Ints:
        return np.arange(1, self.laws.pins + 1)

    def pairs(self, count: int, seed: int) -> Pairs:
        """`count` (query, next pin) pairs of different pins."""
        laws, rng = self.laws, np.random.default_rng([self.laws.seed, seed, 3])
        popular = _Popularity.of(laws)
        queries = popular.draw(np.zeros(count, np.int64), np.full(count, laws.pins), rng)
        positives = popular.near(queries // laws.taste, laws.pair_shares, laws, rng)
        kept = queries != positives
        queries, positives = queries[kept].astype(np.int32), positives[kept].astype(np.int32)
        return Pairs(queries, positives, np.arange(len(queries), dtype=np.int64))

    def two_hops(self, sampled: int = 64, seed: int = 7) -> float:
        """Mean share of the catalogue within two pin -> board -> pin steps, over `sampled` pins."""
        pins, boards = self.graph.edge_list()
        by_pin = _Csr.of(pins, boards, self.graph.pins)
        by_board = _Csr.of(boards, pins, self.graph.boards)
        starts = np.random.default_rng(seed).choice(
            self.graph.pins, min(sampled, self.graph.pins), replace=False
        )
        shares = []
        for start in starts:
            met = np.array([start])
            for _ in range(2):
                met = np.unique(by_board.of_all(np.unique(by_pin.of_all(met))))
            shares.append(max(len(met) - 1, 0) / self.graph.pins)
        return float(np.mean(shares))


def plant(laws: PlantedBoards) -> Planted:
    """Make the catalogue and its graph. Memory: about 60 bytes an edge while it is made."""
    rng = np.random.default_rng([laws.seed, 1])
    count = max(int(laws.pins * laws.degree / laws.board), 1)
    sizes = np.maximum(rng.lognormal(np.log(laws.board) - 0.18, 0.6, count).astype(np.int64), 2)
    board = np.repeat(np.arange(count), sizes)
    taste = rng.integers(0, laws.tastes, count)[board]
    pins = _Popularity.of(laws).near(taste, laws.board_shares, laws, rng)
    graph = from_edges(pins + 1, board + 1, pin_ids=np.arange(1, laws.pins + 1))
    return Planted(laws, graph, _content(laws))


def _content(laws: PlantedBoards) -> Floats:
    rng = np.random.default_rng([laws.seed, 2])
    rows = np.arange(laws.pins) // laws.taste
    theme, taste, noise = laws.content
    out = noise * _unit(rng.standard_normal((laws.pins, laws.dim), np.float32))
    out += taste * _unit(rng.standard_normal((int(rows.max()) + 1, laws.dim), np.float32))[rows]
    themes = rows // laws.theme
    out += theme * _unit(rng.standard_normal((int(themes.max()) + 1, laws.dim), np.float32))[themes]
    return _unit(out)


def _unit(rows: Floats) -> Floats:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class _Popularity:
    cumulative: NDArray[np.float64]  # (n + 1,)

    @classmethod
    def of(cls, laws: PlantedBoards) -> _Popularity:
        weights = np.random.default_rng([laws.seed, 0]).lognormal(0, laws.popularity, laws.pins)
        return cls(np.concatenate([[0.0], np.cumsum(weights)]))

    def draw(self, low: Ints, high: Ints, rng: np.random.Generator) -> Ints:
        """One row of each range [low, high), by popularity."""
        start, end = self.cumulative[low], self.cumulative[high]
        at = np.searchsorted(self.cumulative, start + rng.random(len(low)) * (end - start), side="right") - 1
        return np.clip(at, low, high - 1)

    def near(
        self, taste: Ints, shares: tuple[float, float], laws: PlantedBoards, rng: np.random.Generator
    ) -> Ints:
        """One row each: of the taste, of its theme or of the whole catalogue, by `shares`."""
        kind = rng.random(len(taste))
        width = np.where(kind < shares[0], 1, laws.theme)
        first = taste // width * width
        low, high = first * laws.taste, np.minimum((first + width) * laws.taste, laws.pins)
        anywhere = kind >= sum(shares)
        return self.draw(np.where(anywhere, 0, low), np.where(anywhere, laws.pins, high), rng)


@dataclass(frozen=True)
class _Csr:
    offsets: Ints
    ends: Ints

    @classmethod
    def of(cls, rows: NDArray[np.integer], ends: NDArray[np.integer], count: int) -> _Csr:
        order = np.argsort(rows, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))])
        return cls(offsets, ends[order].astype(np.int64))

    def of_all(self, rows: Ints) -> Ints:
        counts = self.offsets[rows + 1] - self.offsets[rows]
        starts = np.repeat(self.offsets[rows] - np.cumsum(counts) + counts, counts)
        return self.ends[starts + np.arange(counts.sum())]
