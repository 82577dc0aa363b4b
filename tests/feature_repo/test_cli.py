"""The native `feast` command works by hand in this repository, on both stores."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from feature_repo import schema
from feature_repo.online.features import Freshness
from feature_repo.online.reader import OnlineFeatures
from feature_repo.store import REPOSITORY, definitions, open_store
from feature_repo.views import VIEWS
from tests.feature_repo.conftest import World

FEAST = Path(sys.executable).with_name("feast")


def feast(home: Path, *arguments: str, redis: str | None = None) -> str:
    environment = {**os.environ, "CORKBOARD_HOME": str(home)} | ({"CORKBOARD_REDIS": redis} if redis else {})
    done = subprocess.run(
        [FEAST, *arguments], cwd=REPOSITORY, env=environment, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_named_service_is_defined_once() -> None:
    named = {value for name, value in vars(schema).items() if name.endswith("_SERVICE")}
    assert sorted(service.name for service in definitions("corkboard").feature_services) == sorted(named)


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["sqlite", "redis"])
def test_apply_and_materialize_by_hand(
    environment: str, world: World, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "features").symlink_to(world.features)
    redis, options = None, []
    if environment == "redis":
        redis, options = f"{request.getfixturevalue('redis_address')},db=2", ["-f", "envs/redis.yaml"]
    feast(tmp_path, *options, "apply", redis=redis)
    store = open_store(tmp_path, redis=redis)
    if environment == "sqlite":
        feast(tmp_path, "materialize-incremental", "2026-03-01T00:00:00")
    else:  # the same code; the command costs ten seconds of imports
        store.materialize_incremental(datetime(2026, 3, 1, tzinfo=UTC))
    reader = OnlineFeatures(store, Freshness.unbounded())
    assert reader.pins(world.pin_ids).present.all(), "pins of every age, on the first incremental run"
    assert len(reader.user(1).sequence)
    expected = definitions(store.project)
    assert sorted(v.name for v in store.list_feature_views()) == sorted(VIEWS)
    sources = [source.name for source in store.list_data_sources()]
    assert sorted(sources) == sorted({s.name for s in expected.data_sources}), "every object once"
    services = {s.name for s in store.list_feature_services()}
    assert services == {s.name for s in expected.feature_services}
