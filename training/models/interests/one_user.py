"""One user of one request on NumPy arrays: the pooled history, the fields, DCM's conditions.

`features.py`, `towers.py` and `conditions.py` are what they are held against; why NumPy, `serving.py` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from training.models.interests.conditions import Capsules
from training.models.interests.features import DECAY_HOURS, POOLED, RECENT, Histories
from training.models.interests.routing import assign
from training.models.interests.serving import Affine, ServedTower, array_of, unit
from training.models.interests.towers import UserFields, UserTower

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def pooled_one(histories: Histories) -> tuple[Floats, Floats]:
    """`features.pooled` of one user: (POOLED, d) means and (DENSE,) scalars."""
    items, signs, hours = (part.numpy()[0] for part in (histories.items, histories.signs, histories.hours))
    valid = signs > 0
    weights = np.empty((POOLED, len(valid)), np.float32)
    weights[0], weights[3] = valid, signs < 0
    weights[1] = valid * np.exp(hours * np.float32(-1 / DECAY_HOURS))
    weights[2] = valid & (valid.cumsum() <= RECENT)
    total = np.add.reduce(weights, 1)
    means = (weights / np.maximum(total, np.float32(1e-6))[:, None]) @ items
    since = max(float(hours[valid].min()), 0.0) if valid.any() else 0.0
    dense = np.log1p(np.array([total[0], total[3], since], np.float32)) * np.float32(0.2)
    return means, dense


@dataclass(frozen=True)
class ServedFields:
    """`UserFields` as of when it was made."""

    weight: Floats  # (POOLED, dim, token)
    bias: Floats  # (POOLED, token)
    dense: Affine
    profile: Sequence[Floats]  # (PROFILE_CODES, token) each

    @classmethod
    def of(cls, fields: UserFields) -> ServedFields:
        return cls(
            np.stack([array_of(layer.weight).T for layer in fields.pooled]),
            np.stack([array_of(layer.bias) for layer in fields.pooled]),
            Affine.of(fields.dense.weight, fields.dense.bias),
            tuple(array_of(table.weight) for table in fields.profile),
        )

    def __call__(self, histories: Histories) -> Floats:
        """(FIELDS, token) of one user."""
        means, dense = pooled_one(histories)
        tokens = np.empty((POOLED + 1 + len(self.profile), self.bias.shape[1]), np.float32)
        tokens[:POOLED] = (means[:, None] @ self.weight)[:, 0] + self.bias
        tokens[POOLED] = self.dense(dense)
        for place, (table, code) in enumerate(zip(self.profile, histories.profile.tolist()[0], strict=True)):
            tokens[POOLED + 1 + place] = table[code]
        return tokens


def routed_one(capsules: Capsules, histories: Histories) -> tuple[Floats, Floats]:
    """DCM's conditions of one user, the live ones alone: (K, dim) and their shares (K,), which sum to 1."""
    items, valid = histories.items.numpy()[0], histories.signs.numpy()[0] > 0
    seen = unit(items[:, : capsules.lasting]) if capsules.lasting < items.shape[1] else items
    rule = capsules.routing
    found = assign(
        seen[None],
        valid[None],
        np.zeros(1, np.int64),
        capsules.interests,
        rule.iterations,
        rule.sharpness,
        summed=items[None],
    )
    alive = int(found.counts[0])
    if alive == 0:  # the tower speaks from the profile alone
        return np.zeros((1, items.shape[1]), np.float32), np.ones(1, np.float32)
    sums, weights = found.sums[0, :alive], np.maximum(found.shares[0, :alive], np.float32(1e-12))
    square = np.add.reduce(sums * sums, 1, keepdims=True)
    return sums * (np.sqrt(square + np.float32(1e-12)) / (1 + square)), weights / np.add.reduce(weights)


@dataclass(frozen=True)
class ServedUser:
    """The user's side of an `InterestNetwork`, one user at a time, as of when it was made."""

    fields: ServedFields
    tower: ServedTower
    construct: nn.Module | None
    topics: Floats | None  # (topics + 1, dim) conditions of topics, by their place

    @classmethod
    def of(cls, user: UserTower, construct: nn.Module | None, topics: nn.Embedding | None) -> ServedUser:
        return cls(
            ServedFields.of(user.fields),
            ServedTower.of(user),
            construct,
            None if topics is None else array_of(topics.weight),
        )

    @property
    def routes(self) -> bool:
        """Whether conditions are DCM's; `interests` is of those alone."""
        made = self.construct
        if not isinstance(made, Capsules) or made.map is not None:
            return False
        return made.routing.farthest_point and made.routing.single_assignment

    def interests(self, histories: Histories) -> tuple[Floats, Floats]:
        """Live implicit interests: (K, dim) unit rows, and their shares (K,)."""
        assert isinstance(self.construct, Capsules)
        conditions, weights = routed_one(self.construct, histories)
        return self.tower(conditions, self.fields(histories)), weights

    def under(self, histories: Histories, places: Ints) -> Floats:
        """The user under topics by their place in the vocabulary, above 0: (K, dim) unit rows."""
        assert self.topics is not None
        return self.tower(self.topics[places], self.fields(histories))
