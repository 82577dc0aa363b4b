"""The paper's comparisons on one's own data: each variant trained with every seed, one table.

objectives      next action, SASRec, all action, dense all action over 14 and 28 days     (table 3)
negatives       random, in-batch, mixed, each without and with logQ                        (table 4)
features        all tokens' features but one                                               (table 6)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training.models.pinnerformer.config import PinnerFormerConfig, TokenFeatures
from training.models.pinnerformer.loss import Negatives
from training.models.pinnerformer.objectives import Objective
from training.pinnerformer.evaluation import (
    RETRIEVED,
    Positives,
    held_out,
    known_pins,
    popular_lists,
    popular_pins,
    quality,
)
from training.pinnerformer.retriever import Retriever
from training.pinnerformer.staleness import recall_by_refresh
from training.pinnerformer.timelines import Timelines
from training.pinnerformer.trainer import PinnerFormerTraining, train_network

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Progress = Callable[[str], None]

SEEDS = (7, 8, 9)
WINDOWS = (7, 14, 28)


@dataclass(frozen=True)
class Variant:
    """One network and one way to train it."""

    name: str
    network: PinnerFormerConfig
    training: PinnerFormerTraining

    def sampled(self, name: str, **changes: object) -> Variant:
        """The same with other sampling."""
        sampling = self.training.sampling.model_copy(update=changes)
        return Variant(name, self.network, self.training.model_copy(update={"sampling": sampling}))


def objectives(base: Variant, windows: Sequence[int] = (14, 28)) -> list[Variant]:
    """The four objectives; dense all action once a window of days, all action with the longest."""
    longest = float(max(windows))
    out = [base.sampled(str(o), objective=o) for o in (Objective.NEXT_ACTION, Objective.SASREC)]
    out.append(base.sampled(f"all action {longest:g}d", objective=Objective.ALL_ACTION, window_days=longest))
    return out + windows_of(base, windows)


def windows_of(base: Variant, windows: Sequence[int] = WINDOWS) -> list[Variant]:
    """Dense all action over several windows of days."""
    dense = Objective.DENSE_ALL_ACTION
    return [base.sampled(f"{dense} {days}d", objective=dense, window_days=float(days)) for days in windows]


def negatives_by_log_q(base: Variant) -> list[Variant]:
    """Three pools of negatives of equal size, without and with the correction."""
    size = base.training.sampling.in_batch + base.training.sampling.random
    pools = {
        Negatives.RANDOM: {"random": size},
        Negatives.IN_BATCH: {"in_batch": size},
        Negatives.MIXED: {},
    }
    out = []
    for negatives, sizes in pools.items():
        for log_q in (False, True):
            variant = base.sampled(f"{negatives}{' + logQ' if log_q else ''}", negatives=negatives, **sizes)
            training = variant.training.model_copy(update={"log_q": log_q})
            out.append(Variant(variant.name, variant.network, training))
    return out


def features_left_out(base: Variant) -> list[Variant]:
    """Every token feature off in turn, and none."""
    out = [Variant("nothing left out", base.network, base.training)]
    for name in TokenFeatures.model_fields:
        features = base.network.features.without(name)
        network = base.network.model_copy(update={"features": features})
        out.append(Variant(f"without {name}", network, base.training))
    return out


@dataclass(frozen=True)
class Experiment:
    """One data set cut in two: trained on what came before, measured on what came after."""

    timelines: Timelines
    """Through the end."""
    content: Floats  # (pins, P)
    pin_ids: Ints  # (pins,)
    topics: Ints  # (pins,) first topic, 0 for none
    candidates: Ints
    """Catalogue rows of pins created before the cut: the index, and what uniform negatives come from."""
    cut_ms: int
    end_ms: int
    trained_users: NDArray[np.bool_]  # (U,) users that training sees

    @cached_property
    def all_positives(self) -> Positives:
        """Labels after the cut, of all users."""
        return held_out(self.timelines, self.cut_ms, self.end_ms, self.candidates)

    @property
    def positives(self) -> Positives:
        """Those of users that training does not see, or of all where it sees everyone."""
        every = self.all_positives
        return every if self.trained_users.all() else every.of_users(~self.trained_users)

    def train(self, variant: Variant, seed: int, progress: Progress | None = None) -> Retriever:
        """The variant trained on the trained users' actions before the cut, retrieving as of the cut."""
        known = self.timelines.of_users(self.trained_users).before(self.cut_ms)
        training = variant.training.model_copy(update={"seed": seed})
        trained = train_network(
            variant.network, known, self.content, training, candidates=self.candidates, progress=progress
        )
        return Retriever(
            trained.network, self.content, self.pin_ids, self.candidates, self.timelines, self.cut_ms
        )

    def measure(
        self, retriever: Retriever, positives: Positives, *, staleness: bool = False
    ) -> dict[str, float]:
        """Quality on `positives`; with `staleness` also Recall@10 by refresh."""
        users = np.unique(positives.users)
        top = retriever.top(users, RETRIEVED)
        out = quality(top, users, positives, self.topics, len(self.candidates)).named()
        if staleness:
            recalls = recall_by_refresh(retriever, positives)
            out |= {f"recall_at_10_{refresh}": value for refresh, value in recalls.items()}
        return out

    def popularity(self, positives: Positives) -> dict[str, float]:
        """The same of one list for everybody: most labels in the 30 days before the cut."""
        users = np.unique(positives.users)
        known = known_pins(
            self.timelines, users, self.timelines.ends_before(users, np.full(len(users), self.cut_ms))
        )
        order = popular_pins(self.timelines, self.cut_ms, self.candidates)
        top = popular_lists(order, known, RETRIEVED)
        return quality(top, users, positives, self.topics, len(self.candidates)).named()


@dataclass(frozen=True)
class Table:
    """Metrics by variant and seed."""

    rows: Mapping[str, Sequence[Mapping[str, float]]]

    def values(self, name: str, metric: str) -> Floats:
        """One value a seed."""
        return np.array([run[metric] for run in self.rows[name]])

    def mean(self, name: str, metric: str) -> float:
        return float(self.values(name, metric).mean())

    def spread(self, name: str, metric: str) -> float:
        """Standard deviation over the seeds (n - 1); 0 for a single run."""
        values = self.values(name, metric)
        return float(values.std(ddof=1)) if len(values) > 1 else 0.0

    def above(self, upper: str, lower: str, metric: str) -> bool:
        """Whether one row's mean is above another's by more than the larger of both spreads."""
        gap = self.mean(upper, metric) - self.mean(lower, metric)
        return gap > max(self.spread(upper, metric), self.spread(lower, metric))

    def above_metric(self, name: str, upper: str, lower: str) -> bool:
        """The same of two metrics of one row, seed by seed: mean difference beyond its own spread."""
        gaps = self.values(name, upper) - self.values(name, lower)
        return bool(gaps.mean() > (gaps.std(ddof=1) if len(gaps) > 1 else 0.0))

    def markdown(self, metrics: Sequence[str]) -> str:
        """The table, mean +- spread over seeds."""
        lines = [f"| variant | {' | '.join(metrics)} | seeds |", "|---" * (len(metrics) + 2) + "|"]
        for name, runs in self.rows.items():
            cells = [
                f"{self.mean(name, m):.4f}" + (f" ± {self.spread(name, m):.4f}" if len(runs) > 1 else "")
                for m in metrics
            ]
            lines.append(f"| {name} | {' | '.join(cells)} | {len(runs)} |")
        return "\n".join(lines)

    def named(self) -> dict[str, dict[str, float]]:
        """Means and spreads for a JSON line, by variant."""
        return {
            name: {
                key: value
                for metric in runs[0]
                for key, value in (
                    (metric, self.mean(name, metric)),
                    (f"{metric}.spread", self.spread(name, metric)),
                )
            }
            for name, runs in self.rows.items()
        }


def run_grid(
    experiment: Experiment,
    variants: Sequence[Variant],
    *,
    seeds: Sequence[int] = SEEDS,
    staleness: bool = False,
    progress: Progress | None = None,
) -> Table:
    """Train and measure every variant with every seed. Raises ValueError where nothing is held out."""
    rows: dict[str, list[dict[str, float]]] = {}
    for variant in variants:
        rows[variant.name] = []
        for seed in seeds:
            retriever = experiment.train(variant, seed)
            metrics = experiment.measure(retriever, experiment.positives, staleness=staleness)
            rows[variant.name].append(metrics)
            if progress is not None:
                shown = ", ".join(f"{k} {v:.4f}" for k, v in metrics.items() if "recall" in k or "p90" in k)
                progress(f"{variant.name}, seed {seed}: {shown}")
    return Table(rows)
