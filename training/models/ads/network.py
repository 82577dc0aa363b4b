"""The four layers of the AutoML ads model, and its towers (Pinterest Engineering, August 2020).

    representation   every feature by its kind                                   representation.py
    summarisation    s_g = relu(W_g [features of group g]), all of one width
    latent cross     [s_g, s_g * s_k for g < k]: what groups say together, by products
    fully connected  h = relu(W [...]), the shared bottom
    towers           logits_t = V_t relu(U_t h): one a source, one shared

The published text names the layers and not their sizes; the forms here are the plainest that fit it. A source's
rows train its tower and the bottom. The shared tower learns from all rows and leaves the bottom as it is, but
for rows of sources without a tower, whose own it is.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.ads.config import AdsModelConfig
from training.models.ads.representation import Batch, Representation, Seen
from training.models.weights import load_network, save_network

NAME = "ads"


class AdsNetwork(nn.Module):
    """Logits of every head by every tower. Towers are `config.sources` in order, and the shared one last."""

    def __init__(self, config: AdsModelConfig, seen: Seen, name: str = "") -> None:
        """`name` is the version it becomes, `ads_multi_tower@4`: it is saved with the weights."""
        super().__init__()
        self.config, self.seen, self.name = config, seen, name
        self.representation = Representation(config, seen)
        widths = self.representation.widths
        self.summaries = nn.ModuleDict({g: nn.Linear(w, config.width) for g, w in widths.items()})
        pairs = len(widths) * (len(widths) - 1) // 2 if config.cross else 0
        self.bottom = nn.Linear((len(widths) + pairs) * config.width, config.bottom)
        self.dropout = nn.Dropout(config.dropout)
        towers = len(config.sources) + 1
        self.inner = nn.ModuleList(nn.Linear(config.bottom, config.tower) for _ in range(towers))
        self.outer = nn.ModuleList(nn.Linear(config.tower, len(config.heads)) for _ in range(towers))

    @property
    def shared(self) -> int:
        """The place of the shared tower."""
        return len(self.config.sources)

    def hidden(self, batch: Batch) -> Tensor:
        """The shared bottom, (B, bottom)."""
        groups = self.representation(batch)
        summed = [F.relu(self.summaries[group](x)) for group, x in groups.items()]
        if self.config.cross:
            summed += [a * b for a, b in combinations(summed, 2)]
        return self.dropout(F.relu(self.bottom(self.dropout(torch.cat(summed, 1)))))

    def tower(self, place: int, hidden: Tensor) -> Tensor:
        """Logits (B, H) of one tower."""
        return self.outer[place](F.relu(self.inner[place](hidden)))

    def forward(self, batch: Batch, towers: Tensor) -> Tensor:
        """Logits (B, H): each row by the tower that `towers` (B,) int64 names."""
        hidden = self.hidden(batch)
        out = hidden.new_empty(len(hidden), len(self.config.heads))
        for place in towers.unique().tolist():
            rows = towers == place
            out[rows] = self.tower(place, hidden[rows])
        return out

    def loss(self, batch: Batch, towers: Tensor, labels: Tensor) -> Tensor:
        """Mean over rows of the summed log losses of the heads; labels (B, H) float32.

        The shared tower's own loss on rows of other towers is added, its gradient held back from the bottom.
        """
        hidden = self.hidden(batch)
        total = hidden.new_zeros(())
        for place in towers.unique().tolist():
            rows = towers == place
            total = total + _summed(self.tower(place, hidden[rows]), labels[rows])
        others = towers != self.shared
        if others.any():
            total = total + _summed(self.tower(self.shared, hidden[others].detach()), labels[others])
        return total / len(labels)

    def save(self, folder: Path) -> None:
        """Write `ads.safetensors` and `ads.json`."""
        parts = {"config": self.config.model_dump(mode="json"), "seen": self.seen.model_dump(mode="json")}
        save_network(self, folder, NAME, {"name": self.name, **parts})

    @classmethod
    def load(cls, folder: Path) -> AdsNetwork:
        """Raises FileNotFoundError where there is none, RuntimeError for weights of another shape."""

        def build(settings: dict[str, Any]) -> AdsNetwork:
            config = AdsModelConfig.model_validate(settings["config"])
            return cls(config, Seen.model_validate(settings["seen"]), settings.get("name", ""))

        return load_network(folder, NAME, build)


def _summed(logits: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
