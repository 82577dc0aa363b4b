"""The first of the four layers: every declared feature becomes numbers a network can read, by its kind."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from training.models.ads.config import (
    DENSE,
    IDS,
    VECTORS,
    AdsModelConfig,
    Kind,
    buckets,
    embedding_dim,
)
from training.models.ads.rows import AdRows

_FAR = 8.0
"""Standardised values are held within so many deviations."""

_MIXERS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)


class Seen(BaseModel):
    """What the training rows decided of a network's shape."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    distinct: dict[str, int]
    """Ids met, by feature; buckets follow."""
    vector_dim: int

    @classmethod
    def of(cls, rows: AdRows) -> Seen:
        """Raises ValueError for no rows."""
        if len(rows) == 0:
            raise ValueError("an ads model needs rows to be built for")
        columns = {name: rows.ids[:, i] for i, name in enumerate(IDS)}
        distinct = {name: len(np.unique(ids[ids != 0])) or 1 for name, ids in columns.items()}
        return cls(distinct=distinct, vector_dim=rows.vectors.shape[2])


class Batch(NamedTuple):
    """`AdRows` as tensors."""

    dense: Tensor  # (B, F) float32
    ids: Tensor  # (B, C) int64
    vectors: Tensor  # (B, V, d) float32

    @classmethod
    def of(cls, rows: AdRows) -> Batch:
        return cls(torch.from_numpy(rows.dense), torch.from_numpy(rows.ids), torch.from_numpy(rows.vectors))


class HashEmbedding(nn.Module):
    """Ids of any size in a fixed number of buckets. Id 0, and an id whose bucket nothing trained, are zeros."""

    def __init__(self, distinct: int, config: AdsModelConfig) -> None:
        super().__init__()
        self.buckets, self.hashes = buckets(distinct, config)
        self.dim = embedding_dim(distinct, config)
        self.table = nn.Embedding(self.hashes * self.buckets, self.dim)
        nn.init.normal_(self.table.weight, std=0.05)
        self.register_buffer("trained", torch.zeros(self.hashes * self.buckets, dtype=torch.bool))

    def forward(self, ids: Tensor) -> Tensor:
        """(B,) int64 -> (B, dim)."""
        out = ids.new_zeros((), dtype=torch.float32)
        for place in self.places(ids):
            out = out + self.table(place) * self.trained[place, None]
        return out * (ids != 0)[:, None]

    def places(self, ids: Tensor) -> list[Tensor]:
        """The bucket (B,) of each hash."""
        return [_mixed(ids, mixer) % self.buckets + i * self.buckets for i, mixer in enumerate(self._mixers)]

    def meet(self, ids: Tensor) -> None:
        """Open the buckets of the ids that will be trained."""
        for place in self.places(ids[ids != 0]):
            self.trained[place] = True

    @property
    def _mixers(self) -> tuple[int, ...]:
        return _MIXERS[: self.hashes]


def _mixed(ids: Tensor, mixer: int) -> Tensor:
    """A well spread number of 31 bits for each id: a multiplicative hash, twice, on what int64 wraps to."""
    signed = mixer - 2**64 if mixer >= 2**63 else mixer
    x = ids * signed
    x = (x ^ (x >> 32)) * signed
    return (x >> 33) & 0x7FFFFFFF


class Representation(nn.Module):
    """Rows -> one tensor (B, width) for each group of features."""

    def __init__(self, config: AdsModelConfig, seen: Seen) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(len(DENSE)))
        self.register_buffer("scale", torch.ones(len(DENSE)))
        counts = torch.tensor([f.kind is Kind.COUNT for f in DENSE])
        self.register_buffer("counts", counts, persistent=False)
        squashed = torch.where(counts, config.count == "squash", config.numeric == "squash")
        self.register_buffer("squashed", squashed, persistent=False)
        names = IDS if config.id_dim else ()
        self.embeddings = nn.ModuleDict({name: HashEmbedding(seen.distinct[name], config) for name in names})
        groups = dict.fromkeys(f.group for f in DENSE)
        self.columns = {g: [i for i, f in enumerate(DENSE) if f.group == g] for g in groups}
        self.widths = {group: len(columns) for group, columns in self.columns.items()}
        for group, width in (
            ("ids", sum(e.dim for e in self.embeddings.values())),
            ("content", len(VECTORS) * seen.vector_dim),
        ):
            if width:
                self.widths[group] = width

    def learn(self, rows: AdRows) -> None:
        """Take mean and deviation of the dense features, and the ids to be trained, from training rows."""
        x = self._logged(torch.from_numpy(rows.dense)).double()
        known = torch.isfinite(x)
        count = known.sum(0).clamp(min=1)
        mean = torch.where(known, x, 0.0).sum(0) / count
        spread = (torch.where(known, (x - mean) ** 2, 0.0).sum(0) / count).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(spread > 1e-6, spread, 1.0))
        for column, name in enumerate(IDS):
            if name in self.embeddings:
                self.embeddings[name].meet(torch.from_numpy(rows.ids[:, column]))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Groups in the order of `widths`."""
        z = ((self._logged(batch.dense) - self.mean) / self.scale).nan_to_num(0.0, 0.0, 0.0)
        z = torch.where(self.squashed, z / (1 + z.abs()), z.clamp(-_FAR, _FAR))
        out = {group: z[:, columns] for group, columns in self.columns.items()}
        if self.embeddings:
            out["ids"] = torch.cat([self.embeddings[n](batch.ids[:, IDS.index(n)]) for n in self.embeddings], 1)
        if "content" in self.widths:
            out["content"] = batch.vectors.flatten(1)
        return {group: out[group] for group in self.widths}

    def _logged(self, dense: Tensor) -> Tensor:
        """Counts as sign(x) log(1 + |x|), unless they are squashed; everything else as it is."""
        if self.config.count == "squash":
            return dense
        return torch.where(self.counts, dense.sign() * dense.abs().log1p(), dense)
