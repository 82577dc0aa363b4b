"""Which of PinnerFormer's published directions a home's data shows: objectives, negatives, staleness, features.

    python -m tests.benchmarks.pinnerformer_quality --home H --figure out.png

Trains small networks on what the home's lake knew before the last days, every variant with every seed, and
measures them on what came after. Finished runs are kept in `--runs` (JSON lines), so that a run that was cut
short goes on. Prints the tables, what is shown and what is not, and last one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from infra.home import Home
from infra.jobs import context
from tests.benchmarks.differences import markdown, verdict
from tests.benchmarks.pinnerformer_directions import AT, Ranks, found
from training.cpu import tune_cpu
from training.evaluation.retrieval import evaluate, hold_out, popularity
from training.models.pinnerformer import PinnerFormerConfig
from training.pinnerformer.ablations import (
    SEEDS,
    Experiment,
    Table,
    Variant,
    features_left_out,
    negatives_by_log_q,
    objectives,
    windows_of,
)
from training.pinnerformer.batches import Sampling
from training.pinnerformer.staleness import Refresh, refreshed_ranks
from training.pinnerformer.trainer import PinnerFormerTraining
from training.pipelines.clock import run_end
from training.pipelines.content import content_part, load_catalogue
from training.pipelines.pinnerformer import PinnerFormerPipeline, read_experiment
from training.registry import Registry
from validation.lake import Lake

SHOWN = ("recall_at_10", "recall_at_100", "interest_entropy_at_50", "p90_coverage_at_10")
RANKS = 1000
"""Ranks of held-out positives are kept up to here."""
STALE = tuple(f"recall_at_10_{refresh}" for refresh in ("once", "daily", "realtime"))
STALE_100 = tuple(name.replace("_10_", "_100_") for name in STALE)
NEXT_DAYS = ("next_days_recall@10", "next_days_recall@100", "next_days_hit_rate@100")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", required=True)
    parser.add_argument("--parts", nargs="+", default=["objectives", "negatives"], choices=list(GRIDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--length", type=int, default=64, help="newest actions read")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--positions", type=int, default=Sampling().positions, help="pairs a sequence gives")
    parser.add_argument("--pool", type=int, default=Sampling().in_batch, help="negatives of each kind")
    parser.add_argument("--without", nargs="+", default=[], help="variants not to train")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--days", type=int, default=7, help="held out at the end")
    parser.add_argument("--held-out-users", type=float, default=0.0)
    parser.add_argument("--runs", type=Path, default=Path("pinnerformer-runs.jsonl"))
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    tune_cpu(threads=1)
    sampling = Sampling(positions=args.positions, in_batch=args.pool, random=args.pool)
    base = Variant(
        "",
        PinnerFormerConfig(dim=args.dim, hidden=args.hidden, layers=args.layers, heads=2, length=args.length),
        PinnerFormerTraining(epochs=args.epochs, learning_rate=args.learning_rate, sampling=sampling),
    )
    home = Home.at(args.home)
    experiment = _experiment(home, args.days, args.held_out_users)
    done = _Runs(args.runs, f"{args.home} {args.days} {args.held_out_users}")
    tables: dict[str, Table] = {}
    grids = {part: [v for v in GRIDS[part](base) if v.name not in args.without] for part in args.parts}
    for seed in args.seeds:
        for part, variants in grids.items():
            for variant in variants:
                print(done.run(experiment, home, variant, seed, part), flush=True)
    metrics = experiment.popularity(experiment.positives) | _popular_next_days(home, experiment)
    popular = Table({"popularity": [metrics]})
    for part, variants in grids.items():
        rows = {v.name: [done.found(v, seed) for seed in args.seeds] for v in variants}
        tables[part] = Table(rows)
        print(f"\n## {part}\n\n{tables[part].markdown(SHOWN)}")
        if part == "objectives":
            for shown in (STALE, STALE_100, NEXT_DAYS):
                print(f"\n{tables[part].markdown(shown)}")
    print(f"\n{popular.markdown((*SHOWN[:2], *NEXT_DAYS))}\n")
    kept = {v.name: [done.ranks[done.key(v, s)] for s in args.seeds] for g in grids.values() for v in g}
    directions = _directions(kept, experiment.positives.users)
    if args.figure is not None:
        figure(tables, popular, args.figure)
    result = {
        "users": float(len(np.unique(experiment.positives.users))),
        "positives": len(experiment.positives),
        "popularity": popular.named()["popularity"],
        "directions": directions,
        **{part: table.named() for part, table in tables.items()},
    }
    print(json.dumps(result))


GRIDS: dict[str, Callable[[Variant], list[Variant]]] = {
    "objectives": objectives,
    "negatives": negatives_by_log_q,
    "windows": windows_of,
    "features": features_left_out,
    "base": lambda base: [base.sampled("base")],
}


class _Runs:
    """Metrics of finished runs, kept as JSON lines."""

    def __init__(self, path: Path, data: str) -> None:
        self.path, self.data = path, data
        lines = path.read_text().splitlines() if path.exists() else []
        runs = [json.loads(line) for line in lines]
        self.metrics: dict[str, dict[str, float]] = {r["key"]: r["metrics"] for r in runs}
        self.ranks: dict[str, dict[str, list[int]]] = {r["key"]: r["ranks"] for r in runs}

    def key(self, variant: Variant, seed: int) -> str:
        return f"{self.data} {variant.network.model_dump_json()} {variant.training.model_dump_json()} {seed}"

    def found(self, variant: Variant, seed: int) -> dict[str, float]:
        return self.metrics[self.key(variant, seed)]

    def run(self, experiment: Experiment, home: Home, variant: Variant, seed: int, part: str) -> str:
        key = self.key(variant, seed)
        if key not in self.metrics:
            retriever = experiment.train(variant, seed)
            metrics = experiment.measure(retriever, experiment.positives)
            metrics |= _next_days(home, experiment, retriever.recommend)
            ranks = {r: refreshed_ranks(retriever, experiment.positives, r) for r in Refresh}
            for refresh, at in ranks.items():
                metrics |= {f"recall_at_{k}_{refresh}": float((at < k).mean()) for k in AT}
            self.metrics[key] = metrics
            self.ranks[key] = {r.value: np.minimum(at, RANKS).tolist() for r, at in ranks.items()}
            with self.path.open("a") as file:
                file.write(json.dumps({"key": key, "metrics": metrics, "ranks": self.ranks[key]}) + "\n")
        shown = ", ".join(f"{name} {self.metrics[key][name]:.4f}" for name in (*SHOWN, *STALE))
        return f"{part}: {variant.name}, seed {seed}: {shown}"


def _experiment(home: Home, days: int, unseen: float) -> Experiment:
    ctx = context(home)
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    version = registry.latest("content")
    if version is None:
        raise SystemExit(f"{home.root} has no content space; run `corkboard train` on it first")
    config = PinnerFormerPipeline(held_out_days=days, held_out_users=unseen)
    end = run_end(ctx)
    pins = load_catalogue(ctx, content_part(registry, version))
    return read_experiment(Lake(ctx.lake), pins, config, end - timedelta(days=days), end)


def _next_days(
    home: Home, experiment: Experiment, recommend: Callable[[np.ndarray, int], np.ndarray]
) -> dict[str, float]:
    """Over every positive of the held-out days, whatever its surface: how all retrieval is compared."""
    cut, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (experiment.cut_ms, experiment.end_ms))
    held = hold_out(Lake(home.lake), cut, end)
    metrics = evaluate(recommend(held.users, 100), held)
    return {f"next_days_{k}": v for k, v in metrics.items() if k in ("recall@10", "recall@100", "hit_rate@100")}


def _popular_next_days(home: Home, experiment: Experiment) -> dict[str, float]:
    cut = datetime.fromtimestamp(experiment.cut_ms / 1000, UTC)
    best = popularity(Lake(home.lake), cut, 100)
    return _next_days(home, experiment, lambda users, k: np.broadcast_to(best[:k], (len(users), k)))


def _directions(runs: dict[str, list[Ranks]], users: np.ndarray) -> dict[str, list[Any]]:
    """Print every direction that the rows allow; by name and length: difference, 95 % interval, verdict."""
    out: dict[str, list[Any]] = {}
    for at in AT:
        differences = [(direction.name, spread) for direction, spread in found(runs, users, at)]
        print("\n" + markdown(f"direction, Recall@{at} a user", differences))
        for name, spread in differences:
            told = [round(spread.mean, 5), round(spread.error or 0.0, 5), verdict(spread)]
            out[f"{name}, Recall@{at}"] = told
    return out


def figure(tables: dict[str, Table], popular: Table, path: Path) -> None:
    """Recall@10 of every variant with its spread, and by refresh, as one picture."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(10, 1.2 + 0.32 * sum(len(t.rows) for t in tables.values())), layout="constrained")
    panels: Any = drawing.subplots(1, 2)
    names = [(table, name) for table in tables.values() for name in table.rows]
    at = np.arange(len(names))[::-1]
    means = [table.mean(name, "recall_at_10") for table, name in names]
    spreads = [table.spread(name, "recall_at_10") for table, name in names]
    panels[0].barh(at, means, xerr=spreads, color="#4a6fa5")
    panels[0].axvline(popular.mean("popularity", "recall_at_10"), color="#c8102e", linestyle=":")
    panels[0].set_yticks(at, [name for _, name in names])
    panels[0].set_xlabel("Recall@10 (dotted: popularity)")
    stale = tables.get("objectives")
    for name in stale.rows if stale is not None else ():
        panels[1].plot(range(3), [stale.mean(name, metric) for metric in STALE], marker="o", label=name)
    panels[1].set_xticks(range(3), ["once", "daily", "realtime"])
    panels[1].set_ylabel("Recall@10")
    panels[1].legend(frameon=False, fontsize=8)
    drawing.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
