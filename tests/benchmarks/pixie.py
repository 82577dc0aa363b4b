"""How fast Pixie walks, as ratios to what else could have been used, all measured in one run.

    python -m tests.benchmarks.pixie                 10M edges, about 4 minutes
    python -m tests.benchmarks.pixie --edges 50e6    50M edges, about 12 minutes and 6 GiB

Both sides walk the same arrays under the same settings, interleaved round by round, one thread, and are timed
by process CPU time, on a shared machine the one that counts only what was done here. The graph has lognormal
degrees and no communities, the worst case for a cache; early stopping is also measured on one with
communities, since what it saves depends on them. The last line is one JSON object. igraph is optional: `pip
install igraph`, or its key is null.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from operator import getitem
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.pixie_stops import cpu, early_stop
from training.models.pin_board_graph import PinBoardGraph, from_codes
from training.models.pixie import Pixie, PixieConfig, Query, importance_neighbours

GOALS = {
    "steps_vs_scalar": (">=", 8.0),
    "steps_vs_numpy": (">=", 3.0),
    "steps_vs_igraph": (">=", 35.0),
    "over_floor": ("<=", 1.8),
    "query_p99_ms": ("<=", 25.0),
    "early_stop_overlap": (">=", 0.84),
    "early_stop_time": ("<=", 1 / 3),
}
CHASES = 32
COMMUNITY_EDGES = 5_000
"""Edges of a community in the clustered graph: 500 pins on 200 boards."""


NAMES = {
    "pixie": "pixie, visits counted",
    "scalar": "one numba walker, visits counted",
    "numpy": "numpy, 1,000 walkers at once, visits counted",
    "fancy numpy": "the same with array[places] for array.take",
    "igraph": "igraph random_walk (no restart, no counts)",
    "floor": f"floor: {CHASES} interleaved chases, 4 reads a step",
    "one chain": "one chase, 4 reads a step",
}


def random_graph(edges: int, seed: int, communities: int = 0, within: float = 0.8) -> PinBoardGraph:
    """edges / 10 pins and edges / 25 boards with lognormal popularity; `within` of the edges stay in a
    community.
    """
    rng = np.random.default_rng(seed)
    pins = _ends(rng, edges // 10, edges)
    boards = _ends(rng, edges // 25, edges)
    rng.shuffle(boards)
    if communities:
        # a node's community is its index modulo `communities`: moving an end there keeps its popularity
        moved = rng.random(edges) < within
        nearest = boards[moved] - boards[moved] % communities + pins[moved] % communities
        boards[moved] = np.minimum(nearest, edges // 25 - 1)
    ids = [np.arange(1, n + 1, dtype=np.int64) for n in (edges // 10, edges // 25)]
    return from_codes(pins, boards, ids[0], ids[1])


def _ends(rng: np.random.Generator, nodes: int, edges: int) -> NDArray[np.int32]:
    weight = rng.lognormal(0.0, 1.2, nodes)
    copies = np.maximum(np.round(weight / weight.sum() * edges), 1).astype(np.int64)
    ends = np.repeat(np.arange(nodes, dtype=np.int32), copies)[:edges]
    return np.concatenate([ends, rng.integers(0, nodes, edges - len(ends)).astype(np.int32)])


@numba.njit(nogil=True)
def scalar_walk(rows, pin, steps, restart, counts, touched, seed):
    """The walk as the paper writes it: one walker, plain random numbers, a dense counter."""
    np.random.seed(seed)
    at, distinct = pin, 0
    for _ in range(steps):
        if np.random.random() < restart:
            at = pin
        start = rows.pin_offsets[at]
        board = rows.pin_boards[start + np.random.randint(rows.pin_offsets[at + 1] - start)]
        start = rows.board_offsets[board]
        at = rows.board_pins[start + np.random.randint(rows.board_offsets[board + 1] - start)]
        if counts[at] == 0:
            touched[distinct] = at
            distinct += 1
        counts[at] += 1
    for i in range(distinct):
        counts[touched[i]] = 0
    return distinct


def taken(array: NDArray[np.int32], places: NDArray[np.integer]) -> NDArray[np.int32]:
    """`array[places]` in numpy's fastest form, whose mode spares it a copy and the naming of a wrong place."""
    return array.take(places, mode="clip")


def numpy_walk(rows, pin: int, steps: int, restart: float, walkers: int, seed: int, read=taken) -> int:
    """All walkers a step at a time; visits are counted at the end."""
    rng = np.random.default_rng(seed)
    at = np.full(walkers, pin, np.int32)
    log = np.empty((steps // walkers, walkers), np.int32)
    for i in range(len(log)):
        draws = rng.random((3, walkers), np.float32)
        at = np.where(draws[0] < restart, np.int32(pin), at)
        at = _stepped(read, rows.pin_offsets, rows.pin_boards, at, draws[1])
        at = _stepped(read, rows.board_offsets, rows.board_pins, at, draws[2])
        log[i] = at
    return len(np.unique(log, return_counts=True)[0])


def _stepped(read, offsets, ends, nodes: NDArray[np.int32], draws: NDArray[np.float32]) -> NDArray[np.int32]:
    """A random end of each node."""
    place = nodes.astype(np.intp)
    start = read(offsets, place)
    degree = read(offsets, place + 1) - start
    return read(ends, start + (draws * degree).astype(np.int32))


@numba.njit(nogil=True)
def chase(following, chains, reads, first):
    """Follow `chains` interleaved pointer chains for `reads` dependent reads in all."""
    at = np.empty(chains, np.int32)
    for c in range(chains):
        at[c] = (first + c * 7919) % len(following)
    for _ in range(reads // chains):
        for c in range(chains):
            at[c] = following[at[c]]
    return at.sum()


@numba.njit(nogil=True)
def one_cycle(n, seed):
    """A random permutation that is a single cycle (Sattolo): where a pointer chase never falls into a short
    loop.
    """
    np.random.seed(seed)
    following = np.arange(n).astype(np.int32)
    for i in range(n - 1, 0, -1):
        j = np.random.randint(i)
        following[i], following[j] = following[j], following[i]
    return following


def igraph_graph(graph: PinBoardGraph) -> Any:
    """The same graph in igraph, or None where igraph is not installed."""
    try:
        import igraph
    except ImportError:
        return None
    pins, boards = graph.edge_list()
    edges = np.empty((graph.edges, 2), np.int64)
    edges[:, 0], edges[:, 1] = pins, boards
    edges[:, 1] += graph.pins
    return igraph.Graph(n=graph.pins + graph.boards, edges=edges, directed=False)


def speeds(graph: PinBoardGraph, steps: int, restart: float, rounds: int) -> dict[str, NDArray[np.float64]]:
    """CPU seconds per step of each walker, and of the floor's four reads, in each of the interleaved rounds."""
    rows = graph.rows
    pixie = Pixie(graph, PixieConfig(steps=steps, restart=restart, stop_pins=0))
    counts, touched = np.zeros(graph.pins, np.int32), np.empty(steps + 1, np.int32)
    csr = (rows.pin_offsets, rows.pin_boards, rows.board_offsets, rows.board_pins)
    following = np.array(
        one_cycle(sum(a.nbytes for a in csr) // 4, 1)
    )  # copied: on huge pages, as the graph is
    peer = igraph_graph(graph)
    pins = np.random.default_rng(5).choice(np.flatnonzero(graph.degrees() > 0), 64)
    queries = [Query.of(graph.ids_of(np.array([pin]))) for pin in pins]
    many = 1_000  # ten mean walks each at restart 0.1; more are faster, and truncate more of their walks
    runs: dict[str, tuple[int, Callable[[int], object]]] = {
        "pixie": (steps * 16, lambda r: [pixie.visits(q, seed=r) for q in queries[:16]]),
        "scalar": (
            steps * 2,
            lambda r: [scalar_walk(rows, p, steps, restart, counts, touched, r) for p in pins[:2]],
        ),
        "numpy": (steps * 4, lambda r: [numpy_walk(rows, p, steps, restart, many, r) for p in pins[:4]]),
        "fancy numpy": (
            steps * 4,
            lambda r: [numpy_walk(rows, p, steps, restart, many, r, getitem) for p in pins[:4]],
        ),
        "floor": (steps * 8, lambda r: chase(following, CHASES, 4 * 8 * steps, r * 104729)),
        "one chain": (steps, lambda r: chase(following, 1, 4 * steps, r * 104729)),
    }
    if peer is not None:
        runs["igraph"] = (steps // 2, lambda r: peer.random_walk(int(pins[r % 64]), steps))
    for _, run in runs.values():
        run(0)  # compile, touch
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for r in range(rounds):
        for name, (count, run) in runs.items():
            seconds[name].append(cpu(lambda run=run, r=r: run(r)) / count)
    return {name: np.array(times) for name, times in seconds.items()}


def ratio(seconds: dict[str, NDArray[np.float64]], name: str) -> float | None:
    """How many times as long as Pixie's a step of `name` takes: the median over rounds, since load drifts."""
    return float(np.median(seconds[name] / seconds["pixie"])) if name in seconds else None


def latency(graph: PinBoardGraph, steps: int, restart: float, queries: int) -> NDArray[np.float64]:
    """(CPU, wall) milliseconds of whole queries (walk without early stop, boost, top 1000) of 1 to 20 pins."""
    pixie = Pixie(graph, PixieConfig(steps=steps, restart=restart, stop_pins=0))
    rng = np.random.default_rng(11)
    saved = np.asarray(graph.rows.board_pins)
    times = []
    for i in range(queries + 10):
        query = Query.of(graph.ids_of(rng.choice(saved, rng.integers(1, 21))))
        wall = time.perf_counter()
        used = cpu(lambda query=query, i=i: pixie.recommend(query, 1000, seed=i))
        times.append((used * 1e3, (time.perf_counter() - wall) * 1e3))
    return np.array(times[10:])


def mapped_ratio(graph: PinBoardGraph, steps: int, restart: float, rounds: int) -> float:
    """CPU time of a walk on the mapped artifact (4 KB pages) over that on the arrays in memory."""
    with tempfile.TemporaryDirectory() as folder:
        graph.save(Path(folder) / "graph")
        mapped = PinBoardGraph.load(Path(folder) / "graph")
        config = PixieConfig(steps=steps, restart=restart, stop_pins=0)
        pins = graph.ids_of(np.random.default_rng(6).choice(np.asarray(graph.rows.board_pins), 16))
        seconds: tuple[list[float], list[float]] = ([], [])
        for r in range(rounds + 1):
            for place, pixie in enumerate((Pixie(graph, config), Pixie(mapped, config))):
                used = cpu(lambda p=pixie, r=r: [p.visits(Query.of(np.array([q])), seed=r) for q in pins])
                seconds[place].append(used)
        return statistics.median(seconds[1][1:]) / statistics.median(seconds[0][1:])


def neighbour_speed(graph: PinBoardGraph) -> float:
    """Seeds per CPU second of 200 walks of 2 hops, 50 neighbours kept."""
    seeds = np.random.default_rng(2).choice(np.flatnonzero(graph.degrees() > 0), 5_000).astype(np.int32)
    importance_neighbours(graph, seeds[:10])
    return len(seeds) / cpu(lambda: importance_neighbours(graph, seeds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=float, default=10e6)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument(
        "--restart", type=float, default=0.1, help="of the speed rows; 0.5 is easier on the cache"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--queries", type=int, default=1_000)
    options = parser.parse_args()
    edges = int(options.edges)

    start = time.process_time()
    graph = random_graph(edges, seed=0)
    built = time.process_time() - start
    print(f"graph     {graph.pins:,} pins, {graph.boards:,} boards, {graph.edges:,} edges, ", end="")
    print(f"{graph.nbytes / 2**20:.0f} MB, made in {built:.1f} CPU s, peak {peak_gib():.1f} GiB")
    print(f"machine   load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    took = speeds(graph, options.steps, options.restart, options.rounds)
    print(f"\nwalks of {options.steps:,} steps, restart {options.restart}      M steps/CPU s    pixie is")
    for name, seconds in took.items():
        print(f"  {NAMES[name]:<50}{1e-6 / np.median(seconds):8.2f}    {ratio(took, name):8.2f} x")
    if "igraph" not in took:
        print("  igraph is not installed: pip install igraph")
    times = latency(graph, options.steps, options.restart, options.queries)
    (p50, wall50), (p99, wall99) = np.percentile(times, (50, 99), axis=0)
    print(f"\nquery      {options.steps:,} steps of 1-20 pins, top 1000: ", end="")
    print(f"p50 {p50:.1f}, p99 {p99:.1f} CPU ms (wall, beside this load: {wall50:.1f} and {wall99:.1f})")
    mapped = mapped_ratio(graph, options.steps, options.restart, 5)
    print(f"mapped     a walk on the mapped artifact costs {mapped:.2f} x the CPU time")
    print(f"neighbours {neighbour_speed(graph):,.0f} seeds/CPU s (200 walks x 2 hops, T = 50)")

    stops = PixieConfig(steps=options.steps)
    print(f"\nearly stop at {stops.stop_pins} pins of {stops.stop_visits} visits, restart {stops.restart}")
    print(f"  {'graph':<20}{'overlap of top 100':>20}{'time':>8}{'steps':>8}{'two long walks overlap':>25}")
    plain = early_stop(graph, stops, 100)
    del graph
    clustered = early_stop(random_graph(edges, seed=1, communities=edges // COMMUNITY_EDGES), stops, 100)
    for name, row in (("no communities", plain), ("communities", clustered)):
        print(f"  {name:<20}{row.overlap:20.2f}{row.time:8.2f}{row.steps:8.2f}{row.repeat:25.2f}")

    results = {
        "steps_vs_scalar": ratio(took, "scalar"),
        "steps_vs_numpy": ratio(took, "numpy"),
        "steps_vs_igraph": ratio(took, "igraph"),
        "over_floor": 1 / ratio(took, "floor"),
        "query_p99_ms": float(p99),
        "early_stop_overlap": clustered.overlap,
        "early_stop_time": clustered.time,
    }
    print()
    for key, value in results.items():
        sign, goal = GOALS[key]
        met = value is not None and (value >= goal if sign == ">=" else value <= goal)
        shown = "missing" if value is None else f"{value:8.2f}"
        print(f"  {key:<20}{shown}   goal {sign} {goal:.2f}   {'met' if met else 'MISSED'}")
    print(json.dumps({k: None if v is None else round(v, 3) for k, v in results.items()}))


def peak_gib() -> float:
    """Highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
