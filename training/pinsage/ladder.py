"""The ladder from content to PinSage: every rung trained with several seeds, compared in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.models.pinsage import PinSageConfig, Rung, embed_catalogue, pin_inputs
from training.models.pinsage.neighbourhoods import Neighbourhoods
from training.pinsage.batches import Snapshot
from training.pinsage.evaluation import RankMetrics, evaluate_pairs, popularity_metrics
from training.pinsage.negatives import HardNegatives
from training.pinsage.pairs import Pairs
from training.pinsage.trainer import PinSageTraining, Trained, train_network

Floats = NDArray[np.float32]
Progress = Callable[[str], None]
Keep = Callable[[Rung, int, Floats], None]

SEEDS = (7, 8, 9)


@dataclass(frozen=True)
class Stage:
    """The catalogue's graph at one time, and pairs that came after it."""

    degrees: NDArray[np.int64]  # (n,)
    neighbourhoods: Neighbourhoods
    pairs: Pairs
    hard: HardNegatives | None = None
    uniform: Neighbourhoods | None = None
    """Neighbours drawn uniformly, which the GraphSAGE rung alone reads."""

    def neighbours(self, rung: Rung) -> Neighbourhoods:
        """The neighbourhoods that `rung` pools. Raises ValueError where GraphSAGE's were not drawn."""
        if rung is not Rung.GRAPHSAGE:
            return self.neighbourhoods
        if self.uniform is None:
            raise ValueError("the stage has no uniform neighbours; draw them with CatalogueGraph.uniform")
        return self.uniform

    def snapshot(self, content: Floats, rung: Rung, network: PinSageConfig) -> Snapshot:
        """What a network of `rung` sees of this stage."""
        inputs = pin_inputs(content, self.degrees, network)
        return Snapshot(inputs, self.neighbours(rung), self.pairs, self.hard if rung.hard_negatives else None)


@dataclass(frozen=True)
class World:
    """One catalogue over time: stages to train on, and a last one whose pairs are held out."""

    content: Floats  # (n, d)
    stages: tuple[Stage, ...]
    held_out: Stage


@dataclass(frozen=True)
class Row:
    """One rung over its seeds."""

    name: str
    runs: tuple[RankMetrics, ...]

    def values(self, metric: str) -> NDArray[np.float64]:
        return np.array([run.named()[metric] for run in self.runs])

    def mean(self, metric: str) -> float:
        return float(self.values(metric).mean())

    def spread(self, metric: str) -> float:
        """Standard deviation over the seeds (n - 1); 0 for a row that has no seed."""
        return float(self.values(metric).std(ddof=1)) if len(self.runs) > 1 else 0.0


@dataclass(frozen=True)
class Ladder:
    """The table. Row 0 and 1 are not trained: order by degree, and content vectors as they are."""

    rows: tuple[Row, ...]

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def margin(self, metric: str, over: str = Rung.CONTENT, of: str = Rung.PINSAGE) -> tuple[float, float]:
        """How far rung `of` is above rung `over`, and the larger of the two spreads."""
        upper, lower = self.row(of), self.row(over)
        return upper.mean(metric) - lower.mean(metric), max(upper.spread(metric), lower.spread(metric))

    def markdown(self) -> str:
        """The table, mean +- spread over seeds."""
        metrics = list(self.rows[0].runs[0].named())
        lines = [f"| rung | {' | '.join(metrics)} | seeds |", "|---" * (len(metrics) + 2) + "|"]
        for row in self.rows:
            cells = [
                f"{row.mean(m):.4f}" + (f" ± {row.spread(m):.4f}" if len(row.runs) > 1 else "") for m in metrics
            ]
            lines.append(f"| {row.name} | {' | '.join(cells)} | {len(row.runs)} |")
        return "\n".join(lines)

    def named(self) -> dict[str, float]:
        """Flat means and spreads for the registry: `rung.pinsage.hit_rate_at_50`, `....spread`."""
        out = {}
        for row in self.rows:
            for metric in row.runs[0].named():
                key = f"rung.{row.name.replace('+', '_')}.{metric}"
                out[key] = row.mean(metric)
                out[f"{key}.spread"] = row.spread(metric)
        return out


def climb(
    world: World,
    config: PinSageConfig,
    training: PinSageTraining,
    *,
    rungs: Sequence[Rung] = tuple(Rung),
    seeds: Sequence[int] = SEEDS,
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> Ladder:
    """Train and measure every rung with every seed; `keep` is given the vectors of each.

    Raises ValueError where there are no held-out pairs.
    """
    held_out = world.held_out.pairs
    if len(held_out) == 0:
        raise ValueError("no held-out pairs: hold out more days, or bring more actions")
    rows = [
        Row("popularity", (popularity_metrics(world.held_out.degrees, held_out),)),
        Row("content vectors", (evaluate_pairs(_finite(world.content), held_out),)),
    ]
    for rung in rungs:
        runs = []
        for seed in seeds:
            settings = training.model_copy(update={"seed": seed})
            vectors = rung_vectors(world, rung, config, settings)[1]
            runs.append(evaluate_pairs(vectors, held_out))
            if keep is not None:
                keep(rung, seed, vectors)
            if progress is not None:
                progress(f"{rung}, seed {seed}: {_line(runs[-1])}")
        rows.append(Row(rung, tuple(runs)))
    return Ladder(tuple(rows))


def rung_vectors(
    world: World,
    rung: Rung,
    config: PinSageConfig,
    training: PinSageTraining,
    *,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Trained, Floats]:
    """One rung trained on the world's stages, and its vectors of the whole catalogue at the last one."""
    network = rung.network(config)
    snapshots = [stage.snapshot(world.content, rung, network) for stage in world.stages]
    trained = train_network(network, snapshots, training, checkpoints=checkpoints, progress=progress)
    last = world.held_out.snapshot(world.content, rung, network)
    return trained, embed_catalogue(trained.network, last.inputs, last.neighbourhoods.top(network.neighbours))


def _finite(content: Floats) -> Floats:
    return np.where(np.isfinite(content).all(axis=1, keepdims=True), content, 0).astype(np.float32)


def _line(metrics: RankMetrics) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.named().items())
