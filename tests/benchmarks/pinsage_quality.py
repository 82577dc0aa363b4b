"""What PinSage's vectors are worth: every rung from content to PinSage, and its online source.

    python -m tests.benchmarks.pinsage_quality                     a fresh demo world, about 12 CPU minutes
    python -m tests.benchmarks.pinsage_quality --home H            a home's lake, planted truth where it has one
    python -m tests.benchmarks.pinsage_quality --users 300 --pins 2000 --days 14 --seeds 7   a quick look
    python -m tests.benchmarks.pinsage_quality --sizes 2000,8000,32000,128000
                       importance pooling by size of catalogue (pinsage_sizes.py)

Pairs of the last week are held out; training sees the graph as it stood before its own pairs. The world's seed
is not the one that settings were chosen on. Spread is the standard deviation over the seeds of the networks.
The last line is one JSON object; --figure FILE.png draws the table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.benchmarks import pinsage_sizes
from tests.benchmarks.pinsage_sources import SourceRow, compare_sources, sources_markdown
from training.cpu import tune_cpu
from training.data.splits import midnight
from training.data.world import simulate
from training.data.world_config import WorldConfig
from training.data.world_truth import WorldTruth
from training.models.content import ContentConfig, ContentEncoder
from training.models.pinsage import Rung
from training.pinsage.ladder import Ladder, climb
from training.pipelines.content import catalogue, pin_frames, topic_parents
from training.pipelines.figures import BLUE, GREY, RED
from training.pipelines.pinsage_world import PinSagePipeline, read_world
from validation.ingest import ingest
from validation.lake import Lake

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HIT, MRR = "hit_rate_at_50", "scaled_mrr"
WORLD_SEED = 2031
"""Settings were chosen on worlds of seed 7."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="a home whose lake is read; default: a world is made")
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--pins", type=int, default=12_000)
    parser.add_argument("--days", type=int, default=35)
    parser.add_argument("--world-seed", type=int, default=WORLD_SEED)
    parser.add_argument("--seeds", default="7,8,9", help="of the networks")
    parser.add_argument("--rungs", default=",".join(Rung), help="some of them, for a run that is cut in pieces")
    parser.add_argument("--figure", type=Path)
    parser.add_argument(
        "--sizes", help="catalogue sizes, as 2000,8000: compare poolings on planted boards instead"
    )
    args = parser.parse_args()
    tune_cpu(threads=1)
    seeds = tuple(int(seed) for seed in args.seeds.split(","))
    if args.sizes:
        results, figure = pinsage_sizes.run(tuple(int(n) for n in args.sizes.split(",")), seeds)
    else:
        with tempfile.TemporaryDirectory() if args.home is None else nullcontext(args.home) as folder:
            if args.home is None:
                _make_home(Path(folder), args)
            results, figure = measure(Path(folder), tuple(map(Rung, args.rungs.split(","))), seeds)
    if args.figure is not None:
        figure.savefig(args.figure, dpi=150)
    print(json.dumps(results))


def measure(home: Path, rungs: tuple[Rung, ...], seeds: tuple[int, ...]) -> tuple[dict[str, Any], Figure]:
    """The rungs, and the online sources where the home's lake has planted truth beside it."""
    lake, begin = Lake(home / "lake"), time.process_time()
    encoder = ContentEncoder.fit(pin_frames(lake), ContentConfig(), topic_parents(lake))
    pins = catalogue(lake, encoder)
    config = PinSagePipeline().fitted_to(len(pins.ids))
    end = midnight(lake.interval()[1])
    world = read_world(lake, pins, end, config, print, uniform=True)
    print(f"{len(pins.ids):,} pins; {config}; read in {time.process_time() - begin:.0f} CPU s\n", flush=True)
    begin = time.process_time()
    kept: dict[int, Any] = {}
    ladder = climb(
        world,
        config.network,
        config.training,
        rungs=rungs,
        seeds=seeds,
        progress=lambda line: print(f"  {line}, {time.process_time() - begin:.0f} CPU s so far", flush=True),
        keep=lambda rung, seed, vectors: kept.update({seed: vectors}) if rung is config.rung else None,
    )
    print(f"\n{ladder.markdown()}\n", flush=True)
    results = _rung_results(ladder, config.rung or Rung.PINSAGE)
    truth = home / "datasets" / "demo-world" / "truth"
    if truth.exists():
        spaces = {f"pinsage, seed {seed}": vectors for seed, vectors in kept.items()}
        cut = end - timedelta(days=config.held_out_days)
        rows = compare_sources(lake, WorldTruth(truth), pins, spaces, cut, end)
        print(sources_markdown(rows))
        results |= _source_results(rows)
    return results, _figure(ladder)


def _rung_results(ladder: Ladder, served: Rung) -> dict[str, Any]:
    results: dict[str, Any] = {
        "hit_rate_at_50": {row.name: round(row.mean(HIT), 4) for row in ladder.rows},
        "scaled_mrr": {row.name: round(row.mean(MRR), 4) for row in ladder.rows},
    }
    compared = {
        "served_over_content": (served, Rung.CONTENT),
        "importance_pooling": (Rung.IMPORTANCE, Rung.MEAN),
        "hard_negatives": (Rung.PINSAGE, Rung.IMPORTANCE),
    }
    for key, (of, over) in compared.items():
        if {over, of} <= {row.name for row in ladder.rows}:
            margin, spread = ladder.margin(HIT, over=over, of=of)
            results[key] = {"margin": round(margin, 4), "spread": round(spread, 4), "beyond": margin > spread}
    return results


def _source_results(rows: list[SourceRow]) -> dict[str, Any]:
    """Of each way to retrieve, the planted shares at the alpha that PinnerSage itself would choose."""
    return {"sources": {row.name: row.named() for row in rows}}


def _make_home(home: Path, args: argparse.Namespace) -> None:
    config = WorldConfig(
        users=args.users,
        pins=args.pins,
        days=args.days,
        seed=args.world_seed,
        end=datetime(2026, 3, 2).date(),
        images=False,
    )
    paths = simulate(home / "datasets" / "demo-world", config)
    ingest(paths.tables, home / "lake", home / "quarantine", home / "reports", checkpoint=False)
    print(f"a world of seed {config.seed}: {config.users:,} users, {config.pins:,} pins, {config.days} days")


def _figure(ladder: Ladder) -> Figure:
    """Hit rate and scaled MRR of every rung, with the spread over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [row.name for row in ladder.rows][::-1]
    colours = [
        RED if name in (Rung.IMPORTANCE, Rung.PINSAGE) else BLUE if name in set(Rung) else GREY
        for name in names
    ]
    for axes, metric, title in ((left, HIT, "hit rate at 50"), (right, MRR, "scaled MRR")):
        means = np.array([ladder.row(name).mean(metric) for name in names])
        spreads = np.array([ladder.row(name).spread(metric) for name in names])
        axes.barh(names, means, xerr=spreads, color=colours, capsize=2)
        axes.set_xlabel(f"{title}, held-out week")
    return figure


if __name__ == "__main__":
    main()
