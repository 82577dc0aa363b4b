"""Which multi-interest model finds the next day's engagements, on a home's lake: the published tables, anew.

    python -m tests.benchmarks.interests_quality --home .corkboard/demo              every table, three seeds
    python -m tests.benchmarks.interests_quality --home H --tables implicit --seeds 1 --epochs 3
    python -m tests.benchmarks.interests_quality --home H --figure interests.png

Learns from `--train-days`, measures on the `--held-out-days` after; an engagement is a user's first positive
action on a pin. `3+` are users with three or more interests: planted ones where the home has a demo world's
truth, else topics engaged with in the last 14 days. `served` fills each interest's share of the 100 results
instead of taking the best 100 over all. Means over seeds with their standard deviation; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from training.cpu import tune_cpu
from training.data.world_truth import WorldTruth
from training.interests.engagements import UserDays, followed_topics
from training.interests.evaluation import engaged_interests, popular_scores, ranks
from training.interests.fitting import Period, read_period
from training.interests.tables import (
    MANY,
    SEEDS,
    Table,
    compare_conditional,
    compare_implicit,
    implicit_methods,
    interest_counts,
    popularity_row,
    routing_ablation,
)
from training.interests.trainer import InterestsTraining
from training.models.content import AUTO, ContentConfig, ContentEncoder, open_text_encoder
from training.models.interactions import Pins
from training.models.interests import InterestsConfig, ItemTowerConfig, Method, sample_followed
from training.pipelines.content import catalogue, pin_frames, topic_parents
from training.text_vectors import FILE, KeptSentences
from validation.lake import Lake

TABLES = ("implicit", "routing", "counts", "explicit")
MAIN = f"HR@100 {MANY}+"


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
    parser.add_argument(
        "--text-encoder", default=AUTO, help="who reads words: auto, ngrams, a package, a folder"
    )
    parser.add_argument("--figure", type=Path, help="where to draw the tables (png or svg)")
    args = parser.parse_args()
    tune_cpu(threads=1)
    lake = Lake(args.home / "lake")
    pins = _pins(lake, args.home, args.text_encoder)
    end = lake.interval()[1]
    period = read_period(lake, pins, end - timedelta(days=args.held_out_days), end, args.train_days)
    interests, kind = interests_of(period, args.home)
    seeds = tuple(SEEDS[0] + i for i in range(args.seeds))
    print(_shape(period, interests, kind), flush=True)
    training = InterestsTraining(epochs=args.epochs)
    tower = ItemTowerConfig(performance=not args.no_performance)
    base = InterestsConfig(item_tower=tower)
    tables = run(lake, period, interests, args.tables, args.methods, base, training, seeds)
    for table in tables:
        print(f"\n{table.markdown()}")
    results: dict[str, Any] = {table.title: table.named() for table in tables}
    results |= {"interests": kind, "goals": goals(tables)}
    if args.figure is not None:
        draw(tables, args.figure)
    print(json.dumps(results))


def run(
    lake: Lake,
    period: Period,
    interests: np.ndarray,
    names: list[str],
    methods: list[str],
    base: InterestsConfig,
    training: InterestsTraining,
    seeds: tuple[int, ...],
) -> list[Table]:
    """The tables asked for; a model that stands in several is trained once. `methods` are the implicit ones."""

    def progress(line: str) -> None:
        print(line, flush=True)

    plans = {"implicit": implicit_methods, "routing": routing_ablation, "counts": interest_counts}
    known: dict[str, Any] = {}
    tables = []
    for name in names:
        if name == "explicit":
            tables.append(_explicit(lake, period, base, training, seeds, known))
            continue
        models = plans[name](base)
        if name == "implicit":
            models = {method: config for method, config in models.items() if method in methods}
        made = compare_implicit(
            period,
            interests,
            models,
            training,
            title=name,
            seeds=seeds,
            known=known,
            progress=progress,
        )
        tables.append(Table(name, (popularity_row(period, interests), *made.rows)))
    return tables


def _explicit(
    lake: Lake,
    period: Period,
    base: InterestsConfig,
    training: InterestsTraining,
    seeds: tuple[int, ...],
    known: dict[str, Any],
) -> Table:
    dcm = Method.DCM.config(base).model_dump_json()
    implicit = {seed: known[f"{dcm} {seed}"][0] for seed in seeds if f"{dcm} {seed}" in known}
    first = datetime.fromtimestamp(int(period.held_out.times_ms.min()) / 1000, UTC)
    topics = {u: sample_followed(t, (7, u)) for u, t in followed_topics(lake, first).items()}
    return compare_conditional(
        period,
        topics,
        base,
        training,
        implicit=implicit if len(implicit) == len(seeds) else None,
        seeds=seeds,
        progress=lambda line: print(line, flush=True),
    )


def _pins(lake: Lake, home: Path, reader: str) -> Pins:
    """Every pin in a content space fitted on them all; texts the home has read before are not read again."""
    encoder = open_text_encoder(reader)
    sentences = KeptSentences(encoder, home / "training_sets" / FILE) if encoder else None
    config = ContentConfig().read_by(sentences)
    return catalogue(lake, ContentEncoder.fit(pin_frames(lake), config, topic_parents(lake), sentences))


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


def goals(tables: list[Table]) -> dict[str, str]:
    """DCM over MIND and over the single embedding, beyond the seeds' spread, on users of many interests."""
    out = {}
    for table in tables:
        if table.title != "implicit":
            continue
        for metric in (MAIN, f"HR@1000 {MANY}+"):
            for over in (Method.MIND, Method.SINGLE):
                if not {Method.DCM.value, over.value} <= {row.name for row in table.rows}:
                    continue
                margin, spread = table.margin(metric, Method.DCM.value, over.value)
                verdict = "met" if margin > spread else "MISSED"
                out[f"dcm over {over.value}, {metric}"] = f"{margin:+.4f}, spread {spread:.4f}: {verdict}"
    return out


def draw(tables: list[Table], path: Path) -> None:
    """One panel a table: bars of its first two metrics, whiskers the seeds' spread."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(tables), 3.6), layout="constrained")
    for axes, table in zip(np.atleast_1d(figure.subplots(1, len(tables))), tables, strict=True):
        metrics = list(table.rows[0].runs[0])[:2]
        place = np.arange(len(table.rows))
        for offset, (metric, colour) in enumerate(zip(metrics, ("#c8102e", "#4a6fa5"), strict=False)):
            means = [row.mean(metric) for row in table.rows]
            spreads = [row.spread(metric) for row in table.rows]
            axes.bar(place + 0.4 * offset, means, 0.4, yerr=spreads, color=colour, label=metric)
        axes.set_xticks(place + 0.2, [row.name for row in table.rows], rotation=35, ha="right", fontsize=7)
        axes.set_title(table.title)
        axes.legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=150)


def _shape(period: Period, interests: np.ndarray, kind: str) -> str:
    found = ranks(period.data, period.held_out, popular_scores(period.data), interests)
    error = found.error(100, MANY)
    return (
        f"learned from {len(period.train.pins):,} engagements on {len(period.train):,} user-days, measured on "
        f"{found.count():,} ({found.count(MANY):,} of users with {MANY}+ {kind} interests), "
        f"{len(period.candidates):,} candidates; standard error of popularity's rate {error:.4f}\n"
    )


if __name__ == "__main__":
    main()
