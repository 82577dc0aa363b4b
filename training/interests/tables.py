"""The published comparisons on one period, every row over several seeds (arXiv 2506.23060, tables 1-3)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.interests.engagements import UserDays
from training.interests.evaluation import (
    HIT_AT,
    Ranks,
    conditional_scores,
    implicit_scores,
    overlap,
    ranks,
)
from training.interests.fitting import Period, fit_conditional, fit_implicit
from training.interests.learners import TopicAssociation
from training.interests.trainer import InterestsTraining
from training.models.interests import Association, Construction, InterestNetwork, InterestsConfig, Method

Ints = NDArray[np.int64]
Progress = Callable[[str], None]

ITEM, SOURCE = TopicAssociation.ITEM, TopicAssociation.SOURCE
SEEDS = (7, 8, 9)
MANY = 3
"""Interests from which a user counts as having many."""


class Run(NamedTuple):
    """What one model, trained with one seed, found."""

    metrics: Mapping[str, float]
    ranks: Mapping[str, Ints]
    """(t,) rank of every held-out engagement, from 1; by how lists are made, where there are several ways."""


Known = MutableMapping[str, Run]
"""Finished runs by what made them: a model that stands in several tables is trained once."""


@dataclass(frozen=True)
class Row:
    """One model over its seeds."""

    name: str
    runs: tuple[Run, ...]

    @property
    def metrics(self) -> list[str]:
        return list(self.runs[0].metrics)

    def mean(self, metric: str) -> float:
        return float(np.mean([run.metrics[metric] for run in self.runs]))

    def spread(self, metric: str) -> float:
        """Standard deviation over the seeds (n - 1); 0 for a row that has one."""
        return float(np.std([run.metrics[metric] for run in self.runs], ddof=1)) if len(self.runs) > 1 else 0.0


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

    def markdown(self) -> str:
        """The table, mean ± spread over seeds."""
        metrics = self.rows[0].metrics
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
            for metric in row.metrics
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
    known: Known | None = None,
    checkpoints: Path | None = None,
    progress: Progress = print,
) -> Table:
    """Train and measure every model with every seed that `known` does not have, and put it there.

    `interests` (r,) is how many each held-out user-day's user has. With `checkpoints`, a folder of this data
    alone, training that was cut short goes on.
    """
    known = {} if known is None else known
    rows = []
    for name, config in models.items():
        runs = []
        for seed in seeds:
            settings = training.model_copy(update={"seed": seed})
            key = _key(config, settings)
            if key not in known:
                network = fit_implicit(period, config, settings, checkpoints=_place(checkpoints, key))[0]
                known[key] = _measured(period, network, interests)
            runs.append(known[key])
            progress(_line(f"{title}, {name}, seed {seed}", known[key]))
        rows.append(Row(name, tuple(runs)))
    return Table(title, tuple(rows))


def popularity_row(found: Ranks) -> Row:
    """One order for everybody, the floor of every table: what popularity found."""
    metrics = _named(found) | {"served@100": found.hit_rate(100)}
    return Row("popularity", (Run(metrics, {"best": found.ranks}),))


def compare_conditional(
    period: Period,
    followed: dict[int, Ints],
    config: InterestsConfig,
    training: InterestsTraining,
    *,
    seeds: Sequence[int] = SEEDS,
    known: Known | None = None,
    checkpoints: Path | None = None,
    progress: Progress = print,
) -> Table:
    """Item against source interest, filtered and not, over held-out users who follow topics (`following`).

    A third row is item interest learned from the engagements that source interest learns from: those whose
    pin a topic brought. `overlap` is the share of explicit candidates (100 each) that a DCM of the same seed
    finds itself.
    """
    known = {} if known is None else known
    config = config.model_copy(update={"construction": Construction.TOPICS})
    brought = replace(period, train=period.train.where(period.train.sources > 0))
    models = {
        f"{ITEM} interest": (ITEM, period, ITEM.value),
        f"{SOURCE} interest": (SOURCE, period, SOURCE.value),
    }
    if len(brought.train):
        models[f"{ITEM} interest, of pins that a topic brought"] = (ITEM, brought, f"{ITEM} brought")
    runs: dict[str, list[Run]] = {name: [] for name in models}
    for seed in seeds:
        settings = training.model_copy(update={"seed": seed})
        keys = {name: f"{start} {_key(config, settings)}" for name, (_, _, start) in models.items()}
        if not known.keys() >= set(keys.values()):
            implicit = Method.DCM.config(config)
            place = _place(checkpoints, _key(implicit, settings))
            dcm = fit_implicit(period, implicit, settings, checkpoints=place)[0]
        for name, (association, learned, _) in models.items():
            key = keys[name]
            if key not in known:
                place = _place(checkpoints, key)
                network = fit_conditional(learned, config, settings, association, checkpoints=place)[0]
                known[key] = _conditional(period, followed, network, dcm)
            runs[name].append(known[key])
            progress(_line(f"explicit, {name}, seed {seed}", known[key]))
    return Table("explicit", tuple(Row(name, tuple(found)) for name, found in runs.items()))


def following(period: Period, followed: Mapping[int, Ints]) -> UserDays:
    """The held-out days of users who follow topics."""
    return period.held_out.take(np.flatnonzero(np.isin(period.held_out.users, list(followed))))


def _conditional(
    period: Period, followed: dict[int, Ints], network: InterestNetwork, dcm: InterestNetwork
) -> Run:
    data, days = period.data, following(period, followed)
    metrics: dict[str, float] = {}
    places: dict[str, Ints] = {}
    for name, filtered in (("filtered", True), ("unfiltered", False)):
        explicit = conditional_scores(network, data, followed, filtered=filtered)
        found = ranks(data, days, explicit)
        metrics |= {f"{name}@{k}": found.hit_rate(k) for k in HIT_AT}
        places[name] = found.ranks
        if filtered:
            metrics["overlap"] = overlap(explicit, implicit_scores(dcm, data), data, days)
    return Run(metrics, places)


def _measured(period: Period, network: InterestNetwork, interests: Ints) -> Run:
    best = ranks(period.data, period.held_out, implicit_scores(network, period.data), interests)
    served = ranks(period.data, period.held_out, implicit_scores(network, period.data, served=True), interests)
    metrics = _named(best) | {"served@100": served.hit_rate(100)}
    return Run(metrics, {"best": best.ranks, "served": served.ranks})


def _key(config: InterestsConfig, training: InterestsTraining) -> str:
    return f"{config.model_dump_json()} {training.model_dump_json()}"


def _place(checkpoints: Path | None, key: str) -> Path | None:
    return checkpoints and checkpoints / hashlib.sha256(key.encode()).hexdigest()[:16]


def _line(what: str, run: Run) -> str:
    return f"{what}: " + ", ".join(f"{metric} {value:.4f}" for metric, value in run.metrics.items())


def _named(found: Ranks) -> dict[str, float]:
    out = {f"HR@{k}": found.hit_rate(k) for k in HIT_AT}
    out |= {f"HR@{k} {MANY}+": found.hit_rate(k, MANY) for k in HIT_AT}
    return out | {f"HR@100 1-{MANY - 1}": found.hit_rate(100, 0, MANY - 1)}
