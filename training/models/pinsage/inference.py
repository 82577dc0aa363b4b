"""Vectors of a whole catalogue, layer by layer: every latent is computed once (paper, section 3.5).

One layer is three pure steps over partitions of pins: project each pin, pool the projections of each pin's
neighbours, join. The same steps over Arrow tables, for an engine that holds the joins, are in `partitions.py`.
A new pin is answered from the latents that the catalogue left behind (`Latents`), without training or
touching another pin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.models.pinsage.blocks import Adjacency, BlockBuilder
from training.models.pinsage.config import Pooling
from training.models.pinsage.neighbourhoods import Neighbourhoods
from training.models.pinsage.network import PinSage
from training.models.pinsage.pooling import pool

Floats = NDArray[np.float32]

PARTITION = 16_384
"""Pins a step handles at once; latents of that many stay in cache-sized pieces."""


@dataclass(frozen=True)
class Latents:
    """What the pass over a catalogue leaves: vectors, and per layer what each pin says to its neighbours."""

    vectors: Floats  # (n, dim)
    projected: tuple[Floats, ...]
    """One (n, hidden) a convolution: ReLU(Q h + q). 4 * n * hidden bytes each."""


def embed_catalogue(
    network: PinSage, inputs: Floats, neighbourhoods: Neighbourhoods, *, partition: int = PARTITION
) -> Floats:
    """Vectors of every pin of the catalogue, (n, dim) float32, each layer's latents computed once.

    `inputs` (n, width) are `pin_inputs`; `neighbourhoods` those of the same n pins. Peak memory is three
    (n, hidden) arrays. Equal, to rounding, to `embed_pins` of all rows.
    """
    return _run(network, inputs, neighbourhoods, partition, keep=False).vectors


def embed_catalogue_with_latents(
    network: PinSage, inputs: Floats, neighbourhoods: Neighbourhoods, *, partition: int = PARTITION
) -> Latents:
    """`embed_catalogue`, keeping the projections from which `embed_new_pins` answers."""
    return _run(network, inputs, neighbourhoods, partition, keep=True)


def embed_new_pins(
    network: PinSage, inputs: Floats, neighbourhoods: Neighbourhoods, latents: Latents
) -> Floats:
    """Vectors of pins that came after the catalogue's pass, (k, dim), in O(T) rows each.

    `inputs` (k, width) are theirs; `neighbourhoods` are those of the k new pins, with rows of the catalogue
    as neighbours (a pin without any is embedded from its content alone). Equal to a new pass over the
    catalogue and the new pins, as long as no old pin has a new one for a neighbour.
    """
    with torch.inference_mode():
        graph = pooled_graph(neighbourhoods, network.config.pooling)
        adjacency = _rows_of(graph, slice(0, len(graph)), len(latents.vectors))
        hidden = torch.from_numpy(inputs)
        for convolution, said in zip(network.convolutions, latents.projected, strict=True):
            hidden = convolution.join(hidden, pool(torch.from_numpy(said), adjacency, convolution.pooling))
        return network.vectors(hidden).numpy()


def embed_pins(
    network: PinSage, inputs: Floats, neighbourhoods: Neighbourhoods, rows: NDArray[np.integer]
) -> Floats:
    """Vectors of distinct `rows` by recursion from the inputs, (len(rows), dim), as training computes them.

    Costs the whole K-hop neighbourhood of the rows; for many rows `embed_catalogue` is far cheaper.
    """
    neighbourhoods = pooled_graph(neighbourhoods, network.config.pooling)
    with torch.inference_mode():
        block = BlockBuilder(neighbourhoods).build(rows, network.config.layers)
        return network.served(network(torch.from_numpy(inputs[block.nodes]), block)).numpy()


def pooled_graph(neighbourhoods: Neighbourhoods, pooling: Pooling) -> Neighbourhoods:
    """The neighbourhoods with the weights that `pooling` asks for: importance ones as they are, else even."""
    return neighbourhoods if pooling is Pooling.IMPORTANCE else neighbourhoods.even()


def _run(
    network: PinSage, inputs: Floats, neighbourhoods: Neighbourhoods, partition: int, keep: bool
) -> Latents:
    if len(inputs) != len(neighbourhoods):
        raise ValueError(
            f"{len(inputs)} input rows and {len(neighbourhoods)} neighbourhoods; both are one a pin"
        )
    graph = pooled_graph(neighbourhoods, network.config.pooling)
    parts = [slice(a, min(a + partition, len(inputs))) for a in range(0, len(inputs), partition)]
    kept = []
    with torch.inference_mode():
        hidden = torch.from_numpy(np.ascontiguousarray(inputs, np.float32))
        for convolution in network.convolutions:
            said = hidden.new_empty((len(inputs), network.config.hidden))
            for part in parts:
                said[part] = convolution.projected(hidden[part])
            nxt = torch.empty_like(said)
            for part in parts:
                pooled = pool(said, _rows_of(graph, part, len(graph)), convolution.pooling)
                nxt[part] = convolution.join(hidden[part], pooled)
            hidden = nxt
            if keep:
                kept.append(said.numpy())
        vectors = hidden.new_empty((len(inputs), network.config.dim))
        for part in parts:
            vectors[part] = network.vectors(hidden[part])
    return Latents(vectors.numpy(), tuple(kept))


def _rows_of(graph: Neighbourhoods, part: slice, sources: int) -> Adjacency:
    """Edges of one partition's rows; their sources are the `sources` pins of the catalogue."""
    start, end = int(graph.offsets[part.start]), int(graph.offsets[part.stop])
    offsets = (graph.offsets[part.start : part.stop + 1] - start).astype(np.int32)
    return Adjacency(
        torch.from_numpy(graph.ids[start:end]),
        torch.from_numpy(offsets),
        torch.from_numpy(graph.weights[start:end]),
        sources,
    )
