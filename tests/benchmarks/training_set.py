"""A point-in-time training set at size: how long it takes, how much memory, and whether every sum is right.

    python -m tests.benchmarks.training_set                    2M impressions
    python -m tests.benchmarks.training_set --rows 20e6       20M: a quarter of an hour of a core, 5 GB

Plants a lake of impressions and the actions that answer them (nobody's taste: only their number matters),
builds its features, and then the training set, in processes of their own whose peak memory is theirs alone. The
first build is killed once a third of the days are there; the second goes on and must keep what it finds. Rows
and label sums are compared with what was planted. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.training.data.lakes import write_lake
from validation.lake import Lake
from validation.tables import Contract

GOALS = {"peak_gib": 12.0}
END = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
PAGE = 20
"""Impressions a request."""
RATES = {"closeup": 0.06, "click": 0.025, "long_click": 0.012, "save": 0.02, "hide": 0.005}
DIM = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=2e6)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--pins", type=int, default=100_000)
    parser.add_argument(
        "--folder", type=Path, help="where lake and set are written; a temporary one by default"
    )
    parser.add_argument("--step", choices=["features", "build"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step is not None:
        return step(args.step, args.folder, args.days, args.pins)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        measure(Path(folder), int(args.rows), args.days, args.pins)


def measure(folder: Path, rows: int, days: int, pins: int) -> None:
    planted = plant(folder / "lake", rows, days, pins)
    print(f"planted {planted['rows']:,} impressions of {days} days, {sum(planted['labels'].values()):,} labels")
    features = run(folder, "features", days, pins)
    print(f"features: {features['cpu_s']:.0f} CPU s, peak {features['peak_gib']:.2f} GiB")
    kept = interrupted(folder, days, pins)
    build = run(folder, "build", days, pins)
    same = all((folder / "set" / name).stat().st_mtime_ns == when for name, when in kept.items())
    info = json.loads((folder / "set" / "info.json").read_text())
    checks = {
        "rows": info["rows"] == planted["rows"],
        "label_sums": info["label_sums"] == planted["labels"],
        "finished_days_kept": bool(kept) and same,
    }
    made = 1 - sum(info["days"][name[4:14]] for name in kept) / info["rows"]
    print(
        f"killed after {len(kept)} of {days} days; the rest: {build['cpu_s']:.0f} CPU s, "
        f"peak {build['peak_gib']:.2f} GiB\n{checks}"
    )
    out = {
        "rows": info["rows"],
        "peak_gib": round(build["peak_gib"], 2),
        "rows_per_cpu_s": round(made * info["rows"] / build["cpu_s"]),
        **checks,
    }
    goals = {k: f"<= {goal}: {'met' if out[k] <= goal else 'MISSED'}" for k, goal in GOALS.items()}
    print(json.dumps(out | {"goals": goals}))
    if not all(checks.values()):
        raise SystemExit("the training set is not what was planted")


def plant(root: Path, rows: int, days: int, pins: int) -> dict[str, Any]:
    """A lake of `rows` impressions, a tenth as many users as requests; how many rows and labels it holds."""
    rng = np.random.default_rng(7)
    requests = -(-rows // PAGE // days)
    users = max(50, requests * days // 10)
    start = END - days * DAY
    born = pd.Series(pd.Timestamp(start - 30 * DAY)).repeat(max(pins, users)).reset_index(drop=True)
    tables = {
        "pins": pd.DataFrame(
            {
                "pin_id": np.arange(1, pins + 1),
                "created_at": born[:pins],
                "topics": list(rng.integers(1, 60, (pins, 2))),
            }
        ),
        "users": pd.DataFrame({"user_id": np.arange(1, users + 1), "created_at": born[:users]}),
        "topics": pd.DataFrame({"topic_id": np.arange(1, 61), "name": [f"topic {i}" for i in range(1, 61)]}),
    }
    contract = Contract()
    write_lake(root, tables, contract)
    counts, total, events = dict.fromkeys(contract.vocabulary.names, 0), 0, 0
    for day in range(days):
        shown = _page(rng, requests, day * requests, start + day * DAY, users, pins)
        acted = _answers(rng, shown, contract, events)
        write_lake(root, {"impressions": shown, "actions": acted}, contract)
        total, events = total + len(shown), events + len(acted)
        for name in RATES:
            counts[name] += int((acted["action"] == contract.vocabulary.code(name)).sum())
    return {"rows": total, "labels": counts}


def _page(
    rng: np.random.Generator, requests: int, first: int, day: datetime, users: int, pins: int
) -> pd.DataFrame:
    """One day's impressions: pages of PAGE different pins."""
    steps = np.cumsum(rng.integers(1, pins // (PAGE + 5), (requests, PAGE)), axis=1)
    times = pd.Timestamp(day) + pd.to_timedelta(np.sort(rng.integers(0, 80_000_000, requests)), unit="ms")
    return pd.DataFrame(
        {
            "request_id": np.repeat(first + 1 + np.arange(requests), PAGE),
            "user_id": np.repeat(rng.integers(1, users + 1, requests), PAGE),
            "pin_id": ((rng.integers(0, pins, (requests, 1)) + steps) % pins + 1).ravel(),
            "position": np.tile(np.arange(PAGE), requests),
            "timestamp": np.repeat(times, PAGE),
            "surface": "homefeed",
            "source": "planted",
            "propensity": 0.5,
        }
    )


def _answers(rng: np.random.Generator, shown: pd.DataFrame, contract: Contract, events: int) -> pd.DataFrame:
    """Actions that answer a page within the hour, at most one of a kind an impression."""
    parts = []
    for name, rate in RATES.items():
        part = shown[rng.random(len(shown)) < rate]
        later = pd.to_timedelta(rng.integers(1_000, 3_000_000, len(part)), unit="ms")
        parts.append(
            part[["request_id", "user_id", "pin_id", "surface"]].assign(
                action=contract.vocabulary.code(name), timestamp=part["timestamp"] + later
            )
        )
    acted = pd.concat(parts).sort_values("timestamp", ignore_index=True)
    return acted.assign(event_id=events + 1 + np.arange(len(acted)))


def run(folder: Path, name: str, days: int, pins: int) -> dict[str, float]:
    """One step in a process of its own, whose last line is what it took."""
    done = subprocess.run(_command(folder, name, days, pins), check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def interrupted(folder: Path, days: int, pins: int) -> dict[str, int]:
    """A build that is killed once a third of its days are there: their files and when they were written."""
    child = subprocess.Popen(
        _command(folder, "build", days, pins), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while child.poll() is None and len(list((folder / "set").glob("day=*.parquet"))) < days // 3:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    return {file.name: file.stat().st_mtime_ns for file in (folder / "set").glob("day=*.parquet")}


def _command(folder: Path, name: str, days: int, pins: int) -> list[str]:
    module = [sys.executable, "-m", "tests.benchmarks.training_set", "--step", name, "--folder", str(folder)]
    return [*module, "--days", str(days), "--pins", str(pins)]


def step(name: str, folder: Path, days: int, pins: int) -> None:
    """What the processes do: the feature jobs, or the training set."""
    from feature_repo.jobs import build_features
    from feature_repo.store import apply, open_store
    from training.data.point_in_time import FeastPointInTime
    from training.data.training_set import PinVectors, build

    lake, home = Lake(folder / "lake"), folder / "home"
    if name == "features":
        build_features(lake, home / "features", as_of=END)
    else:
        store = open_store(home)
        apply(store)
        vectors = np.random.default_rng(3).standard_normal((pins, DIM), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        build(
            lake,
            FeastPointInTime(store),
            folder / "set",
            start=END - days * DAY,
            end=END,
            vectors=PinVectors("content@1", np.arange(1, pins + 1), vectors),
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"peak_gib": peak, "cpu_s": time.process_time()}))


if __name__ == "__main__":
    main()
