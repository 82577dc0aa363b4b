"""One small world in a lake, one registry and one Milvus for every pipeline test of a session."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from training.context import TrainingContext
from training.data.world import WorldPaths, simulate
from training.data.world_config import WorldConfig
from training.registry import Registry
from validation.ingest import ingest

GiveRegistry = Callable[[Path], Registry]

WORLD_END = date(2026, 3, 2)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> WorldPaths:
    """150 users, 900 pins, 10 days."""
    config = WorldConfig.tiny(users=150, pins=900, days=10, end=WORLD_END, sessions_per_day=1.5)
    return simulate(tmp_path_factory.mktemp("world"), config)


@pytest.fixture(scope="session")
def home(world: WorldPaths, tmp_path_factory: pytest.TempPathFactory, give_registry: GiveRegistry) -> Path:
    """A home folder whose lake holds the world, with an empty registry."""
    return ingested(world, tmp_path_factory.mktemp("home"), give_registry)


@pytest.fixture(scope="session")
def ctx(home: Path) -> TrainingContext:
    """A context on the home; nothing answers at its Milvus address."""
    return context(home)


@pytest.fixture(scope="session")
def milvus_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Milvus Lite server of this session."""
    from feature_repo.vectors import server

    folder = tmp_path_factory.mktemp("milvus")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = server.start(folder / "data", port, folder / "milvus.log")
    uri = f"http://127.0.0.1:{port}"
    try:
        server.wait(uri, process=process, log=folder / "milvus.log")
        yield uri
    finally:
        server.stop(process)


@pytest.fixture(scope="module")
def made(
    world: WorldPaths, tmp_path_factory: pytest.TempPathFactory, give_registry: GiveRegistry, milvus_uri: str
) -> TrainingContext:
    """A context on a home of the file's own, for whole runs."""
    return context(ingested(world, tmp_path_factory.mktemp("trained"), give_registry), milvus_uri=milvus_uri)


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Whole runs whose networks take seconds."""
    from tests.training.pipelines.small_run import small_steps  # which stands on this file

    with small_steps():
        yield


def ingested(world: WorldPaths, root: Path, give_registry: GiveRegistry) -> Path:
    """`root` as a home: the world in its lake, an empty registry."""
    give_registry(root)
    ingest(world.tables, root / "lake", root / "quarantine", root / "reports", checkpoint=False)
    return root


def context(root: Path, **changes: object) -> TrainingContext:
    """A training context whose state lies under `root`; words are hashed, which needs no network of weights."""
    made = TrainingContext(
        lake=root / "lake",
        features=root / "features",
        training_sets=root / "training_sets",
        feast_home=str(root),
        mlflow_uri=f"sqlite:///{root / 'mlflow' / 'mlflow.db'}",
        mlflow_artifacts=root / "mlflow" / "artifacts",
        milvus_uri="http://127.0.0.1:9",
        text_encoder="ngrams",
    )
    return replace(made, **changes)


def truth(world: WorldPaths) -> dict[str, object]:
    """The world's planted parameters."""
    return json.loads((world.truth / "world.json").read_text())
