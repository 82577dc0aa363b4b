"""How fast features are read and written: `make bench NAME=features [ARGS="--pins 100000"]`.

Reads are compared with a floor measured in the same run, round by round: the same bytes, under integer keys
in a bare SQLite table (or as Redis strings), fetched by the plainest code and turned into the same arrays.
500 pins are their ranking row (18 scalars, creation time, topics) and a 256-d vector; a user is a sequence of
100 actions, a profile and five interests. Ends with one line of JSON, milliseconds being medians.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from feature_repo.jobs import UserInterests, write_pin_embeddings, write_user_interests
from feature_repo.jobs.files import times, write
from feature_repo.online.layout import stamp
from feature_repo.online.packed import Question
from feature_repo.online.reader import OnlineFeatures
from feature_repo.online.sqlite import MAPPED_BYTES
from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from feature_repo.store import apply, materialize, open_store
from feature_repo.views import PIN_STATS, USER_PROFILE, USER_SEQUENCE

NOW = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
SPACE, DIM, SLATE, MEDOIDS = "content@1", 256, 500, 5


def generate(features: Path, pins: int, users: int) -> None:
    """Writes features of `pins` pins and `users` users, as the jobs would."""
    rng = np.random.default_rng(0)
    ids = np.arange(pins + 1)  # row 0 is the watermark
    topics = pa.FixedSizeListArray.from_arrays(rng.integers(0, 99, 4 * len(ids)), 4).cast(pa.list_(pa.int64()))
    scalars = {name: rng.random(len(ids), np.float32) for name in PIN_SCALARS}
    rows = {"pin_id": ids, **scalars, "created_at_ms": ids + 10**12, "topics": topics, **times(NOW, len(ids))}
    write(features, PIN_STATS, "pins", pa.table(rows))
    vectors = rng.standard_normal((pins, DIM), np.float32)
    write_pin_embeddings(features, SPACE, ids[1:], vectors, NOW)

    people = np.arange(users + 1)
    scalars = {name: rng.random(len(people), np.float32) for name in USER_SCALARS}
    followed = pa.FixedSizeListArray.from_arrays(rng.integers(1, 99, 5 * len(people)), 5).cast(
        pa.list_(pa.int64())
    )
    text = {name: pa.repeat("de", len(people)) for name in ("country", "language", "state")}
    more = {"created_at_ms": people, "followed_topics": followed, "followed_boards": followed}
    write(
        features,
        USER_PROFILE,
        "users",
        pa.table({"user_id": people, **scalars, **text, **more, **times(NOW, len(people))}),
    )

    def parallel(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), kind), 100).cast(pa.list_(kind))

    moments = int(NOW.timestamp() * 1000) - np.arange(users * 100).reshape(users, 100)
    columns = {
        "event_ids": parallel(np.arange(1, users * 100 + 1)[::-1].reshape(users, 100), pa.int64()),
        "pin_ids": parallel(rng.integers(1, pins, (users, 100)), pa.int64()),
        "actions": parallel(rng.integers(1, 5, (users, 100)), pa.int32()),
        "surfaces": parallel(rng.integers(0, 5, (users, 100)), pa.int32()),
        "timestamps_ms": parallel(moments, pa.int64()),
        "durations_s": parallel(rng.random((users, 100), np.float32), pa.float32()),
    }
    write(features, USER_SEQUENCE, "latest", pa.table({"user_id": people[1:], **columns, **times(NOW, users)}))
    interests = (
        UserInterests(u, ids[1 : MEDOIDS + 1], np.ones(MEDOIDS), np.ones(MEDOIDS), vectors[:MEDOIDS])
        for u in range(1, users + 1)
    )
    write_user_interests(features, SPACE, interests, NOW)


class RawSqlite:
    """The floor: the packed bytes under integer keys, read by one statement a table."""

    def __init__(self, path: Path, tables: dict[str, list[bytes]]) -> None:
        self.connection = sqlite3.connect(path)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute(f"PRAGMA mmap_size={MAPPED_BYTES}")
        for name, rows in tables.items():
            self.connection.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, row BLOB)")
            self.connection.executemany(f"INSERT INTO {name} VALUES (?, ?)", enumerate(rows, start=1))
        self.connection.commit()

    def rows(self, table: str, ids: np.ndarray) -> list[bytes]:
        marks = ",".join("?" * len(ids))
        asked = ids.tolist()
        found = dict(
            self.connection.execute(f"SELECT id, row FROM {table} WHERE id IN ({marks})", asked).fetchall()
        )
        return [found[i] for i in asked]


class RawRedis:
    """The floor on Redis: the packed bytes as strings, read by one MGET a table."""

    def __init__(self, port: int, tables: dict[str, list[bytes]]) -> None:
        from redis import Redis

        self.client = Redis(port=port, db=1)
        for name, rows in tables.items():
            for start in range(0, len(rows), 5_000):
                some = enumerate(rows[start : start + 5_000], start=start + 1)
                self.client.mset({f"{name}:{i}": row for i, row in some})

    def rows(self, table: str, ids: np.ndarray) -> list[bytes]:
        return self.client.mget([f"{table}:{i}" for i in ids.tolist()])


def floor(
    raw: RawSqlite | RawRedis, ids: np.ndarray, stats: np.dtype, head: int
) -> tuple[np.ndarray, np.ndarray]:
    """500 pins as (structured ranking rows, vectors), from the floor's store."""
    fixed = np.frombuffer(b"".join(raw.rows("stats", ids)), stats)
    joined = np.frombuffer(b"".join(raw.rows("vectors", ids)), np.uint8).reshape(len(ids), -1)
    return fixed, np.ascontiguousarray(joined[:, head:]).view("<f4")


@contextmanager
def redis_server(folder: Path) -> Iterator[int | None]:
    """The port of a redis-server of our own; None where it is not installed."""
    binary = shutil.which("redis-server")
    if binary is None:
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each call, the calls taking turns so that a noisy moment meets them all."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append((time.perf_counter() - start) * 1e3)
    return {name: float(np.median(values)) for name, values in taken.items()}


def measure(home: Path, port: int | None, args: argparse.Namespace) -> dict[str, float]:
    """Materialization and reads on one store: SQLite, or Redis at `port`."""
    store = open_store(home, redis=None if port is None else f"127.0.0.1:{port}")
    apply(store)
    online, config = store._get_provider().online_store, store.config
    result: dict[str, float] = {}
    rows, cpu, wall = 2 * args.pins, time.process_time(), time.perf_counter()
    materialize(store, ["pin_stats", "pin_embedding"])
    result["materialize_rows_per_cpu_s"] = rows / (time.process_time() - cpu)
    result["materialize_rows_per_s"] = rows / (time.perf_counter() - wall)
    materialize(store, ["user_sequence", "user_profile", "user_interests"])

    reader = OnlineFeatures(store)
    rng = np.random.default_rng(1)
    slate = rng.choice(np.arange(1, args.pins + 1), SLATE, replace=False)
    tables = {}
    for name, view, space in (("stats", "pin_stats", None), ("vectors", "pin_embedding", SPACE)):
        question = Question(store.get_feature_view(view), range(1, args.pins + 1), space)
        (tables[name],) = online.read_rows(config, [question])
        assert stamp(tables[name][0])[0] == int(NOW.timestamp() * 1e6)
    raw = RawSqlite(home / "raw.db", tables) if port is None else RawRedis(port, tables)
    layout = online.layout(store.get_feature_view("pin_stats"))
    head = online.layout(store.get_feature_view("pin_embedding")).dtype.itemsize + 4  # the vector's length
    fixed, vectors = floor(raw, slate, layout.dtype, head)
    np.testing.assert_array_equal(reader.pins(slate).scalars, layout.block(fixed, PIN_SCALARS))
    np.testing.assert_array_equal(reader.embeddings(slate, SPACE)[0], vectors)

    def draw() -> np.ndarray:
        return rng.choice(np.arange(1, args.pins + 1), SLATE, replace=False)

    def ours() -> None:
        ids = draw()
        reader.pins(ids)
        reader.embeddings(ids, SPACE)

    names = [f"pin_stats:{name}" for name in (*PIN_SCALARS, "created_at_ms", "topics")]

    def plain() -> None:
        entities = [{"pin_id": int(i), "space": SPACE} for i in draw()]
        store.get_online_features(features=[*names, "pin_embedding:vector"], entity_rows=entities).to_dict()

    gc.collect()
    gc.freeze()  # as the services do: Feast's objects cost the collector 200 ms a pass
    pause = interleaved({"draw": draw}, args.rounds)["draw"]
    reads = interleaved(
        {
            "pins500": ours,
            "pins500_floor": lambda: floor(raw, draw(), layout.dtype, head),
            "user_read": lambda: reader.user(int(rng.integers(1, args.users)), [SPACE]),
            "pins500_stats": lambda: reader.pins(draw()),
        },
        args.rounds,
    )
    reads["pins500_feast"] = interleaved({"plain": plain}, max(5, args.rounds // 20))["plain"]
    for name in reads:
        if name != "user_read":
            reads[name] -= pause  # drawing the slate is no read
    result |= {f"{name}_ms": value for name, value in reads.items()}
    result["pins500_over_floor"] = reads["pins500"] / reads["pins500_floor"]
    gc.unfreeze()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pins", type=int, default=50_000)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    with TemporaryDirectory(prefix="corkboard-bench-") as folder:
        home = Path(folder)
        generate(home / "features", args.pins, args.users)
        results = {"sqlite": measure(home, None, args)}
        with redis_server(home) as port:
            if port is None:
                print("redis-server is not installed: SQLite alone")
            else:
                results["redis"] = measure(home, port, args)
    print(f"\n{args.pins:,} pins of {DIM} dimensions, {args.users:,} users, {args.rounds} rounds")
    print(f"{'':34}" + "".join(f"{name:>12}" for name in results))
    for key in results["sqlite"]:
        print(f"{key:34}" + "".join(f"{result[key]:12.2f}" for result in results.values()))
    line: dict[str, float] = {}
    for key in ("user_read_ms", "pins500_over_floor", "materialize_rows_per_cpu_s"):
        line[key] = round(results["sqlite"][key], 3)
    for name, result in results.items():
        line |= {f"{name}_{key}": round(value, 3) for key, value in result.items()}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
