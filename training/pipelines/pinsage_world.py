"""What PinSage learns from and is measured on: stages of graph and pairs read from a lake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from training.context import Progress
from training.data.graph import GraphConfig, build_graph
from training.models.interactions import Pins
from training.models.pin_board_graph import from_edges
from training.models.pinsage import PinSageConfig, Rung
from training.pinsage.ladder import Stage, World
from training.pinsage.pairs import Pairs, consecutive_pairs
from training.pinsage.trainer import PinSageTraining
from training.pinsage.walks import CatalogueGraph, WalkConfig
from validation.lake import Lake
from validation.tables import Polarity

_MS = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

HARD_FROM = 50_000
"""Pins from which hard negatives pay. Among 12,000 (the demo world) their window holds many right answers and
they cost a twentieth of the hits; among 68,000 (Complete Journey) they bring a tenth more."""


class TooFewPairs(ValueError):
    """The actions hold no pair to learn from, or none to measure on."""


class PinSagePipeline(BaseModel):
    """Everything one PinSage version is made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rung: Rung | None = None
    """What is trained; None: importance pooling, with hard negatives (`PINSAGE`) from HARD_FROM pins on."""
    network: PinSageConfig = PinSageConfig()
    training: PinSageTraining = PinSageTraining()
    walks: WalkConfig = WalkConfig()
    graph: GraphConfig = GraphConfig(delta=None, labels=False)
    """Unpruned: importance neighbourhoods choose by visits already."""
    stages: int = Field(4, ge=1)
    """Parts of the time before the held-out days; each one's pairs are learned on the graph of its start."""
    held_out_days: int = Field(7, ge=1)
    max_pairs: int = Field(100_000, ge=1)
    """Pairs learned from, drawn evenly over time where there are more; the paper took a share of them too."""

    def fitted_to(self, pins: int) -> PinSagePipeline:
        """The same with the rung chosen and the window of hard negatives brought to a catalogue of `pins`.

        The paper's ranks 2000-5000 leave the nearest pins out and stay far inside 2 billion. On a small
        catalogue the window is [2.5 %, 12.5 %) of it, but never nearer than the neighbourhood itself: nearer
        windows hold too many right answers (on the demo world [1 %, 5 %) is worse than no hard negatives).
        """
        rung = self.rung or (Rung.PINSAGE if pins >= HARD_FROM else Rung.IMPORTANCE)
        low, high = self.walks.hard_ranks
        if high > pins // 8:
            low = min(low, max(self.network.neighbours, pins // 40))
            high = max(low + 1, min(high, pins // 8))
        walks = self.walks.model_copy(update={"hard_ranks": (low, high)})
        return self.model_copy(update={"rung": rung, "walks": walks})


def read_world(
    lake: Lake,
    pins: Pins,
    end: datetime,
    config: PinSagePipeline,
    progress: Progress,
    *,
    hard: bool = True,
    uniform: bool = False,
) -> World:
    """Stages before the held-out days and the held-out stage itself, from the lake's actions before `end`.

    `hard` draws hard negatives, `uniform` GraphSAGE's neighbours. Raises TooFewPairs where no pair falls on
    either side.
    """
    start = lake.interval()[0]
    split = end - timedelta(days=config.held_out_days)
    pairs = read_pairs(lake, pins, end, config.training)
    learned, held_out_pairs = pairs.split(_ms(split))
    if split <= start or not len(learned) or not len(held_out_pairs):
        raise TooFewPairs(
            f"{len(pairs)} pairs from {start:%Y-%m-%d} to {end:%Y-%m-%d}, of which the last "
            f"{config.held_out_days} days are held out; pinsage needs some on both sides: bring more actions"
        )
    learned = learned.sample(config.max_pairs, config.training.seed)
    cuts = [start + (split - start) * i / config.stages for i in range(config.stages)] + [split, end]
    stages = []
    for begin, until in pairwise(cuts):
        held_out = begin == split
        inside = held_out_pairs if held_out else learned.split(_ms(begin))[1].split(_ms(until))[0]
        nothing = np.empty(0, np.int64)  # before the first action nobody has saved anything
        graph = (
            from_edges(nothing, nothing, pin_ids=pins.ids)
            if begin <= start
            else build_graph(lake, config.graph, as_of=begin)
        )
        rows = CatalogueGraph(graph, pins.ids, config.walks)
        stages.append(
            Stage(
                rows.degrees(),
                rows.neighbourhoods(),
                inside,
                hard=rows.hard(inside) if hard and not held_out else None,
                uniform=rows.uniform() if uniform else None,
            )
        )
        progress(f"pinsage: {len(inside)} pairs from {begin:%Y-%m-%d %H:%M}, on {graph.edges} edges")
    return World(pins.vectors, tuple(stages[:-1]), stages[-1])


def read_pairs(lake: Lake, pins: Pins, end: datetime, training: PinSageTraining) -> Pairs:
    """Consecutive positive actions before `end` on pins of the catalogue."""
    columns = ["event_id", "user_id", "pin_id", "action", "timestamp"]
    actions = lake.read("actions", columns, end=end)
    actions = actions[actions["action"].isin(lake.contract().vocabulary.codes(Polarity.POSITIVE))]
    ids = actions["pin_id"].to_numpy(np.int64)
    at = np.minimum(np.searchsorted(pins.ids, ids), max(len(pins.ids) - 1, 0))
    gap = training.max_gap_hours
    return consecutive_pairs(
        actions["user_id"].to_numpy(np.int64),
        np.where(pins.ids[at] == ids, at, -1),
        actions["timestamp"].dt.as_unit("ms").astype("int64").to_numpy(),
        actions["event_id"].to_numpy(np.int64),
        max_gap_ms=None if gap is None else int(gap * 3_600_000),
    )


def _ms(time: datetime) -> int:
    return (time - _EPOCH) // _MS
