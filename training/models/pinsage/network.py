"""PinSage (KDD 2018, arXiv 1806.01973): a pin's vector from its content and its neighbourhood's.

    n_u = pool(ReLU(Q h_v + q) for v in N(u), alpha)          one convolution, algorithm 1
    h_u = normalise(ReLU(W [h_u, n_u] + w))
    z_u = G2 ReLU(G1 h_u + g)                                 the shared head, after K of them
    v_u = z_u * |z_u| ** (length_power - 1) / scale           what is served; the loss compares z

No pin has a parameter of its own, so a pin never seen in training gets its vector from the same weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training.models.pinsage.blocks import Adjacency, Block
from training.models.pinsage.config import PinSageConfig
from training.models.pinsage.inputs import input_width
from training.models.pinsage.pooling import pool
from training.models.weights import load_network, save_network

Floats = NDArray[np.float32]

FILES = "pinsage"
"""Name of the two files of a saved network."""


class Convolution(nn.Module):
    """One layer: project neighbours, pool them, join with the pin itself. Parameters are shared by all pins."""

    def __init__(self, width: int, config: PinSageConfig) -> None:
        super().__init__()
        self.pooling = config.pooling
        self.project = nn.Linear(width, config.hidden)  # Q, q
        self.own = nn.Linear(width, config.hidden)  # the columns of W that meet h_u, and w
        self.neighbours = nn.Linear(config.hidden, config.hidden, bias=False)  # the columns that meet n_u

    def forward(self, latents: Tensor, adjacency: Adjacency) -> Tensor:
        """(sources, width) -> (rows, hidden); the rows are the first of the sources."""
        pooled = pool(self.projected(latents), adjacency, self.pooling)
        return self.join(latents[: adjacency.rows], pooled)

    def projected(self, latents: Tensor) -> Tensor:
        """ReLU(Q h + q), (n, hidden): what a pin says to its neighbours."""
        return F.relu_(self.project(latents))

    def join(self, own: Tensor, pooled: Tensor) -> Tensor:
        """normalise(ReLU(W [h, n] + w)), (n, hidden); W is kept in two parts, so nothing is concatenated."""
        joined = torch.addmm(self.own(own), pooled, self.neighbours.weight.t())
        return F.normalize(F.relu_(joined), dim=1)


class PinSage(nn.Module):
    """The network. `forward` answers a block's seeds; `inference.py` answers the whole catalogue."""

    def __init__(self, config: PinSageConfig, content_dim: int) -> None:
        super().__init__()
        self.config = config
        self.content_dim = content_dim
        width = input_width(config, content_dim)
        self.convolutions = nn.ModuleList()
        for _ in range(config.layers):
            self.convolutions.append(Convolution(width, config))
            width = config.hidden
        self.lift = nn.Linear(width, config.hidden)  # G1, g
        self.head = nn.Linear(config.hidden, config.dim, bias=False)  # G2
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))  # set once trained: served rows have mean length one

    def forward(self, inputs: Tensor, block: Block) -> Tensor:
        """z of the block's seeds, (seeds, dim). `inputs` are the rows of `block.nodes`, in that order."""
        latents = inputs  # (sizes[0], width)
        for convolution, adjacency in zip(self.convolutions, block.layers, strict=True):
            latents = convolution(latents, adjacency)  # (rows of the layer, hidden)
        return self.answers(latents)

    def answers(self, latents: Tensor) -> Tensor:
        """The head: z of (n, hidden) latents, (n, dim)."""
        return self.head(F.relu_(self.lift(latents)))

    def served(self, answers: Tensor) -> Tensor:
        """z -> v, (n, dim): lengths raised to `length_power`, over `scale`; a z of zeros stays one."""
        lengths = answers.norm(dim=1, keepdim=True) ** self.config.length_power
        return F.normalize(answers, dim=1) * (lengths / self.scale)

    def vectors(self, latents: Tensor) -> Tensor:
        """v of (n, hidden) latents, (n, dim)."""
        return self.served(self.answers(latents))

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and settings (JSON) into `folder`."""
        settings = {"network": self.config.model_dump(mode="json"), "content_dim": self.content_dim}
        save_network(self, folder, FILES, settings)

    @classmethod
    def load(cls, folder: Path) -> PinSage:
        """The network saved in `folder`, in evaluation mode. Raises FileNotFoundError where there is none."""
        return load_network(
            folder, FILES, lambda s: cls(PinSageConfig.model_validate(s["network"]), s["content_dim"])
        )


def seeded(config: PinSageConfig, content_dim: int, seed: int) -> PinSage:
    """A network with weights drawn from `seed`, torch's global generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PinSage(config, content_dim)
