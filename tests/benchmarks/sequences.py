"""How many requests for a user's last 100 actions are answered a CPU second, over pandas' `merge_asof`.

    python -m tests.benchmarks.sequences              2M actions, 300k requests: half a minute
    python -m tests.benchmarks.sequences --actions 10000000 --requests 1000000 --users 200000

What a training set asks for: of every impression, the user's last 100 actions strictly before it. Actions and
impressions come in time order, as the lake keeps them; users are as unequal as people are, and some impressions
are at the very time of an action, which then must not be seen. Both sides answer with the rows of each slice
(start, end) among actions grouped by user, and must agree on every one. `slice_vs_merge_asof` compares the
answers alone, after each side has made what it needs of the actions once; `*_with_grouping` counts that too.
One thread, CPU seconds, medians of turns. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from typing import NamedTuple

import numpy as np
import pandas as pd

from feature_repo.sequence import SEQUENCE_LENGTH, SequenceLog
from tests.benchmarks.measuring import in_turns

GOALS = {"slice_vs_merge_asof": 10.0}
DAYS_MS = 28 * 86_400_000
END_MS = 1_760_000_000_000


class Planted(NamedTuple):
    """Actions and requests in time order; ids from 1, times Unix ms."""

    actions: dict[str, np.ndarray]
    user_ids: np.ndarray  # (q,)
    times_ms: np.ndarray  # (q,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actions", type=int, default=2_000_000)
    parser.add_argument("--requests", type=int, default=300_000)
    parser.add_argument("--users", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    planted = plant(args.actions, args.requests, args.users, args.seed)
    log, frame = SequenceLog.from_columns([planted.actions]), grouped(planted)
    asked = requests(planted)
    sides = {
        "slice": lambda: log.slice(planted.user_ids, planted.times_ms),
        "merge_asof": lambda: merged(frame, asked),
        "grouping and slice": lambda: SequenceLog.from_columns([planted.actions]).slice(
            planted.user_ids, planted.times_ms
        ),
        "grouping and merge_asof": lambda: merged(grouped(planted), requests(planted)),
    }
    spent, made = in_turns(sides, args.rounds)
    for name, slices in made.items():
        if not agree(slices, made["merge_asof"]):
            raise SystemExit(f"{name} and merge_asof answer differently")
    cost = {name: statistics.median(times) for name, times in spent.items()}
    length = float(np.mean(made["slice"][1] - made["slice"][0]))
    print(
        f"{args.actions:,} actions of {args.users:,} users, {args.requests:,} requests, {length:.1f} actions a "
        f"slice; load {os.getloadavg()[0]:.1f}\n\n| | CPU s | requests a CPU second |\n|---|---|---|"
    )
    for name, seconds in cost.items():
        print(f"| {name} | {seconds:.4f} | {args.requests / seconds:,.0f} |")
    whole = cost["grouping and merge_asof"] / cost["grouping and slice"]
    out = {
        "slice_vs_merge_asof": round(cost["merge_asof"] / cost["slice"], 2),
        "slice_vs_merge_asof_with_grouping": round(whole, 2),
        "requests_per_cpu_s": round(args.requests / cost["slice"]),
    }
    goals = {key: f">= {goal}: {'met' if out[key] >= goal else 'MISSED'}" for key, goal in GOALS.items()}
    print("\n" + json.dumps(out | {"goals": goals}))


def plant(actions: int, requests: int, users: int, seed: int) -> Planted:
    """Users with shares of a log-normal; a tenth of the requests at the time of one of the user's actions."""
    rng = np.random.default_rng(seed)
    share = rng.lognormal(0, 1.2, users)
    share /= share.sum()

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        at = np.sort(END_MS - rng.integers(1, DAYS_MS, count))
        return rng.choice(users, count, p=share) + 1, at

    own, times = drawn(actions)
    columns = {
        "user_ids": own,
        "event_ids": np.arange(1, actions + 1),
        "pin_ids": rng.integers(1, 1_000_000, actions),
        "actions": rng.integers(1, 6, actions).astype(np.int8),
        "surfaces": np.ones(actions, np.int8),
        "timestamps_ms": times,
        "durations_s": np.zeros(actions, np.float32),
    }
    asked, at = drawn(requests)
    same = rng.choice(requests, requests // 10, replace=False)
    twins = rng.integers(0, actions, len(same))
    asked[same], at[same] = own[twins], times[twins]
    order = np.argsort(at, kind="stable")
    return Planted(columns, asked[order], at[order])


def grouped(planted: Planted) -> pd.DataFrame:
    """Actions in time order with their row among those grouped by user, and the first row of their user."""
    frame = pd.DataFrame({n: planted.actions[n] for n in ("user_ids", "timestamps_ms")})
    count = frame.groupby("user_ids").size()
    first = frame["user_ids"].map(count.cumsum() - count)
    frame["row"] = first + frame.groupby("user_ids").cumcount()
    frame["first"] = first
    return frame


def requests(planted: Planted) -> pd.DataFrame:
    return pd.DataFrame({"user_ids": planted.user_ids, "timestamps_ms": planted.times_ms})


def merged(frame: pd.DataFrame, asked: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(start, end) of every request as `SequenceLog.slice` gives them, by an as-of join."""
    found = pd.merge_asof(asked, frame, on="timestamps_ms", by="user_ids", allow_exact_matches=False)
    end = found["row"].to_numpy() + 1
    start = np.maximum(found["first"].to_numpy(), end - SEQUENCE_LENGTH)
    none = np.isnan(end)
    return np.where(none, 0, start).astype(np.int64), np.where(none, 0, end).astype(np.int64)


def agree(slices: tuple[np.ndarray, np.ndarray], others: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether every slice is the same, wherever an empty one may stand."""
    same = (slices[0] == others[0]) & (slices[1] == others[1])
    return bool((same | ((slices[0] == slices[1]) & (others[0] == others[1]))).all())


if __name__ == "__main__":
    main()
