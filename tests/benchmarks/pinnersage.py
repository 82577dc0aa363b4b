"""How fast PinnerSage clusters users, beside scipy, fastcluster and the distance matrix all of them need.

    python -m tests.benchmarks.pinnersage               about 3 minutes
    python -m tests.benchmarks.pinnersage --rounds 5    a quick look

A user has m distinct pins of 256 dimensions in m / 25 topics. Ours is the day's batch: gathering the vectors,
distances, Ward, cut, medoids and importances; the others do linkage and cut alone, of vectors already gathered.
All are checked to give one partition, run in one thread and in interleaved rounds, and are timed by process
CPU time; ratios are medians over rounds. The floor is a float32 distance matrix by BLAS (`x @ x.T`) and one
compiled pass over it. fastcluster is optional: `pip install fastcluster`, or its keys are null. The last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from threadpoolctl import threadpool_info, threadpool_limits

from training.models.interest_clusters import Limits, Workspace, cluster_users, ward_labels
from training.models.pinnersage import (
    MS_PER_DAY,
    Histories,
    History,
    PinnerSageConfig,
    recent_interests,
    users_interests,
)

GOALS = {
    "vs_scipy_200": (">=", 8.0),
    "vs_scipy_1000": (">=", 8.0),
    "vs_fastcluster_200": (">=", 6.5),
    "vs_fastcluster_1000": (">=", 6.5),
    "over_floor_1000": ("<=", 1.7),
    "online_ms": ("<=", 1.0),
}
SIZES = {20: 400, 50: 200, 200: 100, 1000: 6, 3000: 1}
"""Users a round, by pins a user."""
PEERS = ("scipy", "fastcluster")
DIM = 256
NOW = 20_000 * MS_PER_DAY
ALPHA = 1.0
Floats = NDArray[np.float32]


def users_of(m: int, count: int, seed: int) -> Histories:
    """`count` users with m pins each, over 60 days."""
    rng = np.random.default_rng(seed)
    vectors = []
    for _ in range(count):
        centres = rng.standard_normal((max(2, m // 25), DIM))
        pins = centres[rng.integers(0, len(centres), m)] + 0.5 * rng.standard_normal((m, DIM))
        vectors.append(pins / np.linalg.norm(pins, axis=1, keepdims=True))
    times = np.sort(NOW - rng.integers(1, 60 * MS_PER_DAY, (count, m)), axis=1)
    rows = np.concatenate([rng.permutation(m) + u * m for u in range(count)])
    offsets = np.arange(count + 1) * m
    return Histories(offsets, rows + 1, rows, times.ravel(), np.concatenate(vectors).astype(np.float32))


@numba.njit
def one_pass(gram: Floats) -> None:
    """Gram matrix to squared distances, in place."""
    m = gram.shape[0]
    squares = np.empty(m, np.float32)
    for i in range(m):
        squares[i] = gram[i, i]
    for i in range(m):
        row = gram[i]
        for j in range(m):
            row[j] = squares[i] + squares[j] - np.float32(2.0) * row[j]


def floor(x: Floats) -> None:
    one_pass(x @ x.T)


def cpu(run: Callable[[], object]) -> float:
    """CPU seconds of this process for one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def fastcluster_linkage() -> Callable[..., Any] | None:
    """fastcluster's `linkage`, or None where it is not installed."""
    try:
        import fastcluster
    except ImportError:  # optional: the rows and keys say that it is absent
        return None
    return fastcluster.linkage


def speeds(m: int, count: int, rounds: int) -> dict[str, NDArray[np.float64]]:
    """CPU ms a user of each side, in each of the interleaved rounds."""
    users = users_of(m, count, seed=m)
    limits = Limits(0, NOW, NOW, decay_per_day=0.01, alpha=ALPHA, actions=m, pins=m, interests=50)
    space = Workspace.of(m, DIM)
    points = [
        users.vectors[users.rows[a:b]] for a, b in zip(users.offsets[:-1], users.offsets[1:], strict=True)
    ]
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: cluster_users(
            users.pin_ids, users.vectors, users.rows, users.times_ms, users.offsets, limits, space
        ),
        "scipy": lambda: [fcluster(linkage(x, "ward"), ALPHA, "distance") for x in points],
        "floor": lambda: [floor(x) for x in points],
    }
    peer = fastcluster_linkage()
    if peer is not None:
        runs["fastcluster"] = lambda: [fcluster(peer(x, "ward"), ALPHA, "distance") for x in points]
    for x in points:
        theirs = fcluster(linkage(x.astype(np.float64), "ward"), np.sqrt(ALPHA), "distance")
        if not np.array_equal(first_members(theirs), first_members(ward_labels(x, ALPHA))):
            raise AssertionError(f"a user of {m} pins has another partition than scipy's")
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(cpu(run) / count)
    return {name: np.array(times) * 1e3 for name, times in seconds.items()}


def first_members(labels: NDArray[Any]) -> NDArray[np.int64]:
    """A partition named by each cluster's first member."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first[inverse]


def ratio(took: dict[str, NDArray[np.float64]], name: str) -> float | None:
    """How many times as long as ours `name` takes: the median over rounds."""
    return float(np.median(took[name] / took["ours"])) if name in took else None


def online(calls: int) -> tuple[float, float]:
    """CPU ms of one online run over 20 actions: median and 99th percentile."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((calls, 20, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    now, times = NOW + MS_PER_DAY // 2, NOW + np.arange(20) * 1000
    config, ids = PinnerSageConfig(alpha=ALPHA), np.arange(1, 21)
    took = [cpu(lambda x=x: recent_interests(History(ids, x, times), now, config)) * 1e3 for x in vectors]
    return float(np.median(took[10:])), float(np.percentile(took[10:], 99))


def scaling(rounds: int) -> tuple[float, float, int]:
    """Wall-clock gain of two threads over one, the same for a loop that shares nothing (what the machine had to
    give at that moment), and users per CPU second, over users whose pins are lognormal (mean about 250).
    """
    rng = np.random.default_rng(9)
    sizes = np.clip(rng.lognormal(5.0, 1.0, 400), 1, 1000).astype(np.int64)
    pool = users_of(1000, 4, seed=1)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.concatenate([rng.permutation(4000)[:size] for size in sizes])
    times = np.concatenate([np.sort(NOW - rng.integers(1, 60 * MS_PER_DAY, size)) for size in sizes])
    users = Histories(offsets, rows + 1, rows, times, pool.vectors)
    config = PinnerSageConfig(alpha=ALPHA)
    gains, bound, used = [], [], []

    def spin_many(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(spin, [200_000_000 // threads] * threads))

    spin(10)
    for _ in range(rounds):
        walls = {}
        for threads in (1, 2):
            start, busy = time.perf_counter(), time.process_time()
            users_interests(users, NOW, config, threads=threads)
            walls[threads] = time.perf_counter() - start
            if threads == 1:
                used.append(time.process_time() - busy)
            start = time.perf_counter()
            spin_many(threads)
            walls[-threads] = time.perf_counter() - start
        gains.append(walls[1] / walls[2])
        bound.append(walls[-1] / walls[-2])
    return float(np.median(gains)), float(np.median(bound)), round(len(users) / float(np.median(used)))


@numba.njit(nogil=True)
def spin(steps: int) -> float:
    """Arithmetic without memory."""
    x = 1.0
    for _ in range(steps):
        x = x * 0.999999 + 1e-9
    return x


def line(m: int, *values: float | None) -> str:
    """One row of the table."""
    widths = (22, 10, 10, 11, 12, 10, 16)
    shown = ("-" if value is None else f"{value:.3f}" for value in values)
    return f"{m:>6}" + "".join(f"{text:>{width}}" for text, width in zip(shown, widths, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    libraries = {f"{i['prefix']} {i.get('version')} {i.get('architecture', '')}" for i in threadpool_info()}
    print(f"machine   load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {', '.join(sorted(libraries))}")
    print(f"          OPENBLAS_CORETYPE {os.environ.get('OPENBLAS_CORETYPE', 'unset')}, BLAS on one thread\n")
    results: dict[str, float | None] = {}
    print("  pins   CPU ms a user: ours     floor     scipy  fastclus.  over floor  vs scipy  vs fastcluster")
    with threadpool_limits(1):
        for m, count in SIZES.items():
            took = speeds(m, count, options.rounds if m < 3000 else 3)
            over = 1 / (ratio(took, "floor") or 1.0)
            shown = [float(np.median(took[n])) if n in took else None for n in ("ours", "floor", *PEERS)]
            print(line(m, *shown, over, *(ratio(took, peer) for peer in PEERS)))
            results |= {f"vs_{peer}_{m}": ratio(took, peer) for peer in PEERS}
            results[f"over_floor_{m}"] = over
        if fastcluster_linkage() is None:
            print("       fastcluster is not installed: pip install fastcluster")
        middle, late = online(1_000)
        gain, bound, speed = scaling(5)
    results["online_ms"] = middle
    print(f"\nonline     a run over 20 actions: {middle:.3f} CPU ms, p99 {late:.3f}")
    print(f"batch      {speed:,} users a CPU second (lognormal pins, mean 250, at most 1000)")
    print(f"threads    two are {gain:.2f} x one; a loop without memory gains {bound:.2f} x beside this load\n")
    for key, (sign, goal) in GOALS.items():
        value = results[key]
        met = value is not None and (value >= goal if sign == ">=" else value <= goal)
        text = "missing" if value is None else f"{value:8.2f}"
        print(f"  {key:<20}{text}   goal {sign} {goal:.2f}   {'met' if met else 'MISSED'}")
    row = {key: None if results[key] is None else round(float(results[key] or 0), 3) for key in GOALS}
    print(json.dumps({**row, "threads_2": round(gain, 3), "threads_2_bound": round(bound, 3)}))


if __name__ == "__main__":
    main()
