"""Killed at any durable step, every job leaves the champion whole and is finished by running it again.

The contract of each: after the crash the champion is the one before or the one after, its manifest loads; run
again, the same command succeeds; what stands there then is what an undisturbed run leaves. A few steps of each
job are drawn by seed; `CORKBOARD_CRASH_STEPS=all` kills at every one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.home import Home
from infra.relocation import settle
from tests.crashing import crashes
from tests.feature_repo.vectors.servers import shared_lite
from tests.training import planted_releases as planted
from training import promotion
from training.ledger import Ledger
from training.registry import Registry
from training.release import load_manifest, register
from training.release_parts import registry_of
from validation.events import ActionRecord, segments_of, to_line
from validation.lake import Lake
from validation.manifest import CHALLENGER, CHAMPION, PREVIOUS, RELEASE_MODEL
from validation.tables import TABLES, EntityKind

pytestmark = pytest.mark.slow

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 10, tzinfo=UTC)

Fresh = Callable[[str], Path]

_NUMBERS = count()


def copies_of(base: Path) -> Fresh:
    """Homes that are copies of `base`."""

    def fresh(name: str) -> Path:
        home = base.with_name(f"{base.name}-{next(_NUMBERS)}-{name}")
        shutil.copytree(base, home)
        settle(Home(home))
        return home

    return fresh


# The door -----------------------------------------------------------------------------------------------------


def write_tables(folder: Path, first: int, many: int, title: str) -> Path:
    """Pins `first`.. with string ids and that title, and two days of actions on them."""
    folder.mkdir(parents=True)
    pins = [f"p{i}" for i in range(first, first + many)]
    made = pa.array([NOW - timedelta(days=9)] * many, pa.timestamp("us", tz="UTC"))
    pq.write_table(
        pa.table({"pin_id": pins, "created_at": made, "title": [title] * many}), folder / "pins.parquet"
    )
    times = [NOW - timedelta(hours=2 + 5 * i) for i in range(2 * many)]
    actions = {
        "user_id": [f"u{i % 3}" for i in range(2 * many)],
        "pin_id": pins * 2,
        "action": ["save", "click"] * many,
        "timestamp": pa.array(times, pa.timestamp("us", tz="UTC")),
    }
    pq.write_table(pa.table(actions), folder / "actions.parquet")
    return folder


def take_in(home: Path, tables: str) -> None:
    from validation.ingest import ingest

    ingest(home / tables, home / "lake", home / "quarantine", home / "reports", now=NOW, checkpoint=False)


def rows_of(home: Path) -> dict[str, pd.DataFrame]:
    """Every table of the lake, ids as they came in."""
    lake, found = Lake(home / "lake"), {}
    for name in filter(lake.has, TABLES):
        rows = lake.read(name)
        rows["pin_id"] = lake.id_map().decode(EntityKind.PIN, rows["pin_id"].to_numpy())
        found[name] = rows.dropna(axis=1, how="all")
    return found


@pytest.fixture(scope="module")
def lake_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one ingest behind it, and one before it that brings new rows and changes old ones."""
    home = tmp_path_factory.mktemp("crashes") / "lake"
    write_tables(home / "first", 1, 5, "old")
    write_tables(home / "second", 4, 5, "new")
    take_in(home, "first")
    return home


def test_an_ingest_that_was_killed_is_completed(lake_home: Path) -> None:
    told: dict[str, pd.DataFrame] = {}
    for home, step in crashes(take_in, copies_of(lake_home), "second", seed=1):
        if step:
            Lake(home / "lake").contract()  # what is there can be read
            assert all(len(rows) for rows in rows_of(home).values())
            take_in(home, "second")
        found = rows_of(home)
        told = told or found
        assert found.keys() == told.keys() and len(found["pins"]) == 8, step
        for name, rows in found.items():
            pd.testing.assert_frame_equal(rows, told[name], obj=f"{name} after a crash at step {step}")


def use_up_log(home: Path) -> None:
    from validation.event_compaction import compact_events
    from validation.ingest_events import ingest_events

    log, lake = home / "events", home / "lake"
    ingest_events(log, lake, home / "quarantine", home / "reports", now=NOW, checkpoint=False)
    compact_events(log, lake, before_ms=int(NOW.timestamp() * 1000))


def test_a_log_that_was_being_brought_in_or_compacted_when_killed_is_used_up_once(lake_home: Path) -> None:
    base = lake_home.with_name("logged")
    shutil.copytree(lake_home, base)
    (base / "events").mkdir()
    for number in range(1, 4):
        at_ms = int((NOW - timedelta(minutes=number)).timestamp() * 1000)
        saved = ActionRecord(event_id=number, user_id=1, pin_id=1, timestamp_ms=at_ms, action="save")
        segment = base / "events" / f"actions-{number:08d}.jsonl"
        segment.write_bytes(to_line(saved))
        os.utime(segment, (0, 0))
    told: dict[str, pd.DataFrame] = {}
    for home, step in crashes(use_up_log, copies_of(base), seed=8):
        if step:
            use_up_log(home)
        found = rows_of(home)
        told = told or found
        assert [s.stem for s in segments_of(home / "events", "actions")] == ["actions-00000003"], step
        assert sorted(found["actions"]["event_id"])[:3] == [1, 2, 3] and len(found["actions"]) == 10 + 3, step
        for name, rows in found.items():
            pd.testing.assert_frame_equal(rows, told[name], obj=f"{name} after a crash at step {step}")


# Features -----------------------------------------------------------------------------------------------------


def build_and_materialize(home: Path) -> None:
    from feature_repo.jobs import build_features, write_pin_embeddings
    from feature_repo.store import apply, materialize, open_store

    build_features(Lake(home / "lake"), home / "features", as_of=MIDNIGHT)
    vectors = np.eye(4, dtype=np.float32)
    write_pin_embeddings(home / "features", "content@1", np.arange(1, 5), vectors, MIDNIGHT)
    store = open_store(home)
    apply(store)
    materialize(store, end=NOW)


def online_rows(home: Path) -> str:
    """Digest of every row of the online store."""
    digest = hashlib.sha256()
    with sqlite3.connect(home / "feast" / "online.db") as db:
        tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        for (table,) in tables:
            for row in db.execute(f'SELECT id, event_us, row FROM "{table}" ORDER BY id'):
                digest.update(repr((table, row)).encode())
    db.close()
    return digest.hexdigest()


def test_a_materialization_that_was_killed_is_completed(lake_home: Path) -> None:
    told = ""
    for home, step in crashes(build_and_materialize, copies_of(lake_home), seed=2):
        if step:
            build_and_materialize(home)
        told = told or online_rows(home)
        assert online_rows(home) == told, step


# The index ----------------------------------------------------------------------------------------------------

OLD, NEW = np.arange(1, 41), np.arange(11, 61)


def build_index(home: Path, uri: str, new: bool = True) -> None:
    """The collection of the space that the home's name stands for; first its old pins, then the new ones."""
    from training.index import build

    ids = NEW if new else OLD
    rng = np.random.default_rng(7 if new else 8)
    vectors = rng.normal(size=(len(ids), 8)).astype(np.float32)
    topics = [[int(i) % 3 + 1] for i in ids]
    build(uri, space_of(home), ids, vectors, topics, np.ones(len(ids), np.int64), np.ones(len(ids)))


def space_of(home: Path) -> str:
    return f"crash_{home.name.replace('-', '_')}@1"


def test_an_index_build_that_was_killed_is_completed(tmp_path: Path) -> None:
    from training.index import check, read

    uri = shared_lite()

    def fresh(name: str) -> Path:
        home = tmp_path / name
        home.mkdir()
        build_index(home, uri, new=False)
        return home

    told: Any = None
    for home, step in crashes(build_index, fresh, uri, seed=3):
        if step:
            assert set(read(uri, space_of(home)).ids) <= {*OLD, *NEW}
            build_index(home, uri)
        rows = read(uri, space_of(home))
        told = told if told is not None else rows
        assert rows.ids.tolist() == NEW.tolist() and (rows.digests() == told.digests()).all(), step
        assert check(uri, space_of(home), rows).recall_at_100 == 1.0


# Releases -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def released_home(lake_home: Path, give_registry: Callable[[Path], Registry]) -> Path:
    """Three releases; the first is champion, the second challenger, the lake a small one."""
    home = lake_home.with_name("released")
    shutil.copytree(lake_home / "lake", home / "lake")
    registry = give_registry(home)
    for number in (1, 2, 3):
        register(planted.context(home), planted.manifest(number))
    promotion.promote(planted.context(home), planted.ledger(home), 1)
    registry.set_alias(RELEASE_MODEL, CHALLENGER, 2)
    return home


def release_fourth(home: Path) -> None:
    register(planted.context(home), planted.manifest(4))


def promote_challenger(home: Path) -> None:
    promotion.promote(planted.context(home), planted.ledger(home))


def promote_and_roll_back(home: Path) -> None:
    promotion.promote(planted.context(home), planted.ledger(home), 3)
    promotion.rollback(planted.context(home), planted.ledger(home))


def clear_away(home: Path) -> None:
    from tests.training.planted_milvus import stands_in
    from training.retention import RetentionConfig, collect

    stands_in(home)
    collect(planted.context(home), planted.ledger(home), RetentionConfig(releases=1))


def aliases(home: Path) -> dict[str, int]:
    return registry_of(planted.context(home)).aliases(RELEASE_MODEL)


def champion_is_whole(home: Path, *allowed: int) -> int:
    """The champion by the alias, which must be one of `allowed`, its manifest the one registered."""
    champion = aliases(home)[CHAMPION]
    assert champion in allowed
    assert load_manifest(planted.context(home), CHAMPION).git_commit == f"{champion:040}"
    return champion


def test_a_release_that_was_killed_is_registered_once(released_home: Path) -> None:
    for home, step in crashes(release_fourth, copies_of(released_home), seed=4):
        champion_is_whole(home, 1)
        assert aliases(home)[CHALLENGER] in (2, 4), "the challenger is a whole release"
        if step:
            release_fourth(home)
        versions = registry_of(planted.context(home)).versions(RELEASE_MODEL)
        assert (versions, aliases(home)[CHALLENGER]) == ([1, 2, 3, 4], 4), step
        assert load_manifest(planted.context(home), 4) == planted.manifest(4)


def test_a_promotion_that_was_killed_is_carried_out_once(released_home: Path) -> None:
    for home, step in crashes(promote_challenger, copies_of(released_home), seed=5):
        champion_is_whole(home, 1, 2)
        if step:
            promote_challenger(home)
        assert aliases(home) == {CHAMPION: 2, PREVIOUS: 1}, step
        assert Ledger(planted.ledger(home)).champions() == (1, 2), step
        assert len(promotion.history(planted.ledger(home))) == 2, "promoted once"


def test_a_rollback_that_was_killed_leads_to_where_the_ledger_says(released_home: Path) -> None:
    """Between a promotion and its rollback: the next command carries out what the ledger's last line says."""
    for home, step in crashes(promote_and_roll_back, copies_of(released_home), seed=6):
        champion_is_whole(home, 1, 3)
        book = Ledger(planted.ledger(home))
        if step:
            said = book.champions()[-1]
            promotion.promote(planted.context(home), planted.ledger(home), said)
            assert aliases(home)[CHAMPION] == said, step
        if book.champions()[-1] != 1:
            promotion.rollback(planted.context(home), planted.ledger(home))
        assert {**aliases(home), CHALLENGER: 2} == {CHAMPION: 1, CHALLENGER: 2} and book.champions() == (1,), (
            step
        )


# Retention ----------------------------------------------------------------------------------------------------


def standing(home: Path) -> tuple[str, ...]:
    """What is left, by name: collections, spaces and files below the home, versions with files."""
    registry = registry_of(planted.context(home))
    versions = [f"{model}@{v}" for model in ("content", "pinnersage") for v in registry.versions(model)]
    with sqlite3.connect(home / "feast" / "online.db") as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    db.close()
    files = [
        path.relative_to(home).as_posix()
        for folder in ("features", "training_sets", "replicas", "collections", "mlflow")
        for path in (home / folder).rglob("*")
        if path.is_file() and not path.name.startswith("mlflow.db")
    ]
    return tuple(sorted([*versions, *tables, *files]))


def test_retention_that_was_killed_is_completed(
    released_home: Path, give_registry: Callable[[Path], Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    from feature_repo.store import apply, materialize, open_store
    from feature_repo.vectors import milvus
    from tests.training.planted_milvus import build

    monkeypatch.setattr(milvus, "connect", milvus.connect)  # to be put back after `stands_in`

    base = released_home.with_name("retained")
    registry = give_registry(base)
    planted.plant(base, registry, 4)
    build(base, 4)
    registry.set_alias(RELEASE_MODEL, CHAMPION, 2)
    store = open_store(base)
    apply(store)
    materialize(store, ["pin_embedding", "user_embedding", "user_interests"])
    before, told = standing(base), ()
    for home, step in crashes(clear_away, copies_of(base), seed=7):
        champion_is_whole(home, 2)
        kept = [name for name in before if name.endswith(("@2", "__2", "content@2.parquet"))]
        assert set(kept) <= set(standing(home)), "nothing of the champion goes"
        if step:
            clear_away(home)
        told = told or standing(home)
        assert standing(home) == told != before, step
