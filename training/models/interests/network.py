"""A multi-interest user model: an item tower, conditions of a user, their crossing (arXiv 2506.23060).

    f(i | u, c) proportional to exp(phi(u, c) . psi(i) / temperature);   score(u, i) = max over conditions c

One class serves the implicit models (conditions built from the history) and conditional retrieval (topics).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.models.interests.conditions import Conditions, conditions_of, constructor
from training.models.interests.config import Construction, InterestsConfig
from training.models.interests.features import Histories, PinFeatures
from training.models.interests.one_user import ServedUser
from training.models.interests.towers import ItemTower, UserTower
from training.models.weights import load_network, save_network

FILES = "interests"
"""Name of the two files of a saved network."""
PIN_ROWS = 16_384


class Interests(NamedTuple):
    """b users in the space: K embeddings each."""

    vectors: Tensor  # (b, K, d) unit rows, zero in dead slots
    mask: Tensor  # (b, K) bool, at least one a user
    weights: Tensor  # (b, K) shares of the budget, rows sum to 1


class InterestNetwork(nn.Module):
    """The network. Every vector it makes has length one, so the space is searched by inner product."""

    def __init__(self, config: InterestsConfig, content_dim: int, topics: Sequence[int] = ()) -> None:
        """`topics` are the ascending topic ids known to the model."""
        super().__init__()
        if config.construction is Construction.TOPICS and not topics:
            raise ValueError("conditional retrieval needs topics; this data set has none")
        self.config = config
        self.content_dim = content_dim
        self.topics = tuple(int(t) for t in topics)
        self.items = ItemTower(config.item_tower, content_dim, len(self.topics), config.dim)
        self.user = UserTower(config.user_tower, config.dim)
        self.served: ServedUser | None = None
        self.construct = constructor(config)
        self.topic_condition = (
            nn.Embedding(len(self.topics) + 1, config.dim, padding_idx=0)
            if config.construction is Construction.TOPICS
            else None
        )
        if config.construction is Construction.PFS:
            self.register_buffer("centres", torch.zeros(config.clusters, content_dim))

    def pins(self, content: Tensor, topics: Tensor, performance: Tensor | None = None) -> Tensor:
        """(n, content_dim), (n, t) topic places and, by day, (n, PERFORMANCE) -> (n, dim) unit rows; zero for a
        pin of neither content nor topics. Raises ValueError where performance is read and not given."""
        return self.items(content, topics, performance)

    def users(self, histories: Histories, generator: torch.Generator | None = None) -> Interests:
        """Implicit interests; `histories.items` are vectors of this space. With a generator: training."""
        if self.construct is None:
            raise ValueError("this model is conditioned on topics; call users_given_topics")
        return self._crossed(self.construct(histories, generator), self.user.fields(histories))

    def users_given_topics(self, fields: Tensor, places: Tensor) -> Interests:
        """One embedding a (user, topic): `fields` (b, ...) of `user.fields`, `places` (b, K), 0 for none."""
        if self.topic_condition is None:
            raise ValueError("this model finds its interests itself; call users")
        mask = places > 0
        return self._crossed(conditions_of(self.topic_condition(places), mask, mask.float()), fields)

    def _crossed(self, conditions: Conditions, fields: Tensor) -> Interests:
        vectors = self.user(conditions.vectors, fields)
        return Interests(vectors * conditions.mask[:, :, None], conditions.mask, conditions.weights)

    def serving(self) -> InterestNetwork:
        """Itself, one user at a time embedded by NumPy from now on; not to be trained any more."""
        self.served = ServedUser.of(self.user, self.construct, self.topic_condition)
        return self

    def clusters(self, features: PinFeatures) -> NDArray[np.int64] | None:
        """(n,) catalogue cluster of each pin, where the model splits histories by them."""
        if self.config.construction is not Construction.PFS:
            return None
        content = features.tensors()[0]
        return torch.cdist(content, self.centres).argmin(dim=1).numpy()

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and settings (JSON) into `folder`."""
        settings = {
            "network": self.config.model_dump(mode="json"),
            "content_dim": self.content_dim,
            "topics": self.topics,
        }
        save_network(self, folder, FILES, settings)

    @classmethod
    def load(cls, folder: Path) -> InterestNetwork:
        """The network saved in `folder`, in evaluation mode. Raises FileNotFoundError where there is none."""
        return load_network(
            folder,
            FILES,
            lambda s: cls(InterestsConfig.model_validate(s["network"]), s["content_dim"], s["topics"]),
        )


def seeded(config: InterestsConfig, content_dim: int, topics: Sequence[int], seed: int) -> InterestNetwork:
    """A network with weights drawn from `seed`, torch's global generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return InterestNetwork(config, content_dim, topics)
