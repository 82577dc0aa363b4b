"""Small untrained networks over the planted catalogue, with the pins of each in a space of its own.

Their item towers keep what is near near, so pins of a topic stay together; where a user's vector lies is
checked against the networks themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from bentos.networks import Learned, Networks
from feature_repo.vectors.index import VectorIndex
from feature_repo.vectors.replica import Replica
from feature_repo.vectors.rows import PinRows
from tests.bentos.fakes import DIM, NOW_MS, PINS, TOPICS, FakeFeatures, manifest, topic_of
from training.models.interests import (
    Construction,
    InterestNetwork,
    InterestsConfig,
    ItemTowerConfig,
    Method,
    PinFeatures,
    pin_vectors,
    topic_places,
)
from training.models.pin_performance import PERFORMANCE
from training.models.pinnerformer import PinnerFormer, PinnerFormerConfig, embed_pins
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.models.two_tower import pin_vectors as two_tower_pins
from validation.manifest import CollectionCheck, Part, ReleaseManifest

WIDTHS = {Learned.PINNERFORMER: 12, Learned.DCM: 24, Learned.CONDITIONAL: 20, Learned.TWO_TOWER: 14}
KNOWN_TOPICS = tuple(range(1, TOPICS))
"""Topics the models know; they never met the last one."""


def space_of(role: Learned) -> str:
    return f"{role.value}@2"


def networks(seed: int = 3) -> Networks:
    """One of each, drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = ItemTowerConfig(performance=True)
        dcm = Method.DCM.config(InterestsConfig(dim=WIDTHS[Learned.DCM], length=64, item_tower=tower))
        topical = InterestsConfig(dim=WIDTHS[Learned.CONDITIONAL], construction=Construction.TOPICS)
        former = PinnerFormerConfig(dim=WIDTHS[Learned.PINNERFORMER], hidden=32, layers=2)
        tower = TwoTowerConfig(dim=WIDTHS[Learned.TWO_TOWER], hidden=32)
        return Networks(
            pinnerformer=PinnerFormer(former, DIM).eval(),
            dcm=InterestNetwork(dcm, DIM, KNOWN_TOPICS).eval(),
            conditional=InterestNetwork(topical, DIM, KNOWN_TOPICS).eval(),
            two_tower=TwoTower(tower, DIM, KNOWN_TOPICS).eval(),
        )


def item_vectors(made: Networks, matrix: np.ndarray) -> dict[Learned, np.ndarray]:
    """(PINS, d) of the planted catalogue in each space; a pin without content has no topic either."""
    topics = np.array([[topic_of(pin)] for pin in range(1, PINS + 1)], np.int64) * matrix.any(axis=1)[:, None]
    performance = np.random.default_rng(0).random((PINS, PERFORMANCE), np.float32)
    features = PinFeatures(matrix, topic_places(topics, KNOWN_TOPICS), performance)
    assert made.pinnerformer and made.dcm and made.conditional and made.two_tower
    return {
        Learned.PINNERFORMER: embed_pins(made.pinnerformer, matrix),
        Learned.DCM: pin_vectors(made.dcm, features),
        Learned.CONDITIONAL: pin_vectors(made.conditional, features),
        Learned.TWO_TOWER: two_tower_pins(made.two_tower, features, performance),
    }


def replicas(made: Networks, matrix: np.ndarray) -> dict[str, Replica]:
    """Every network's pins as an index, by space."""
    ids = np.arange(1, PINS + 1)
    topics = [[topic_of(i)] for i in ids.tolist()]
    return {
        space_of(role): Replica.of(
            f"pins__{role}__2", PinRows.of(ids, vectors, topics, np.full(PINS, NOW_MS), np.ones(PINS))
        )
        for role, vectors in item_vectors(made, matrix).items()
    }


def learned_manifest(version: int = 1) -> ReleaseManifest:
    """The planted manifest with the four learned retrievers in it."""
    base = manifest(version)
    parts = {
        role.value: Part(model=role.value, version=2, space=space_of(role), collection=f"pins__{role}__2")
        for role in Learned
    }
    checks = tuple(
        CollectionCheck(
            collection=f"pins__{role}__2",
            space=space_of(role),
            dim=WIDTHS[role],
            rows=PINS,
            recall_at_100=1.0,
            filtered_fill=1.0,
        )
        for role in Learned
    )
    return base.model_copy(
        update={
            "parts": {**base.parts, **parts},
            "sources": ("pinnersage", *(role.value for role in Learned), *base.sources[1:]),
            "collections": (*base.collections, *checks),
        }
    )


def learned_parts(
    features: FakeFeatures, indexes: Mapping[str, VectorIndex], version: int
) -> dict[str, object]:
    """What the four learned retrievers change of a planted release; their vectors are in `features` too."""
    made = networks()
    features.spaces |= {space_of(r): rows for r, rows in item_vectors(made, features.matrix).items()}
    return {
        "manifest": learned_manifest(version),
        "networks": made,
        "indexes": {**indexes, **replicas(made, features.matrix)},
    }


def save(made: Networks, role: Learned, folder: Path) -> None:
    """The model files of one network, as its registered version holds them."""
    network = getattr(made, role)
    assert network is not None
    network.save(folder)
