"""Does importance pooling gain with the size of the catalogue? The same boards' laws, ever more pins.

Each size has planted boards (planted_boards.py) and the same number of pairs, steps and held-out pairs. Content
with degree hears nothing of the boards, the mean hears the most visited neighbours alike, importance pooling
weighs them by their visits.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.benchmarks.planted_boards import Planted, PlantedBoards, plant
from training.models.pinsage import Neighbourhoods, PinSageConfig, Rung
from training.pinsage.ladder import Ladder, Stage, World, climb
from training.pinsage.trainer import PinSageTraining
from training.pinsage.walks import CatalogueGraph
from training.pipelines.figures import BLUE, GREY, RED
from training.pipelines.pinsage_world import PinSagePipeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUNGS = (Rung.CONTENT_DEGREE, Rung.MEAN, Rung.IMPORTANCE)
NETWORK = PinSageConfig(neighbours=20)
TRAINING = PinSageTraining(epochs=4)
TRAINED, HELD_OUT = 25_000, 5_000
"""Pairs of every size."""
HIT = "hit_rate_at_50"


@dataclass(frozen=True)
class Size:
    """What one size of catalogue showed."""

    pins: int
    reach: float
    """Share of the catalogue within two pin -> board -> pin steps of a pin."""
    alike: dict[str, float]
    """Share of the pooled weight that comes from pins of the same taste, by what is pooled."""
    ladder: Ladder

    @property
    def gain(self) -> tuple[float, float]:
        """Hit rate of importance pooling over the plain mean, and the larger spread of the two."""
        return self.ladder.margin(HIT, over=Rung.MEAN, of=Rung.IMPORTANCE)


def run(sizes: tuple[int, ...], seeds: tuple[int, ...]) -> tuple[dict[str, Any], Figure]:
    """Train every rung at every size, print the table; results and figure."""
    print(f"{TRAINED:,} pairs, {NETWORK}, {TRAINING}; seeds {seeds}\n")
    done = []
    for pins in sizes:
        done.append(measure(pins, seeds))
        print(f"\n{_markdown(done)}\n", flush=True)
    wins = [size.pins for size in done if size.gain[0] > size.gain[1]]
    results = {
        "sizes": {
            size.pins: {
                "two_hop_share": round(size.reach, 4),
                **{f"alike_{name}": round(value, 4) for name, value in size.alike.items()},
                **{rung.value: round(size.ladder.row(rung).mean(HIT), 4) for rung in RUNGS},
                "importance_gain": round(size.gain[0], 4),
                "spread": round(size.gain[1], 4),
            }
            for size in done
        },
        "importance_pooling_wins_at": wins,
    }
    return results, _figure(done)


def measure(pins: int, seeds: tuple[int, ...]) -> Size:
    """One size: plant the boards, walk them, train every rung with every seed."""
    begin = time.process_time()
    planted = plant(PlantedBoards(pins))
    walks = PinSagePipeline().walks.model_copy(update={"neighbours": NETWORK.neighbours})
    rows = CatalogueGraph(planted.graph, planted.pin_ids, walks)
    degrees, near = rows.degrees(), rows.neighbourhoods()
    pairs = planted.pairs(TRAINED, 1)
    world = World(
        planted.content, (Stage(degrees, near, pairs),), Stage(degrees, near, planted.pairs(HELD_OUT, 2))
    )
    alike = {
        "uniform": _alike(planted, rows.uniform()),
        "mean": _alike(planted, near.even()),
        "importance": _alike(planted, near),
    }
    print(f"{pins:,} pins planted and walked, {time.process_time() - begin:.0f} CPU s", flush=True)
    ladder = climb(
        world,
        NETWORK,
        TRAINING,
        rungs=RUNGS,
        seeds=seeds,
        progress=lambda line: print(f"  {line}, {time.process_time() - begin:.0f} CPU s so far", flush=True),
    )
    return Size(pins, planted.two_hops(), alike, ladder)


def _alike(planted: Planted, near: Neighbourhoods) -> float:
    """Mean weight that a pin with neighbours gives to those of its own taste."""
    counts = np.diff(near.offsets)
    rows = np.repeat(np.arange(len(near)), counts)
    same = rows // planted.laws.taste == near.ids // planted.laws.taste
    return float(near.weights[same].sum() / max((counts > 0).sum(), 1))


def _markdown(done: list[Size]) -> str:
    names = [rung.value for rung in RUNGS]
    lines = [
        f"| pins | two hops reach | alike: uniform / mean / importance | {' | '.join(names)} | gain |",
        "|---" * (len(names) + 4) + "|",
    ]
    for size in done:
        rows = [size.ladder.row(rung) for rung in RUNGS]
        cells = " | ".join(f"{row.mean(HIT):.4f} ± {row.spread(HIT):.4f}" for row in rows)
        alike = " / ".join(f"{value:.2f}" for value in size.alike.values())
        gain, spread = size.gain
        verdict = f"{gain:+.4f} ({'beyond' if gain > spread else 'within'} ± {spread:.4f})"
        lines.append(f"| {size.pins:,} | {size.reach:.1%} | {alike} | {cells} | {verdict} |")
    return "\n".join(lines)


def _figure(done: list[Size]) -> Figure:
    """Hit rate of every rung over the size of the catalogue, with the share that two hops reach."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    pins = [size.pins for size in done]
    colours = dict(zip(RUNGS, (GREY, BLUE, RED), strict=True))
    for rung in RUNGS:
        rows = [size.ladder.row(rung) for size in done]
        means, spreads = [row.mean(HIT) for row in rows], [row.spread(HIT) for row in rows]
        axes.errorbar(pins, means, yerr=spreads, marker="o", capsize=3, color=colours[rung], label=rung.value)
    axes.set(xscale="log", xlabel="pins of the catalogue", ylabel="hit rate at 50, held-out pairs")
    axes.set_xticks(pins, [f"{size.pins:,}\n{size.reach:.0%} in two hops" for size in done])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return figure
