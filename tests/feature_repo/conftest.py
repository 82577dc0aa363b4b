"""A small lake with a known history, its features, and stores over SQLite and a real Redis."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.jobs import UserInterests, build_features, write_pin_embeddings, write_user_interests
from feature_repo.store import apply, materialize, open_store
from validation.lake import Lake
from validation.tables import TABLES, Contract

if TYPE_CHECKING:
    from feast import FeatureStore

USERS, PINS, BOARDS, DAYS = 25, 60, 6, 40
START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(days=DAYS)
SPACE, OTHER_SPACE = "content@1", "content@2"
TOPICS = {1: None, 2: None, 3: 1, 4: 1, 5: 2}
"""Topic -> parent."""


def write_lake(root: Path, tables: dict[str, pd.DataFrame]) -> Lake:
    """A lake of frames in the lake's own form, as an ingest leaves it."""
    lake = Lake(root)
    lake.write_contract(Contract())
    for name, frame in tables.items():
        spec = TABLES[name]
        if not spec.by_day:
            _write(lake.file(name), frame, spec.schema)
            continue
        for day, rows in frame.groupby(frame["timestamp"].dt.date):
            _write(lake.file(name, day), rows.sort_values("timestamp", kind="stable"), spec.schema)
    return lake


def _write(path: Path, frame: pd.DataFrame, schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [
        pa.array(frame[c.name], c.type, from_pandas=True) if c.name in frame else pa.nulls(len(frame), c.type)
        for c in schema
    ]
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), path)


def history(seed: int = 7) -> dict[str, pd.DataFrame]:
    """Contract tables in lake form: uneven activity, quiet weeks, ties in time, users without a profile."""
    rng = np.random.default_rng(seed)
    topics = pd.DataFrame(
        {"topic_id": list(TOPICS), "name": [f"t{t}" for t in TOPICS], "parent_id": list(TOPICS.values())}
    )
    topics["parent_id"] = topics["parent_id"].astype("Int64")
    pins = pd.DataFrame(
        {
            "pin_id": np.arange(1, PINS + 1),
            "created_at": [START + timedelta(hours=float(h)) for h in rng.uniform(-4000, -1, PINS)],
            "title": [None if i % 7 == 0 else f"pin number {i}" for i in range(PINS)],
            "description": [f"words {'and ' * (i % 4)}é" for i in range(PINS)],
            "topics": [sorted(rng.choice(5, rng.integers(0, 6), replace=False) + 1) for _ in range(PINS)],
            "image": [f"img/{i}.svg" if i % 3 else None for i in range(PINS)],
        }
    )

    def moments(count: int) -> pd.Series:
        days = rng.choice(DAYS, count, p=_uneven(rng))
        micros = rng.integers(0, 86_400_000_000, count)
        return pd.to_datetime(
            [START + timedelta(days=int(d), microseconds=int(m)) for d, m in zip(days, micros, strict=True)]
        )

    count = 1500
    pin_ids = rng.zipf(1.3, count) % (PINS - 5) + 1  # the last five pins meet nobody
    actions = pd.DataFrame(
        {
            "event_id": rng.permutation(count) + 1,
            "user_id": rng.zipf(1.4, count) % USERS + 1,
            "pin_id": pin_ids,
            "action": rng.choice([1, 2, 3, 4, 6, 7], count),
            "timestamp": moments(count),
            "surface": rng.choice(["homefeed", "search", "related_ads", "elsewhere", None], count),
            "duration_s": rng.choice([1.5, np.nan], count),
        }
    )
    # Ties: the same user acts several times in one instant.
    actions.loc[100:140, ["user_id", "timestamp"]] = [3, START + timedelta(days=20, hours=5)]
    actions["board_id"] = pd.array(
        np.where(actions["action"] == 4, rng.integers(1, BOARDS + 1, count), 0)
    ).astype("Int64")
    actions.loc[actions["board_id"] == 0, "board_id"] = pd.NA
    shown = 3000
    impressions = pd.DataFrame(
        {
            "request_id": np.arange(1, shown + 1),
            "user_id": rng.integers(1, USERS + 1, shown),
            "pin_id": rng.integers(1, PINS - 4, shown),
            "position": rng.integers(0, 20, shown),
            "timestamp": moments(shown),
        }
    )
    follows = pd.DataFrame(
        {
            "user_id": rng.integers(1, USERS + 1, 80),
            "timestamp": moments(80),
            "topic_id": pd.array([t if i % 2 else None for i, t in enumerate(rng.integers(1, 6, 80))], "Int64"),
            "board_id": pd.array([None if i % 2 else b for i, b in enumerate(rng.integers(1, 7, 80))], "Int64"),
        }
    )
    users = pd.DataFrame(
        {
            "user_id": np.arange(1, USERS),
            "country": ["DE", None, "FR"] * ((USERS - 1) // 3),
            "language": "de",
            "created_at": [None if i % 5 == 0 else START - timedelta(days=i) for i in range(USERS - 1)],
        }
    )
    users["created_at"] = pd.to_datetime(users["created_at"], utc=True)
    boards = pd.DataFrame({"board_id": np.arange(1, BOARDS + 1), "user_id": np.arange(1, BOARDS + 1)})
    return {
        "topics": topics,
        "pins": pins,
        "actions": actions,
        "impressions": impressions,
        "follows": follows,
        "users": users,
        "boards": boards,
    }


def _uneven(rng: np.random.Generator) -> np.ndarray:
    weights = rng.uniform(0.1, 1, DAYS)
    weights[12:19] = 0  # a week in which nothing happens
    return weights / weights.sum()


@dataclass(frozen=True)
class World:
    """The small lake, what it was made of, and its built features."""

    tables: dict[str, pd.DataFrame]
    lake: Lake
    home: Path
    vectors: np.ndarray

    @property
    def features(self) -> Path:
        return self.home / "features"

    @property
    def pin_ids(self) -> np.ndarray:
        return self.tables["pins"]["pin_id"].to_numpy()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    home = tmp_path_factory.mktemp("features-home")
    tables = history()
    lake = write_lake(home / "lake", tables)
    build_features(lake, home / "features", as_of=END)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(PINS, 8)).astype(np.float32)
    ids = tables["pins"]["pin_id"].to_numpy()
    write_pin_embeddings(home / "features", SPACE, ids, vectors, END)
    write_pin_embeddings(home / "features", OTHER_SPACE, ids[:10], -vectors[:10], END)
    interests = [
        UserInterests(
            user, ids[user : user + k], np.arange(k, 0, -1) / k, np.full(k, 2), vectors[user : user + k]
        )
        for user, k in ((1, 3), (2, 1), (3, 0))
    ]
    write_user_interests(home / "features", SPACE, interests, END)
    return World(tables, lake, home, vectors)


@pytest.fixture(scope="session")
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a redis-server of our own."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session", params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, world: World) -> FeatureStore:
    """The world's features, applied and materialized, over each online store."""
    redis = request.getfixturevalue("redis_address") if request.param == "redis" else None
    opened = open_store(world.home, redis=redis)
    apply(opened)
    materialize(opened)
    return opened


@pytest.fixture(scope="session")
def applied_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home in which the definitions were applied; sources are relative, so copies are as good."""
    home = tmp_path_factory.mktemp("applied")
    opened = open_store(home)
    apply(opened)
    return home


@pytest.fixture(params=["sqlite", "redis"])
def fresh_store(
    request: pytest.FixtureRequest, tmp_path: Path, world: World, applied_home: Path
) -> Iterator[FeatureStore]:
    """An applied and empty store of a test's own, over the world's features."""
    home, redis = tmp_path / "home", None
    shutil.copytree(applied_home, home)
    (home / "features").symlink_to(world.features)
    if request.param == "redis":
        redis = f"{request.getfixturevalue('redis_address')},db=1"
        (home / "feast_registry.db").rename(home / "feast_registry_redis.db")
    opened = open_store(home, redis=redis)
    yield opened
    opened.teardown()
