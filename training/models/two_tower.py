"""Unified lightweight scoring (Pinterest Engineering, Sep 2021): two towers that meet in one dot product.

    score(user, pin) = MLP(pooled history, profile) . MLP(content, topics, recent performance)       64-d

A retrieval source (both sides are unit vectors of one space) and a light scorer (the same product over given
candidates). Pins are embedded offline, fresh ones when they come; a user once a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from training.models.interests.features import (
    DENSE,
    POOLED,
    PROFILE,
    PROFILE_CODES,
    Histories,
    PinFeatures,
    pooled,
)
from training.models.interests.one_user import pooled_one
from training.models.interests.serving import Affine, array_of, unit
from training.models.pin_performance import PERFORMANCE
from training.models.weights import load_network, save_network

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

FILES = "two_tower"
"""Name of the two files of a saved network."""


class TwoTowerConfig(BaseModel):
    """Shape of both towers. The post gives 64 dimensions and no widths."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(64, ge=2)
    hidden: int = Field(128, ge=1)
    topic_dim: int = Field(16, ge=0)
    profile_dim: int = Field(8, ge=1)
    length: int = Field(100, ge=1)
    """Newest actions of a history that are looked at."""
    temperature: float = Field(0.07, gt=0)
    """Divides cosines in the loss."""


class TwoTower(nn.Module):
    """Both towers. `Histories.items` are vectors of the content space."""

    def __init__(self, config: TwoTowerConfig, content_dim: int, topics: Sequence[int] = ()) -> None:
        super().__init__()
        self.config = config
        self.content_dim = content_dim
        self.topics = tuple(int(t) for t in topics)
        width = content_dim + config.topic_dim + PERFORMANCE
        self.topic = nn.EmbeddingBag(len(self.topics) + 1, config.topic_dim, mode="mean", padding_idx=0)
        self.pin = _mlp(width, config.hidden, config.dim)
        self.profile = nn.ModuleList(nn.Embedding(PROFILE_CODES, config.profile_dim) for _ in PROFILE)
        width = POOLED * content_dim + DENSE + len(PROFILE) * config.profile_dim
        self.user = _mlp(width, config.hidden, config.dim)
        self.served: ServedTower | None = None

    def pins(self, content: Tensor, topics: Tensor, performance: Tensor) -> Tensor:
        """(n, c), (n, t) topic places, (n, PERFORMANCE) -> (n, dim) unit rows."""
        return F.normalize(self.pin(torch.cat([content, self.topic(topics), performance], dim=1)), dim=1)

    def users(self, histories: Histories) -> Tensor:
        """(b, dim) unit rows."""
        means, dense = pooled(histories)
        profile = [embed(histories.profile[:, i]) for i, embed in enumerate(self.profile)]
        return F.normalize(self.user(torch.cat([means.flatten(1), dense, *profile], dim=1)), dim=1)

    def serving(self) -> TwoTower:
        """Itself, one user at a time embedded by NumPy from now on; not to be trained any more."""
        self.served = ServedTower.of(self)
        return self

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and settings (JSON) into `folder`."""
        settings = {
            "network": self.config.model_dump(mode="json"),
            "content_dim": self.content_dim,
            "topics": self.topics,
        }
        save_network(self, folder, FILES, settings)

    @classmethod
    def load(cls, folder: Path) -> TwoTower:
        """The network saved in `folder`, in evaluation mode. Raises FileNotFoundError where there is none."""
        return load_network(
            folder,
            FILES,
            lambda s: cls(TwoTowerConfig.model_validate(s["network"]), s["content_dim"], s["topics"]),
        )


@dataclass(frozen=True)
class ServedTower:
    """The user's tower on NumPy arrays, as of when it was made: torch's calls would be most of its time."""

    profile: Sequence[Floats]  # (PROFILE_CODES, profile_dim) each
    layers: Sequence[Affine]

    @classmethod
    def of(cls, network: TwoTower) -> ServedTower:
        return cls(
            tuple(array_of(table.weight) for table in network.profile),
            tuple(
                Affine.of(layer.weight, layer.bias) for layer in network.user if isinstance(layer, nn.Linear)
            ),
        )

    def __call__(self, histories: Histories) -> Floats:
        """(dim,) of one user, unit."""
        means, dense = pooled_one(histories)
        codes = histories.profile.tolist()[0]
        profile = [table[code] for table, code in zip(self.profile, codes, strict=True)]
        x = self.layers[0](np.concatenate([means.ravel(), dense, *profile]))
        for layer in self.layers[1:]:
            x = layer(_gelu(x))
        return unit(x)


def _gelu(x: Floats) -> Floats:
    from scipy.special import erf

    return np.float32(0.5) * x * (1 + erf(x * np.float32(0.5**0.5)))


def seeded(config: TwoTowerConfig, content_dim: int, topics: Sequence[int], seed: int) -> TwoTower:
    """A network with weights drawn from `seed`, torch's global generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TwoTower(config, content_dim, topics)


def pin_vectors(network: TwoTower, pins: PinFeatures, performance: Floats, *, rows: int = 16_384) -> Floats:
    """(n, dim) float32 unit rows, `rows` pins at a time; a new pin's are made the same way when it comes."""
    out = np.empty((len(pins), network.config.dim), np.float32)
    with torch.inference_mode():
        for start in range(0, len(pins), rows):
            at = np.arange(start, min(start + rows, len(pins)))
            content, topics = pins.take(at).tensors()
            out[at] = network.pins(content, topics, torch.from_numpy(performance[at])).numpy()
    return out


def user_vectors(network: TwoTower, histories: Histories) -> Floats:
    """(b, dim) float32 unit rows."""
    if network.served is not None and len(histories.items) == 1:
        return network.served(histories)[None]
    with torch.inference_mode():
        return network.users(histories).numpy()


def score(user: Floats, candidates: Floats) -> Floats:
    """Light scores of n candidates (n, dim) for one user (dim,): the dot products, (n,) float32."""
    return candidates @ user


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, out)
    )
