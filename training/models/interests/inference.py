"""Vectors of all pins, and one user's embeddings as of a time: pure functions, the same offline and online."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.models.interests.features import Histories, PinFeatures, topic_places
from training.models.interests.network import PIN_ROWS, InterestNetwork, Interests

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class UserEmbeddings:
    """One user's embeddings, most important first."""

    vectors: Floats  # (K, d) unit rows
    weights: Floats  # (K,) shares that sum to 1
    topics: Ints  # (K,) topic id each is conditioned on, 0 for an implicit interest

    def __len__(self) -> int:
        return len(self.vectors)


def pin_vectors(network: InterestNetwork, pins: PinFeatures, *, rows: int = PIN_ROWS) -> Floats:
    """(n, dim) float32 unit rows, zero for a pin without features; `rows` pins at a time.

    Raises ValueError where the network reads `pins.performance` and there is none.
    """
    out = np.empty((len(pins), network.config.dim), np.float32)
    with torch.inference_mode():
        for start in range(0, len(pins), rows):
            part = pins.take(np.arange(start, min(start + rows, len(pins))))
            seen = None if part.performance is None else torch.from_numpy(part.performance)
            out[start : start + rows] = network.pins(*part.tensors(), seen).numpy()
    return out


def embed_users(network: InterestNetwork, histories: Histories) -> Interests:
    """Implicit interests of b users; starts of the routing are fixed, so equal input gives equal output."""
    with torch.inference_mode():
        return network.users(histories)


def user_embeddings(network: InterestNetwork, histories: Histories) -> UserEmbeddings:
    """Implicit interests of one user (`features.history`), live ones only.

    A user without positive actions has one, of the profile alone. Microseconds of routing and one small
    forward pass: fast enough for a request.
    """
    if network.served is not None and network.served.routes:
        vectors, weights = network.served.interests(histories)
    else:
        found = embed_users(network, histories)
        alive = found.mask[0]
        vectors, weights = found.vectors[0, alive].numpy(), found.weights[0, alive].numpy()
    order = np.argsort(-weights, kind="stable")
    return UserEmbeddings(vectors[order], weights[order], np.zeros(len(order), np.int64))


def topic_embeddings(network: InterestNetwork, histories: Histories, topics: Ints) -> UserEmbeddings:
    """One user's embedding for each of `topics` (ids), equal weights; topics unknown to the model are left out.

    No known topic at all gives no embedding.
    """
    topics = np.asarray(topics, np.int64)
    places = topic_places(topics, network.topics)
    kept = topics[places > 0]
    if not len(kept):
        return UserEmbeddings(
            np.empty((0, network.config.dim), np.float32), np.empty(0, np.float32), np.empty(0, np.int64)
        )
    known = places[places > 0]
    if network.served is not None:
        shares = np.full(len(kept), 1 / len(kept), np.float32)
        return UserEmbeddings(network.served.under(histories, known), shares, kept)
    with torch.inference_mode():
        fields = network.user.fields(histories)
        found = network.users_given_topics(fields, torch.from_numpy(known)[None])
    return UserEmbeddings(found.vectors[0].numpy(), found.weights[0].numpy(), kept)
