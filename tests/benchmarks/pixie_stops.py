"""What Pixie's early stop keeps of the long walk, and what it spends, on a home's pin-board graph.

    make bench NAME=pixie_stops ARGS='--home H'

A query is one pin, drawn by its saves. Beside the overlap of the best 100 on the same random numbers: that of
walks on different ones, a stopped one with a long one and two long ones, which is all that can be asked of a
stopped one. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from training.data.graph import GraphConfig, build_graph
from training.models.pin_board_graph import PinBoardGraph
from training.models.pixie import Pixie, PixieConfig, Query
from validation.lake import Lake

BEST = 100
STOPS = ((100, 20), (500, 4), (2_000, 4))
"""Pins and visits to stop at: `PixieConfig`'s, one of fewer visits, and the paper's."""
COLUMNS = ("stops at", f"overlap of the best {BEST}", "other numbers", "two long walks", "steps", "CPU time")


@dataclass(frozen=True)
class EarlyStop:
    """Means over queries that find something; `error` is half the 95 % interval over them."""

    overlap: float
    """Of the best `BEST` with those of the long walk on the same random numbers."""
    error: float
    other: float
    """The same where each walk has its own."""
    repeat: float
    """Overlap of two long walks, each on its own."""
    time: float
    """Share of the long walk's CPU time."""
    steps: float
    """Share of its steps."""


def early_stop(graph: PinBoardGraph, config: PixieConfig, queries: int) -> EarlyStop:
    """The walk of `config` against the same that never stops early, from pins drawn by saves."""
    long = Pixie(graph, config.model_copy(update={"stop_pins": 0}))
    short = Pixie(graph, config)
    pins = graph.ids_of(np.random.default_rng(3).choice(np.asarray(graph.rows.board_pins), queries))
    overlaps, spent, taken = [], [0.0, 0.0], []
    for i, pin in enumerate(pins):
        query = Query.of(np.array([pin]))
        for pixie in (long, short):
            pixie.recommend(query, BEST, seed=i)
        spent[0] += cpu(lambda q=query, i=i: long.visits(q, seed=i))
        spent[1] += cpu(lambda q=query, i=i: short.visits(q, seed=i))
        full = long.recommend(query, BEST, seed=i)
        stopped = short.recommend(query, BEST, seed=i)
        taken.append(stopped.steps / full.steps)
        others = [pixie.recommend(query, BEST, seed=i + 10_000) for pixie in (short, long)]
        if len(full):
            overlaps.append([np.isin(full.pin_ids, walk.pin_ids).mean() for walk in (stopped, *others)])
    overlap, other, repeat = np.mean(overlaps, axis=0).tolist()
    return EarlyStop(
        overlap=overlap,
        error=float(1.96 * np.std(overlaps, axis=0)[0] / len(overlaps) ** 0.5),
        other=other,
        repeat=repeat,
        time=spent[1] / spent[0],
        steps=float(np.mean(taken)),
    )


def cpu(run: Callable[[], object]) -> float:
    """CPU seconds of this process for one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=300)
    options = parser.parse_args()
    graph = build_graph(Lake(options.home / "lake"), GraphConfig())
    print(f"{graph.pins:,} pins, {graph.boards:,} boards, {graph.edges:,} edges\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    results = {}
    for pins, visits in STOPS:
        found = early_stop(graph, PixieConfig(stop_pins=pins, stop_visits=visits), options.queries)
        overlaps = f"{found.overlap:.3f} ± {found.error:.3f} | {found.other:.3f} | {found.repeat:.3f}"
        print(f"| {pins:,} pins of {visits} visits | {overlaps} | {found.steps:.2f} | {found.time:.2f} |")
        results[f"{pins} of {visits}"] = asdict(found)
    print(json.dumps({"home": options.home.name, "pins": graph.pins, "edges": graph.edges, **results}))


if __name__ == "__main__":
    main()
