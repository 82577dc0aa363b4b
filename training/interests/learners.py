"""One step's loss of each kind of model: implicit interests, topic conditions, two towers."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training.interests.batches import Batch
from training.interests.engagements import Engagements
from training.models.interests.features import Histories, PinFeatures
from training.models.interests.loss import associated, sampled_softmax
from training.models.interests.network import InterestNetwork
from training.models.two_tower import TwoTower

Ints = NDArray[np.int64]


class Learner(Protocol):
    """A network with its data; the trainer knows nothing else."""

    network: nn.Module
    by_day: bool

    def loss(self, batch: Batch, log_q: Tensor, generator: torch.Generator) -> Tensor:
        """Mean loss of the batch's engagements; `log_q` (u,) of its pool."""
        ...


class TopicAssociation(StrEnum):
    """Which topic an engagement trains as its condition (conditional retrieval)."""

    SOURCE = "source"
    """The topic by which the pin had been retrieved, as the impression log says."""
    ITEM = "item"
    """One of the pin's own topics, drawn anew each time (Conditional Retrieval, RecSys 2024)."""


class _OnCatalogue:
    """What all learners share: the catalogue's tensors, and how every pin performed until each midnight."""

    data: Engagements

    @cached_property
    def _features(self) -> tuple[Tensor, Tensor]:
        return self.data.catalogue.features.tensors()

    @cached_property
    def _performance(self) -> tuple[Ints, Tensor]:
        """Midnights (m,), ascending, and (m, p, PERFORMANCE)."""
        known = self.data.performance(self.data.days.times_ms)
        return np.array(sorted(known), np.int64), torch.from_numpy(np.stack([known[t] for t in sorted(known)]))

    def _blocked(self, batch: Batch) -> Tensor:
        """(n, u) pins that are no negatives: those the engagement's user took, and uniform ones that were not
        made yet as of the midnight they are seen at."""
        unborn = self.data.catalogue.created_at_ms[batch.pool] >= batch.pool_ms
        unborn[: batch.own] = False
        return torch.from_numpy(batch.blocked | unborn)


class _OnInterestNetwork(_OnCatalogue):
    """What both learners of `InterestNetwork` share: a batch's item vectors."""

    def __init__(self, network: InterestNetwork, data: Engagements) -> None:
        self.network = network
        self.data = data

    @property
    def by_day(self) -> bool:
        return self.network.config.by_day

    @cached_property
    def _clusters(self) -> Ints | None:
        return self.network.clusters(self.data.catalogue.features)

    def _seen(self, batch: Batch) -> tuple[Histories, Tensor]:
        """The batch's histories and its pool's vectors (u, d), each pin (of each midnight, where the network
        knows how it performed) through the tower once."""
        days, actions = batch.days, self.data.actions
        rows, signs, hours = actions.padded(days.users, days.times_ms, self.network.config.length)
        pins = np.concatenate([rows.ravel(), batch.pool])
        when = np.concatenate([np.repeat(days.times_ms, rows.shape[1]), batch.pool_ms])
        vectors, at = self._vectors(pins, when)
        place = torch.from_numpy(at)
        items = F.embedding(place[: rows.size].view(rows.shape), vectors)
        pool = F.embedding(place[rows.size :], vectors)
        return actions.tensors(days.users, rows, signs, hours, items, self._clusters), pool

    def _vectors(self, pins: Ints, when: Ints) -> tuple[Tensor, Ints]:
        """Vectors of the distinct pins (rows, -1 for none) as of their midnights, and each one's place among
        them, (n,)."""
        midnights, performance = self._performance if self.by_day else (np.zeros(1, np.int64), None)
        day = np.searchsorted(midnights, when) if self.by_day else 0
        keys, at = np.unique((pins + 1) * len(midnights) + day, return_inverse=True)
        row, day = keys // len(midnights) - 1, keys % len(midnights)
        content, topics = self._features
        chosen = torch.from_numpy(np.maximum(row, 0))
        seen = None if performance is None else performance[torch.from_numpy(day), chosen]
        vectors = self.network.pins(content[chosen], topics[chosen], seen)
        return vectors * torch.from_numpy(row >= 0)[:, None], at.reshape(-1)


class ImplicitLearner(_OnInterestNetwork):
    """Interests found in the history; each engagement trains the one it is associated with."""

    def loss(self, batch: Batch, log_q: Tensor, generator: torch.Generator) -> Tensor:
        histories, pool = self._seen(batch)
        found = self.network.users(histories, generator)
        owner, positives = torch.from_numpy(batch.owner), torch.from_numpy(batch.positives)
        config = self.network.config
        queries = associated(found.vectors[owner], found.mask[owner], pool[positives], config, generator)
        return sampled_softmax(queries / config.temperature, pool, positives, log_q, self._blocked(batch))


class ConditionalLearner(_OnInterestNetwork):
    """Topics as conditions; an engagement trains its user under one topic."""

    def __init__(self, network: InterestNetwork, data: Engagements, association: TopicAssociation) -> None:
        super().__init__(network, data)
        self.association = association

    def loss(self, batch: Batch, log_q: Tensor, generator: torch.Generator) -> Tensor:
        histories, pool = self._seen(batch)
        places = self._conditions(batch, generator)
        fields = self.network.user.fields(histories)[torch.from_numpy(batch.owner)]
        queries = self.network.users_given_topics(fields, places[:, None]).vectors[:, 0]
        positives, blocked = torch.from_numpy(batch.positives), self._blocked(batch)
        return sampled_softmax(queries / self.network.config.temperature, pool, positives, log_q, blocked)

    def _conditions(self, batch: Batch, generator: torch.Generator) -> Tensor:
        if self.association is TopicAssociation.SOURCE:
            return torch.from_numpy(batch.days.sources)
        topics = self._features[1][torch.from_numpy(batch.days.pins)]  # (n, t)
        drawn = torch.rand(topics.shape, generator=generator).masked_fill(topics == 0, -1)
        return topics.gather(1, drawn.argmax(dim=1, keepdim=True))[:, 0]


class TwoTowerLearner(_OnCatalogue):
    """One vector a user; pins as of the day they were engaged with."""

    by_day = True

    def __init__(self, network: TwoTower, data: Engagements) -> None:
        self.network = network
        self.data = data

    def loss(self, batch: Batch, log_q: Tensor, generator: torch.Generator) -> Tensor:
        days = batch.days
        content, topics = self._features
        length = self.network.config.length
        histories = self.data.actions.histories(days.users, days.times_ms, content.numpy(), length)
        midnights, performance = self._performance
        pool = torch.from_numpy(batch.pool)
        seen = performance[torch.from_numpy(np.searchsorted(midnights, batch.pool_ms)), pool]
        items = self.network.pins(content[pool], topics[pool], seen)
        queries = self.network.users(histories)[torch.from_numpy(batch.owner)] / self.network.config.temperature
        positives, blocked = torch.from_numpy(batch.positives), self._blocked(batch)
        return sampled_softmax(queries, items, positives, log_q, blocked)


def fit_clusters(network: InterestNetwork, features: PinFeatures, seed: int) -> None:
    """K-means centres of the catalogue's content, kept in the network (PFS). Fewer pins give fewer clusters."""
    from sklearn.cluster import KMeans

    content = features.tensors()[0].numpy()
    content = content[content.any(axis=1)]
    clusters = min(network.config.clusters, len(np.unique(content, axis=0)))
    if clusters:
        fitted = KMeans(clusters, n_init=1, random_state=seed).fit(content)
        centres = torch.full_like(network.centres, 1e6)  # where there are too few pins: nearer to none
        centres[:clusters] = torch.from_numpy(fitted.cluster_centers_.astype(np.float32))
        network.centres.copy_(centres)
