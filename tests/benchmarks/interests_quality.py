"""Which multi-interest model finds the next day's engagements, on a home's lake: the published tables, anew.

    python -m tests.benchmarks.interests_quality --home .corkboard/demo              every table, three seeds
    python -m tests.benchmarks.interests_quality --home H --tables implicit --seeds 1 --epochs 3
    python -m tests.benchmarks.interests_quality --home H --figure interests.png

Learns from `--train-days`, measures on the `--held-out-days` after; an engagement is a user's first positive
action on a pin. `3+` are users with three or more interests: planted ones where the home has a demo world's
truth, else topics engaged with in the last 14 days. `served` fills each interest's share of the 100 results
instead of taking the best 100 over all. Means over seeds with their standard deviation, then every published
direction that the rows allow. Finished runs are kept in `--runs` (JSON lines, checkpoints beside it), so that
a run that was cut short goes on; the last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import interests_directions as directions
from tests.benchmarks.differences import markdown, verdict
from tests.benchmarks.pinnersage_table import add_reader, read_pins
from training.cpu import tune_cpu
from training.data.world_truth import WorldTruth
from training.interests.engagements import UserDays, followed_topics
from training.interests.evaluation import HIT_AT, Ranks, engaged_interests, popular_scores, ranks
from training.interests.fitting import Period, read_period
from training.interests.tables import (
    MANY,
    SEEDS,
    Run,
    Table,
    compare_conditional,
    compare_implicit,
    following,
    implicit_methods,
    interest_counts,
    popularity_row,
    routing_ablation,
)
from training.interests.trainer import InterestsTraining
from training.models.interests import InterestsConfig, ItemTowerConfig, Method, sample_followed
from validation.lake import Lake

TABLES = ("implicit", "routing", "counts", "explicit")
RANKS = 2 * max(HIT_AT)
"""Ranks are kept up to here."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True, help="home folder with a lake")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--methods", nargs="+", choices=[str(m) for m in Method], default=list(Method))
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--train-days", type=int, default=14)
    parser.add_argument("--held-out-days", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=InterestsTraining().epochs)
    parser.add_argument("--no-performance", action="store_true", help="pins by content and topics alone")
    add_reader(parser)
    parser.add_argument("--runs", type=Path, default=Path("interests-runs.jsonl"))
    parser.add_argument("--figure", type=Path, help="where to draw the tables (png or svg)")
    args = parser.parse_args()
    tune_cpu(threads=1)
    lake = Lake(args.home / "lake")
    pins = read_pins(args.home, args.text_encoder)
    end = lake.interval()[1]
    period = read_period(lake, pins, end - timedelta(days=args.held_out_days), end, args.train_days)
    interests, kind = interests_of(period, args.home)
    floor = ranks(period.data, period.held_out, popular_scores(period.data), interests)
    print(_shape(period, floor, kind), flush=True)
    tower = ItemTowerConfig(performance=not args.no_performance)
    base = InterestsConfig(item_tower=tower)
    known = _Runs(args.runs, f"{args.home} {args.text_encoder} {args.train_days} {args.held_out_days}")
    comparing = Comparing(
        period=period,
        interests=interests,
        followed=_followed(lake, period),
        base=base,
        training=InterestsTraining(epochs=args.epochs),
        seeds=tuple(SEEDS[0] + i for i in range(args.seeds)),
        known=known,
    )
    results: dict[str, Any] = {"interests": kind}
    tables = [comparing.table(name, args.methods, floor) for name in args.tables]
    for table in tables:
        differences = directions.found(table, *comparing.measured_on(table.title, floor))
        print(f"\n{table.markdown()}\n\n{markdown('direction', differences)}")
        results[table.title] = table.named()
        results[f"{table.title} directions"] = {
            name: [round(spread.mean, 5), round(spread.error or 0.0, 5), verdict(spread)]
            for name, spread in differences
        }
    if args.figure is not None:
        draw(tables, args.figure)
    print(json.dumps(results))


class _Runs(dict[str, Run]):
    """Finished runs, kept as JSON lines."""

    def __init__(self, path: Path, data: str) -> None:
        self._path, self._data = path, data
        self.checkpoints = path.with_suffix(".checkpoints") / hashlib.sha256(data.encode()).hexdigest()[:8]
        lines = path.read_text().splitlines() if path.exists() else []
        for line in map(json.loads, lines):
            if line["data"] == data:
                places = {way: np.array(at, np.int64) for way, at in line["ranks"].items()}
                super().__setitem__(line["key"], Run(line["metrics"], places))

    def __setitem__(self, key: str, run: Run) -> None:
        super().__setitem__(key, run)
        places = {way: np.minimum(at, RANKS).tolist() for way, at in run.ranks.items()}
        line = {"data": self._data, "key": key, "metrics": run.metrics, "ranks": places}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


@dataclass(frozen=True)
class Comparing:
    """What every table is made from."""

    period: Period
    interests: np.ndarray  # (r,) of each held-out user-day
    followed: dict[int, np.ndarray]
    base: InterestsConfig
    training: InterestsTraining
    seeds: tuple[int, ...]
    known: _Runs

    def table(self, name: str, methods: list[str], floor: Ranks) -> Table:
        """One published table; `methods` are the implicit ones, `floor` is what popularity finds."""
        fitting: dict[str, Any] = {"seeds": self.seeds, "known": self.known, "progress": _say}
        fitting["checkpoints"] = self.known.checkpoints
        if name == "explicit":
            return compare_conditional(self.period, self.followed, self.base, self.training, **fitting)
        plans = {"implicit": implicit_methods, "routing": routing_ablation, "counts": interest_counts}
        models = plans[name](self.base)
        if name == "implicit":
            models = {method: config for method, config in models.items() if method in methods}
        made = compare_implicit(self.period, self.interests, models, self.training, title=name, **fitting)
        return Table(name, (popularity_row(floor), *made.rows))

    def measured_on(self, name: str, floor: Ranks) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(t,) users of the engagements that a table's ranks are of, and groups of them; `floor` is of all."""
        if name != "explicit":
            return floor.users, {f"{MANY}+": floor.interests >= MANY}
        data, days = self.period.data, following(self.period, self.followed)
        made = data.catalogue.created_at_ms[days.pins] < days.times_ms[days.owner]
        named = days.sources[made] > 0
        return days.users[days.owner][made], {"a topic brought it": named, "none did": ~named}


def _say(line: str) -> None:
    print(line, flush=True)


def _followed(lake: Lake, period: Period) -> dict[int, np.ndarray]:
    """Topics that users followed when the held-out days began, as many as serving draws of them."""
    first = datetime.fromtimestamp(int(period.held_out.times_ms.min()) / 1000, UTC)
    return {u: sample_followed(t, (7, u)) for u, t in followed_topics(lake, first).items()}


def interests_of(period: Period, home: Path) -> tuple[np.ndarray, str]:
    """(r,) interests of each held-out user-day's user at its midnight, and how they were counted."""
    days = period.held_out
    folders = sorted(home.glob("datasets/*/truth/interests.parquet"))
    if not folders:
        return engaged_interests(period.data, days), "engaged"
    return planted_interests(days, WorldTruth(folders[0].parent)), "planted"


def planted_interests(days: UserDays, truth: WorldTruth) -> np.ndarray:
    """(r,) planted interests of each row's user at its midnight."""
    out = np.zeros(len(days), np.int64)
    for now in np.unique(days.times_ms).tolist():
        held = truth.interests_at(datetime.fromtimestamp(now / 1000, UTC)).groupby("user_id").size()
        rows = days.times_ms == now
        out[rows] = held.reindex(days.users[rows], fill_value=0).to_numpy()
    return out


def draw(tables: list[Table], path: Path) -> None:
    """One panel a table: bars of its first two metrics, whiskers the seeds' spread."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(tables), 3.6), layout="constrained")
    for axes, table in zip(np.atleast_1d(figure.subplots(1, len(tables))), tables, strict=True):
        metrics = table.rows[0].metrics[:2]
        place = np.arange(len(table.rows))
        for offset, (metric, colour) in enumerate(zip(metrics, ("#c8102e", "#4a6fa5"), strict=False)):
            means = [row.mean(metric) for row in table.rows]
            spreads = [row.spread(metric) for row in table.rows]
            axes.bar(place + 0.4 * offset, means, 0.4, yerr=spreads, color=colour, label=metric)
        axes.set_xticks(place + 0.2, [row.name for row in table.rows], rotation=35, ha="right", fontsize=7)
        axes.set_title(table.title)
        axes.legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=150)


def _shape(period: Period, floor: Ranks, kind: str) -> str:
    error = floor.error(100, MANY)
    return (
        f"learned from {len(period.train.pins):,} engagements on {len(period.train):,} user-days, measured on "
        f"{floor.count():,} ({floor.count(MANY):,} of users with {MANY}+ {kind} interests), "
        f"{len(period.candidates):,} candidates; standard error of popularity's rate {error:.4f}\n"
    )


if __name__ == "__main__":
    main()
