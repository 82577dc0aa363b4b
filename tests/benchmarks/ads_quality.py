"""Towers against one model, a model a source and logistic regression, on a home's ads; every arm in one run.

    python -m tests.benchmarks.ads_quality --home .corkboard/demo              four arms, three seeds
    python -m tests.benchmarks.ads_quality --home H --arms towers mixed --seeds 1
    python -m tests.benchmarks.ads_quality --home H --tuned                    with what `tune` chose

Learns, calibrates and tests on the days that `train` uses. A figure is the mean over seeds with their standard
deviation; `towers - arm` is the difference of means with its 95 % interval, from resampled users. The error a
day is the mean over test days of |predicted clicks / clicks - 1|; `by chance` is what right probabilities would
show on so few clicks. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.home import Home
from infra.jobs import context
from training.ads.baselines import ARMS, TOWERS, Scores, run_arm
from training.ads.evaluation import ALL, Measured, measure
from training.ads.examples import AdExamples, read_examples
from training.ads.trainer import AdsTraining, layout_of
from training.cpu import tune_cpu
from training.data.training_set import TrainingSet
from training.evaluation import metrics
from training.models.ads.config import IDS
from training.pipelines.ads import SET, split_of, training_of
from training.pipelines.content import content_part, load_catalogue
from training.registry import Registry
from validation.lake import Lake

RESAMPLES = 200
FIRST_SEED = 7
FIGURES = ("auc", "log_loss", "error_before", "error_after")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True, help="home folder whose `train` ran the step ads")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of every network; the settings' own if left out")
    parser.add_argument("--tuned", action="store_true", help="settings of `corkboard tune ads_multi_tower`")
    args = parser.parse_args()
    tune_cpu(threads=1)
    train, validation, test, training = examples_of(args.home, args.tuned)
    if args.epochs is not None:
        training = training.model_copy(update={"epochs": args.epochs})
    layout = layout_of(train, training)
    head = layout.heads[0]
    print(
        f"{len(train):,} impressions train, {len(validation):,} calibrate, {len(test):,} test with"
        f" {int(test.of([head]).sum())} clicks; towers: {', '.join(layout.sources)}",
        flush=True,
    )
    runs: dict[str, list[Scores]] = {arm: [] for arm in args.arms}
    for nth in range(args.seeds):
        seeded = training.model_copy(update={"seed": FIRST_SEED + nth})
        for arm in args.arms:
            runs[arm].append(run_arm(arm, train, validation, test, seeded, layout))
            print(f"seed {nth + 1} of {args.seeds}: {arm}", flush=True)
    measured = {arm: [measure(test, s, layout.heads) for s in scores] for arm, scores in runs.items()}
    print(f"\n{table(measured)}\n\n{chance(test, runs, head)}")
    found = differences(test, runs, head) if TOWERS in runs else {}
    for line in found.values():
        print(line["text"])
    out = {
        f"{a}/{r.source}/{r.head}": figures(measured[a], i) for a in runs for i, r in enumerate(measured[a][0])
    }
    print(json.dumps({"settings": training.model_dump(mode="json"), "arms": out, "towers_minus": found}))


def examples_of(home: Path, tuned: bool) -> tuple[AdExamples, AdExamples, AdExamples, AdsTraining]:
    """Train, validation and test rows of the home's set of ads, and the settings."""
    ctx = context(Home.at(home))
    rows = TrainingSet(ctx.training_sets / SET)
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    pins = load_catalogue(ctx, content_part(registry, registry.trained("content") or 1))
    split, lake = split_of(rows.info), Lake(ctx.lake)
    parts = [read_examples(rows, lake, pins, i) for i in (split.train, split.validation, split.test)]
    return parts[0], parts[1], parts[2], training_of(ctx) if tuned else AdsTraining()


def figures(runs: list[tuple[Measured, ...]], row: int) -> dict[str, list[float]]:
    """Mean and deviation over seeds of every figure of one row."""
    values = {name: np.array([getattr(run[row], name) for run in runs]) for name in FIGURES}
    return {name: [float(v.mean()), float(v.std())] for name, v in values.items()}


def table(measured: dict[str, list[tuple[Measured, ...]]]) -> str:
    lines = ["| arm | source | head | positives | AUC | log loss | error a day, before Platt | after |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for arm, runs in measured.items():
        for at, row in enumerate(runs[0]):
            f = figures(runs, at)
            cells = [f"{f[n][0]:.4f} ± {f[n][1]:.4f}" for n in FIGURES[:2]]
            cells += [f"{f[n][0]:.3f} ± {f[n][1]:.3f}" for n in FIGURES[2:]]
            lines.append(f"| {arm} | {row.source} | {row.head} | {row.positives} | {' | '.join(cells)} |")
    return "\n".join(lines)


def chance(test: AdExamples, runs: dict[str, list[Scores]], head: str) -> str:
    """What the daily error of clicks would be if the first arm's probabilities were right: sqrt(2 / pi) sd."""
    p = next(iter(runs.values()))[0].after[:, 0].astype(np.float64)
    each = []
    for day in np.unique(test.days):
        own = p[test.days == day]
        each.append(np.sqrt(2 / np.pi * (own * (1 - own)).sum()) / own.sum())
    return f"error a day of {head} by chance alone: {np.mean(each):.3f}"


def differences(test: AdExamples, runs: dict[str, list[Scores]], head: str) -> dict[str, dict]:
    """Towers less each other arm in AUC and log loss of clicks, over all rows and by source."""
    label, users = test.of([head])[:, 0], test.rows.ids[:, IDS.index("user")]
    out = {}
    for arm in (a for a in runs if a != TOWERS):
        for source in (ALL, *np.unique(test.sources).tolist()):
            rows = np.flatnonzero((test.sources == source) | (source == ALL))
            for name, metric in (("auc", metrics.auc), ("log_loss", metrics.log_loss)):
                middle, low, high = paired(runs[TOWERS], runs[arm], label, users, rows, metric)
                text = f"towers - {arm}, {source}, {name}: {middle:+.4f} [{low:+.4f}, {high:+.4f}]"
                out[f"{arm}/{source}/{name}"] = {"value": [middle, low, high], "text": text}
    return out


def paired(
    ours: list[Scores],
    theirs: list[Scores],
    label: NDArray,
    users: NDArray,
    rows: NDArray,
    metric: Callable[[NDArray, NDArray], float],
) -> tuple[float, float, float]:
    """Difference of means over seeds, and its 2.5 % and 97.5 % points over resampled users."""
    rng = np.random.default_rng(FIRST_SEED)
    _, owner = np.unique(users[rows], return_inverse=True)
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(owner.max() + 2))

    def difference(at: NDArray) -> float:
        return float(
            np.mean(
                [
                    metric(label[at], a.after[at, 0]) - metric(label[at], b.after[at, 0])
                    for a, b in zip(ours, theirs, strict=True)
                ]
            )
        )

    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, owner.max() + 1, owner.max() + 1)
        at = np.concatenate([order[bounds[u] : bounds[u + 1]] for u in chosen])
        if 0 < label[rows[at]].sum() < len(at):
            drawn.append(difference(rows[at]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return difference(rows), float(low), float(high)


if __name__ == "__main__":
    main()
