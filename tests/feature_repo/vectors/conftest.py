"""Backends of the vector index contract, each holding the same planted pins, started once a session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from feature_repo.vectors.index import VectorIndex
from feature_repo.vectors.milvus import Milvus, connect
from feature_repo.vectors.replica import Replica
from feature_repo.vectors.rows import PinRows
from tests.feature_repo.vectors.servers import shared_lite, shared_standalone

DIM = 32
PINS = 3_000
RARE_TOPIC = 900
"""Three pins have it."""
COMMON_TOPIC = 500
"""Half the pins have it."""

CONTRACT_COLLECTION = "pins__contract__1"


def planted_pins(count: int = PINS, dim: int = DIM, seed: int = 7) -> PinRows:
    """Clustered unit vectors with known topics: cluster + 1, every second pin COMMON, three pins RARE."""
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 40, count)
    vectors = rng.normal(size=(40, dim))[clusters] + 0.7 * rng.normal(size=(count, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    topics = np.zeros((count, 3), np.int64)
    topics[:, 0] = clusters + 1
    topics[::2, 1] = COMMON_TOPIC
    topics[[5, count // 2, count - 1], 2] = RARE_TOPIC
    return PinRows.of(
        ids=rng.permutation(count) * 1_000_003 + 11,
        vectors=vectors,
        topics=topics,
        created_at_ms=1_700_000_000_000 + rng.integers(0, 10**10, count),
        quality=rng.random(count),
    )


@pytest.fixture(scope="session")
def pins() -> PinRows:
    return planted_pins()


@pytest.fixture(scope="session", params=["lite", "server"])
def milvus(request: pytest.FixtureRequest) -> Iterator[Milvus]:
    """A connection to each Milvus in turn."""
    connection = connect(shared_lite() if request.param == "lite" else shared_standalone())
    yield connection
    connection.close()


@dataclass(frozen=True)
class Backend:
    kind: str
    index: VectorIndex


@pytest.fixture(scope="session", params=["lite", "server", "replica", "replica-graph"])
def backend(request: pytest.FixtureRequest, pins: PinRows) -> Iterator[Backend]:
    """Each implementation of `VectorIndex`, holding `pins`."""
    kind = request.param
    if kind.startswith("replica"):
        yield Backend(kind, Replica.of(CONTRACT_COLLECTION, pins, graph=kind == "replica-graph"))
        return
    connection = connect(shared_lite() if kind == "lite" else shared_standalone())
    index = connection.create(CONTRACT_COLLECTION, DIM)
    index.upsert(pins)
    index.flush()
    connection.wait_indexed(CONTRACT_COLLECTION)
    yield Backend(kind, connection.reopen(CONTRACT_COLLECTION))
    connection.close()
