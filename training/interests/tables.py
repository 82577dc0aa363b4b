"""The published comparisons on one period, every row over several seeds (arXiv 2506.23060, tables 1-3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.interests.evaluation import (
    HIT_AT,
    Ranks,
    conditional_scores,
    implicit_scores,
    overlap,
    popular_scores,
    ranks,
)
from training.interests.fitting import Period, fit_conditional, fit_implicit
from training.interests.learners import TopicAssociation
from training.interests.trainer import InterestsTraining
from training.models.interests import Association, Construction, InterestNetwork, InterestsConfig, Method

Ints = NDArray[np.int64]
Progress = Callable[[str], None]

SEEDS = (7, 8, 9)
MANY = 3
"""Interests from which a user counts as having many."""


@dataclass(frozen=True)
class Row:
    """One model over its seeds."""

    name: str
    runs: tuple[Mapping[str, float], ...]

    def mean(self, metric: str) -> float:
        return float(np.mean([run[metric] for run in self.runs]))

    def spread(self, metric: str) -> float:
        """Standard deviation over the seeds (n - 1); 0 for a row that has one."""
        return float(np.std([run[metric] for run in self.runs], ddof=1)) if len(self.runs) > 1 else 0.0


@dataclass(frozen=True)
class Table:
    """Rows of one comparison."""

    title: str
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row:
        """Raises KeyError naming the rows there are."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row {name!r} in {self.title!r}; rows are {[r.name for r in self.rows]}")

    def margin(self, metric: str, of: str, over: str) -> tuple[float, float]:
        """How far row `of` is above row `over`, and the larger of the two spreads."""
        upper, lower = self.row(of), self.row(over)
        return upper.mean(metric) - lower.mean(metric), max(upper.spread(metric), lower.spread(metric))

    def markdown(self) -> str:
        """The table, mean ± spread over seeds."""
        metrics = list(self.rows[0].runs[0])
        lines = [f"| {self.title} | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
        for row in self.rows:
            cells = [f"{row.mean(m):.4f} ± {row.spread(m):.4f}" for m in metrics]
            lines.append(f"| {row.name} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def named(self) -> dict[str, list[float]]:
        """`row.metric` -> [mean, spread]."""
        return {
            f"{row.name}.{metric}": [round(row.mean(metric), 5), round(row.spread(metric), 5)]
            for row in self.rows
            for metric in row.runs[0]
        }


def implicit_methods(base: InterestsConfig) -> dict[str, InterestsConfig]:
    """The compared user models."""
    return {method.value: method.config(base) for method in Method}


def routing_ablation(base: InterestsConfig) -> dict[str, InterestsConfig]:
    """VA-FPI x SAR under one association (argmax) and one map (the identity)."""
    out = {}
    for name, farthest, single in (
        ("neither", False, False),
        ("SAR only", False, True),
        ("VA-FPI only", True, False),
        ("both", True, True),
    ):
        routing = base.routing.model_copy(
            update={"farthest_point": farthest, "single_assignment": single, "shared_map": False}
        )
        changes = {"construction": Construction.CAPSULES, "association": Association.ARGMAX, "routing": routing}
        out[name] = base.model_copy(update=changes)
    return out


def interest_counts(base: InterestsConfig, counts: Sequence[int] = (2, 4, 7)) -> dict[str, InterestsConfig]:
    """DCM with K interests."""
    return {f"K={k}": Method.DCM.config(base.model_copy(update={"interests": k})) for k in counts}


def compare_implicit(
    period: Period,
    interests: Ints,
    models: Mapping[str, InterestsConfig],
    training: InterestsTraining,
    *,
    title: str = "implicit",
    seeds: Sequence[int] = SEEDS,
    known: dict[str, tuple[InterestNetwork, Mapping[str, float]]] | None = None,
    progress: Progress | None = None,
) -> Table:
    """Train and measure every model with every seed.

    `interests` (r,) is how many each held-out user-day's user has. `known` keeps what was fitted, by
    configuration and seed, so that a model that stands in several tables is trained once.
    """
    known = {} if known is None else known
    rows = []
    for name, config in models.items():
        runs = []
        for seed in seeds:
            key = f"{config.model_dump_json()} {seed}"
            if key not in known:
                settings = training.model_copy(update={"seed": seed})
                network, _ = fit_implicit(period, config, settings)
                known[key] = network, _measured(period, network, interests)
                if progress is not None:
                    shown = ", ".join(f"{m} {v:.4f}" for m, v in known[key][1].items())
                    progress(f"{title}, {name}, seed {seed}: {shown}")
            runs.append(known[key][1])
        rows.append(Row(name, tuple(runs)))
    return Table(title, tuple(rows))


def popularity_row(period: Period, interests: Ints) -> Row:
    """One order for everybody, the floor of every table."""
    found = ranks(period.data, period.held_out, popular_scores(period.data), interests)
    return Row("popularity", (_named(found) | {"served@100": found.hit_rate(100)},))


def compare_conditional(
    period: Period,
    followed: dict[int, Ints],
    config: InterestsConfig,
    training: InterestsTraining,
    *,
    implicit: Mapping[int, InterestNetwork] | None = None,
    seeds: Sequence[int] = SEEDS,
    progress: Progress | None = None,
) -> Table:
    """Item against source interest, filtered and not, over held-out users who follow topics.

    With `implicit`, a DCM network a seed, also the share of explicit candidates (100 each) it finds itself.
    """
    data = period.data
    days = period.held_out.take(np.flatnonzero(np.isin(period.held_out.users, list(followed))))
    config = config.model_copy(update={"construction": Construction.TOPICS})
    rows = []
    for association in (TopicAssociation.ITEM, TopicAssociation.SOURCE):
        runs = []
        for seed in seeds:
            settings = training.model_copy(update={"seed": seed})
            network, _, _ = fit_conditional(period, config, settings, association)
            run: dict[str, float] = {}
            for name, filtered in (("filtered", True), ("unfiltered", False)):
                explicit = conditional_scores(network, data, followed, filtered=filtered)
                found = ranks(data, days, explicit)
                run |= {f"{name}@{k}": found.hit_rate(k) for k in HIT_AT}
                if implicit is not None and filtered:
                    run["overlap"] = overlap(explicit, implicit_scores(implicit[seed], data), data, days)
            runs.append(run)
            if progress is not None:
                progress(
                    f"explicit, {association}, seed {seed}: "
                    + ", ".join(f"{m} {v:.4f}" for m, v in run.items())
                )
        rows.append(Row(f"{association.value} interest", tuple(runs)))
    return Table("explicit", tuple(rows))


def _measured(period: Period, network: InterestNetwork, interests: Ints) -> dict[str, float]:
    best = ranks(period.data, period.held_out, implicit_scores(network, period.data), interests)
    served = ranks(period.data, period.held_out, implicit_scores(network, period.data, served=True), interests)
    return _named(best) | {"served@100": served.hit_rate(100)}


def _named(found: Ranks) -> dict[str, float]:
    out = {f"HR@{k}": found.hit_rate(k) for k in HIT_AT}
    out |= {f"HR@{k} {MANY}+": found.hit_rate(k, MANY) for k in HIT_AT}
    return out | {f"HR@100 1-{MANY - 1}": found.hit_rate(100, 0, MANY - 1)}
