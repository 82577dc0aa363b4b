"""The multi-task ranker: the realtime sequence and every other feature through DCNv2, a head an action.

x_0 = [features, candidate, long-term user vector, sequence]      features standardised, the rest learned
x_L = cross layers over x_0,  h = relu layers,  logit_a = head_a(h) [+ w_a features]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.transact.config import TransActConfig
from training.models.transact.dcnv2 import CrossLayers
from training.models.transact.inputs import Rows
from training.models.transact.next_action import NextActionHead, next_action_loss
from training.models.transact.sequence import Encoded, SequenceEncoder
from training.models.weights import load_network, save_network

NAME = "transact"
"""Of the files a version is saved as."""

PIECED = 200_000
"""Training rows, evenly spread, that pieces of features are cut by."""

FARTHEST = 10.0
"""Standard deviations a feature counts for at most."""


class TransAct(nn.Module):
    """The ranker. `content_dim` is the width of pins' content vectors.

    Pins' vectors come projected to `pin_dim` by one matrix, in the sequence and for the candidate alike.
    """

    def __init__(self, config: TransActConfig, content_dim: int) -> None:
        super().__init__()
        self.config, self.content_dim = config, content_dim
        features, pin_dim = len(config.spec.names), config.sequence.pin_dim
        self.project = nn.Linear(content_dim, pin_dim, bias=False)
        self.sequence = SequenceEncoder(config.sequence)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        width = self.width
        self.cross = CrossLayers(width, config.cross_layers)
        deep: list[nn.Module] = []
        for wide in config.deep:
            deep += [nn.Linear(width, wide), nn.ReLU()]
            width = wide
        self.deep = nn.Sequential(*deep)
        self.heads = nn.ModuleList(_head(width, config.head_dim) for _ in config.heads)
        self.wide = None
        if config.wide:
            self.wide = nn.Linear(features * (1 + config.pieces), len(config.heads), bias=False)
        if config.pieces:
            self.register_buffer("begins", torch.zeros(features, config.pieces))
            self.register_buffer("slopes", torch.zeros(features, config.pieces))
        self.next_action = None
        if config.next_action is not None:
            self.next_action = NextActionHead(config.sequence.width, pin_dim)

    @property
    def width(self) -> int:
        """D: numbers of x_0."""
        config = self.config
        return len(config.spec.names) + config.sequence.pin_dim + config.user_dim + config.sequence.out

    def forward(self, rows: Rows, generator: torch.Generator | None = None) -> Tensor:
        """Logits, (B, H). `generator` draws what training hides of each example's sequence."""
        return self.answer(rows, generator)[0]

    def answer(self, rows: Rows, generator: torch.Generator | None = None) -> tuple[Tensor, Encoded, Tensor]:
        """Logits (B, H), what the sequence became, and the projected pins (n, pin_dim)."""
        pins = self.pins(rows.content)
        candidates = pins[rows.candidates]
        encoded = self.sequence(rows, pins, candidates, generator)
        return self.rank(self.features(rows.features), candidates, rows.users, encoded.flat), encoded, pins

    def pins(self, content: Tensor) -> Tensor:
        """(n, P) -> (n, pin_dim); content vectors are unit, and are scaled to unit variance a number."""
        return self.project(content.to(self.project.weight.dtype) * self.content_dim**0.5)

    def features(self, values: Tensor) -> Tensor:
        """Signed logs, standardised by the training rows, (B, F); what is not finite counts as 0 before.

        Raises ValueError for another number of features.
        """
        if values.shape[1] != len(self.mean):
            names = ", ".join(self.config.spec.names)
            raise ValueError(f"{values.shape[1]} features a row; this network reads {len(self.mean)}: {names}")
        values = torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        logs = torch.copysign(values.abs().log1p(), values)
        return ((logs - self.mean) / self.scale).clamp(-FARTHEST, FARTHEST)

    def rank(self, features: Tensor, candidates: Tensor, users: Tensor, sequence: Tensor) -> Tensor:
        """Logits (B, H) float32 from the four parts of x_0.

        Raises ValueError for user vectors of another width; a network without any ignores what it is given.
        """
        wide = self.config.user_dim
        if wide and users.shape[1] != wide:
            raise ValueError(f"user vectors are {users.shape[1]} wide; this network reads {wide}")
        users = users[:, :wide] * wide**0.5
        dtype = self.heads[0][-1].weight.dtype
        x0 = torch.cat([part.to(dtype) for part in (features, candidates, users, sequence)], dim=1)
        hidden = self.deep(self.cross(x0))
        logits = torch.cat([head(hidden) for head in self.heads], dim=1).float()
        return logits if self.wide is None else logits + self.wide(self.bent(features.float())).float()

    def bent(self, features: Tensor) -> Tensor:
        """(B, F) standardised -> (B, F (1 + pieces)): the features, then how far each is through its pieces,
        0 to 1."""
        if not self.config.pieces:
            return features
        through = (features[:, :, None] - self.begins).mul_(self.slopes).clamp_(0, 1)
        return torch.cat([features, through.flatten(1)], dim=1)

    def next_action_loss(self, rows: Rows, encoded: Encoded, pins: Tensor) -> Tensor:
        """The loss of V2 over this batch, a scalar, unweighted. Raises ValueError where there is none."""
        settings = self.config.next_action
        if self.next_action is None or settings is None or encoded.columns is None:
            raise ValueError("this network has no next-action loss; set next_action in its config")
        return next_action_loss(self.next_action, settings, rows, encoded, pins)

    def learn_scale(self, features: Tensor) -> None:
        """Take mean, spread and pieces of the features from training rows (n, F), and from nothing else."""
        values = torch.nan_to_num(features.double(), nan=0.0, posinf=0.0, neginf=0.0)
        logs = torch.copysign(values.abs().log1p(), values)
        spread = logs.std(dim=0, correction=0)
        self.mean.copy_(logs.mean(dim=0))
        self.scale.copy_(torch.where(spread > 1e-6, spread, 1.0))
        if self.config.pieces and len(features):
            some = features[:: max(1, len(features) // PIECED)]
            shares = np.linspace(0, 1, self.config.pieces + 1)
            edges = np.quantile(self.features(some).numpy(), shares, axis=0).T
            begins, wide = torch.from_numpy(edges[:, :-1]), torch.from_numpy(np.diff(edges))
            self.begins.copy_(begins)
            self.slopes.copy_(torch.where(wide > 1e-3, 1 / wide, 0.0))  # one value, many rows: nothing to bend

    def learn_linear(self, weights: Tensor, bias: Tensor) -> None:
        """Begin as a linear model of the features: weights (H, F) and bias (H,) of standardised ones.

        What else the network knows comes on top, from nothing. Raises ValueError without `wide`.
        """
        if self.wide is None:
            raise ValueError("a network begins as a linear model through its wide part; set wide in its config")
        with torch.no_grad():
            self.wide.weight.zero_()
            self.wide.weight[:, : weights.shape[1]] = weights
            for head, constant in zip(self.heads, bias, strict=True):
                head[-1].weight.zero_()
                head[-1].bias.fill_(constant)

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and settings (JSON) into `folder`."""
        settings = {"network": self.config.model_dump(mode="json"), "content_dim": self.content_dim}
        save_network(self, folder, NAME, settings)

    @classmethod
    def load(cls, folder: Path) -> TransAct:
        """The network saved in `folder`, in evaluation mode. Raises FileNotFoundError where there is none."""

        def build(settings: dict[str, Any]) -> TransAct:
            return cls(TransActConfig.model_validate(settings["network"]), settings["content_dim"])

        return load_network(folder, NAME, build)


def seeded(config: TransActConfig, content_dim: int, seed: int) -> TransAct:
    """A network with weights drawn from `seed`, torch's global generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TransAct(config, content_dim)


def probabilities(logits: Tensor) -> Tensor:
    """(B, H) in [0, 1], as the weighted loss sees them: calibrate before reading them as chances."""
    return F.sigmoid(logits)


def _head(width: int, hidden: int) -> nn.Sequential:
    if hidden == 0:
        return nn.Sequential(nn.Linear(width, 1))
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))
