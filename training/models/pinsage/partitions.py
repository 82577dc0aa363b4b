"""PinSage inference as pure functions Arrow table -> Arrow table: the paper's MapReduce, section 3.5.

An engine (Spark by `mapInArrow` and grouped maps, or `pyarrow` alone) runs them over partitions and holds the
joins and groupings between them. One convolution is

    latents                         -- project_latents -->   said (pin_id, said)
    edges join said on neighbour_id -- pool_messages   -->   pooled (pin_id, pooled)      grouped by pin_id
    latents join pooled on pin_id   -- join_latents    -->   latents (pin_id, latent)     left join

and `head_vectors` ends it. Columns of vectors are list<float32>; order of rows means nothing.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.models.pinsage.config import Pooling
from training.models.pinsage.network import PinSage
from validation.tables import PIN_ID, VECTOR

NEIGHBOUR_ID = "neighbour_id"
WEIGHT = "weight"
LATENT = "latent"
SAID = "said"
POOLED = "pooled"
EMBEDDING = "vector"


def project_latents(latents: pa.Table, network: PinSage, layer: int) -> pa.Table:
    """(pin_id, latent) -> (pin_id, said): ReLU(Q h + q) of convolution `layer`, counted from 0."""
    with torch.inference_mode():
        said = network.convolutions[layer].projected(_matrix(latents, LATENT))
    return _table(latents, SAID, said)


def pool_messages(messages: pa.Table, network: PinSage) -> pa.Table:
    """(pin_id, weight, said) -> (pin_id, pooled), one row a pin.

    All messages of a pin must lie in one partition (group by pin_id). Mean and importance pooling are sums
    of weight * said (for the mean, edges carry weight 1 / degree); max pooling ignores the weights.
    """
    order = np.argsort(messages[PIN_ID].to_numpy(), kind="stable")
    pins, starts = np.unique(messages[PIN_ID].to_numpy()[order], return_index=True)
    said = _matrix(messages, SAID).numpy()[order]
    if len(pins) == 0:
        return pa.table({PIN_ID: pins, POOLED: pa.array([], VECTOR)})
    if network.config.pooling is Pooling.MAX:
        pooled = np.maximum.reduceat(said, starts, axis=0)
    else:
        weights = messages[WEIGHT].to_numpy().astype(np.float32)[order]
        pooled = np.add.reduceat(said * weights[:, None], starts, axis=0)
    return pa.table({PIN_ID: pins, POOLED: _lists(torch.from_numpy(pooled))})


def join_latents(joined: pa.Table, network: PinSage, layer: int) -> pa.Table:
    """(pin_id, latent, pooled) -> (pin_id, latent) after convolution `layer`; null `pooled` is no neighbour."""
    with torch.inference_mode():
        pooled = _matrix(joined, POOLED, width=network.config.hidden)
        out = network.convolutions[layer].join(_matrix(joined, LATENT), pooled)
    return _table(joined, LATENT, out)


def head_vectors(latents: pa.Table, network: PinSage) -> pa.Table:
    """(pin_id, latent) of the last convolution -> (pin_id, vector)."""
    with torch.inference_mode():
        return _table(latents, EMBEDDING, network.vectors(_matrix(latents, LATENT)))


def _matrix(table: pa.Table, column: str, width: int | None = None) -> Tensor:
    """A list<float32> column as (rows, width); nulls are zero rows. Raises ValueError on ragged lists."""
    lists = table[column].combine_chunks()
    if width is None:
        width = len(lists[0]) if len(lists) else 0
    out = np.zeros((len(lists), width), np.float32)
    valid = lists.is_valid().to_numpy(zero_copy_only=False)
    flat = lists.drop_null().flatten().to_numpy(zero_copy_only=False)
    if len(flat) != valid.sum() * width:
        raise ValueError(f"{column}: vectors of different widths in one partition, or other than {width}")
    out[valid] = flat.reshape(-1, width)
    return torch.from_numpy(out)


def _table(source: pa.Table, column: str, rows: Tensor) -> pa.Table:
    return pa.table({PIN_ID: source[PIN_ID], column: _lists(rows)})


def _lists(rows: Tensor) -> pa.ListArray:
    values: NDArray[np.float32] = rows.numpy().reshape(-1)
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)).cast(VECTOR)
