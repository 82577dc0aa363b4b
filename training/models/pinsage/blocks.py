"""The part of the graph that one batch needs, re-indexed: every pin once, however often it is a neighbour.

With seeds S, layer K needs S and its neighbours, layer K - 1 those and theirs, and so on (algorithm 2, lines
1-7). Pins are numbered in the order in which they are met, so the pins of a layer are the first rows of the
layer below it, and one CSR serves every layer: layer k pools the first `sizes[k]` of its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.models.pinsage.neighbourhoods import Neighbourhoods


@dataclass(frozen=True)
class Adjacency:
    """Weighted edges from `sources` input rows to `rows` output rows, with the transpose its gradient needs."""

    indices: Tensor  # (edges,) int32 input rows
    offsets: Tensor  # (rows + 1,) int32
    weights: Tensor  # (edges,) float32
    sources: int

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def transposed(self) -> Adjacency:
        arrays = _transpose(
            self.indices.numpy(), self.offsets.numpy(), self.weights.numpy(), np.int64(self.sources)
        )
        indices, offsets, weights = (torch.from_numpy(a) for a in arrays)
        return Adjacency(indices, offsets, weights, self.rows)


@dataclass(frozen=True)
class Block:
    """The subgraph of one batch."""

    nodes: NDArray[np.int32]
    """Catalogue rows of every pin met, seeds first, (sizes[0],)."""
    layers: tuple[Adjacency, ...]
    """One a convolution, in running order: the first reads all nodes, the last answers the seeds."""


class BlockBuilder:
    """Builds blocks from one set of neighbourhoods; holds 4 bytes a pin of scratch, so one thread at a time."""

    def __init__(self, neighbourhoods: Neighbourhoods) -> None:
        self._graph = neighbourhoods
        self._row_of = np.full(len(neighbourhoods), -1, np.int32)

    def build(self, seeds: NDArray[np.integer], layers: int, *, gradients: bool = False) -> Block:
        """The block of distinct `seeds` for `layers` convolutions.

        `gradients` prepares each layer's transpose as well, so that the training thread need not. Raises
        ValueError on repeated seeds and IndexError on seeds outside the catalogue.
        """
        seeds = np.ascontiguousarray(seeds, np.int32)
        if len(seeds) and not 0 <= seeds.min() <= seeds.max() < len(self._row_of):
            raise IndexError(
                f"seeds lie in [{seeds.min()}, {seeds.max()}], the catalogue has {len(self._row_of)} pins"
            )
        graph = self._graph
        nodes, sizes, indices, offsets, weights = _grow(
            seeds, layers, graph.offsets, graph.ids, graph.weights, self._row_of
        )
        if sizes[0] < 0:
            raise ValueError("a seed is there twice; a block computes every pin once, so pass distinct seeds")
        adjacencies = []
        for layer in range(layers, 0, -1):
            rows, sources = int(sizes[layer - 1]), int(sizes[layer])
            end = int(offsets[rows])
            adjacencies.append(
                Adjacency(
                    torch.from_numpy(indices[:end]),
                    torch.from_numpy(offsets[: rows + 1]),
                    torch.from_numpy(weights[:end]),
                    sources,
                )
            )
            if gradients:
                adjacencies[-1].transposed  # noqa: B018  (a cached property: computed here, in the caller's thread)
        return Block(nodes, tuple(adjacencies))


def whole_graph(neighbourhoods: Neighbourhoods) -> Adjacency:
    """The adjacency in which every pin is both source and row: one full-graph convolution."""
    if neighbourhoods.edges > np.iinfo(np.int32).max:
        raise ValueError(f"{neighbourhoods.edges} edges exceed int32; convolve partitions of pins instead")
    return Adjacency(
        torch.from_numpy(neighbourhoods.ids),
        torch.from_numpy(neighbourhoods.offsets.astype(np.int32)),
        torch.from_numpy(neighbourhoods.weights),
        len(neighbourhoods),
    )


@numba.njit(cache=True, nogil=True)
def _grow(seeds, layers, graph_offsets, graph_ids, graph_weights, row_of):
    """Nodes met, sizes (seeds, after one layer, ...), and the CSR of all but the outermost nodes.

    `row_of` comes and goes filled with -1. sizes[0] is -1 when a seed repeats.
    """
    sizes = np.zeros(layers + 1, np.int64)
    capacity = max(2 * len(seeds), 16)
    nodes = np.empty(capacity, np.int32)
    count = 0
    for seed in seeds:
        if row_of[seed] >= 0:
            for i in range(count):
                row_of[nodes[i]] = -1
            sizes[0] = -1
            empty = np.empty(0, np.int32)
            return empty, sizes, empty, empty, np.empty(0, np.float32)
        row_of[seed] = count
        nodes[count] = seed
        count += 1
    sizes[0] = count
    edge_capacity = 64
    indices = np.empty(edge_capacity, np.int32)
    weights = np.empty(edge_capacity, np.float32)
    offsets = np.zeros(capacity + 1, np.int32)
    done, edges = 0, 0
    for layer in range(layers):
        frontier = count
        need = edges
        for row in range(done, frontier):
            node = nodes[row]
            need += graph_offsets[node + 1] - graph_offsets[node]
        if need > edge_capacity:
            edge_capacity = need
            indices = _longer(indices, edge_capacity)
            weights = _longer(weights, edge_capacity)
        limit = min(count + need - edges, len(row_of))
        if limit > capacity:
            capacity = limit
            nodes = _longer(nodes, capacity)
        if frontier + 1 > len(offsets):
            offsets = _longer(offsets, frontier + 1)
        for row in range(done, frontier):
            node = nodes[row]
            for e in range(graph_offsets[node], graph_offsets[node + 1]):
                neighbour = graph_ids[e]
                at = row_of[neighbour]
                if at < 0:
                    at = count
                    row_of[neighbour] = at
                    nodes[count] = neighbour
                    count += 1
                indices[edges] = at
                weights[edges] = graph_weights[e]
                edges += 1
            offsets[row + 1] = edges
        done = frontier
        sizes[layer + 1] = count
    for i in range(count):
        row_of[nodes[i]] = -1
    return nodes[:count].copy(), sizes, indices[:edges], offsets[: done + 1], weights[:edges]


@numba.njit(cache=True, nogil=True)
def _longer(array, length):
    out = np.zeros(length, array.dtype)
    for i in range(len(array)):  # numba compiles a loop in a tenth of the time of an assignment
        out[i] = array[i]
    return out


@numba.njit(cache=True, nogil=True)
def _transpose(indices, offsets, weights, sources):
    """The CSR whose rows are the sources, by one counting sort: rows stay ascending within a source."""
    out_offsets = np.zeros(sources + 1, np.int32)
    for e in range(len(indices)):
        out_offsets[indices[e] + 1] += 1
    for i in range(sources):
        out_offsets[i + 1] += out_offsets[i]
    place = out_offsets[:-1].copy()
    out_indices = np.empty(len(indices), np.int32)
    out_weights = np.empty(len(indices), np.float32)
    for row in range(len(offsets) - 1):
        for e in range(offsets[row], offsets[row + 1]):
            at = place[indices[e]]
            place[indices[e]] += 1
            out_indices[at] = row
            out_weights[at] = weights[e]
    return out_indices, out_offsets, out_weights
