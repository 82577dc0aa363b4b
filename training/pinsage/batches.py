"""What one training step sees, as a pure function of (seed, epoch, step): any step can be made again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.models.pinsage.blocks import Block, BlockBuilder
from training.models.pinsage.loss import allowed_negatives
from training.models.pinsage.neighbourhoods import Neighbourhoods
from training.pinsage.negatives import HardNegatives
from training.pinsage.pairs import Pairs

Rows = NDArray[np.int32]
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """One step: a block of distinct pins, and where among its answers each role's pins stand."""

    inputs: Tensor  # (nodes of the block, width)
    block: Block
    queries: Tensor  # (b,) int64 positions among the block's seeds
    positives: Tensor  # (b,)
    negatives: Tensor  # (n,) shared by every query: some of the batch's positives, then uniform pins
    allowed: Tensor  # (b, n) bool
    hard: Tensor | None = None  # (b, h) positions of each query's own
    hard_allowed: Tensor | None = None  # (b, h) bool


@dataclass(frozen=True)
class Snapshot:
    """A catalogue of n pins as it stood at one time, and the pairs that came after.

    Pairs that are edges of the graph they are learned on teach the network to find what it was given: at
    serving the next pin is never yet on the board. So each stretch of time has the graph of its beginning.
    """

    inputs: Floats
    """(n, width) `pin_inputs`."""
    neighbourhoods: Neighbourhoods
    """Of the same n pins."""
    pairs: Pairs
    hard: HardNegatives | None = None


@dataclass(frozen=True)
class BatchPlan:
    """How the snapshots' pairs become batches. Creating it does nothing."""

    snapshots: tuple[Snapshot, ...]
    size: int
    uniform_negatives: int
    in_batch_negatives: int
    seed: int
    layers: int

    @property
    def steps(self) -> int:
        """Steps an epoch; the last of a snapshot may be short."""
        return sum(-(-len(s.pairs) // self.size) for s in self.snapshots)

    def order(self, epoch: int) -> list[tuple[int, Ints]]:
        """(snapshot, its chosen pairs) of every step of `epoch`, the snapshots' batches shuffled together."""
        rng = np.random.default_rng([self.seed, epoch])
        batches = []
        for place, snapshot in enumerate(self.snapshots):
            pairs = rng.permutation(len(snapshot.pairs))
            batches += [(place, pairs[at : at + self.size]) for at in range(0, len(pairs), self.size)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def batch(
        self, epoch: int, step: int, hard_each: int, chosen: tuple[int, Ints], builders: Sequence[BlockBuilder]
    ) -> Batch:
        """Batch `step` of `epoch` (from 0), `chosen` by `order`, with `hard_each` hard negatives a query."""
        place, which = chosen
        snapshot = self.snapshots[place]
        rng = np.random.default_rng([self.seed, epoch, step])
        queries, positives = snapshot.pairs.queries[which], snapshot.pairs.positives[which]
        uniform = rng.integers(0, len(snapshot.inputs), self.uniform_negatives).astype(np.int32)
        shared = np.concatenate([positives[: self.in_batch_negatives], uniform])
        own = np.empty((len(queries), 0), np.int32)
        if snapshot.hard is not None and hard_each > 0:
            own = snapshot.hard.draw(queries, hard_each, rng)
        return self._assemble(place, queries, positives, shared, own, builders[place])

    def _assemble(
        self, place: int, queries: Rows, positives: Rows, shared: Rows, own: Rows, builder: BlockBuilder
    ) -> Batch:
        everything = np.concatenate([queries, positives, shared, own.ravel()])
        seeds, at = np.unique(everything, return_inverse=True)
        if seeds[0] < 0:  # the padding of queries without hard negatives
            seeds, at = seeds[1:], np.maximum(at - 1, 0)
        block = builder.build(seeds, self.layers, gradients=True)
        places = torch.from_numpy(at.astype(np.int64))
        b, n = len(queries), len(shared)
        hard = places[2 * b + n :].view(own.shape) if own.size else None
        pins = [torch.from_numpy(a.astype(np.int64)) for a in (queries, positives, shared, own)]
        return Batch(
            inputs=torch.from_numpy(self.snapshots[place].inputs[block.nodes]),
            block=block,
            queries=places[:b],
            positives=places[b : 2 * b],
            negatives=places[2 * b : 2 * b + n],
            allowed=allowed_negatives(pins[0], pins[1], pins[2]),
            hard=hard,
            hard_allowed=allowed_negatives(pins[0], pins[1], pins[3]) if hard is not None else None,
        )


def epoch_batches(
    plan: BatchPlan,
    graphs: Sequence[Neighbourhoods],
    epoch: int,
    hard_each: int,
    *,
    start: int = 0,
    ahead: int = 2,
) -> Iterator[Batch]:
    """Batches of `epoch` from step `start`, made by one other thread while the caller trains (paper, 3.3).

    `graphs` are the snapshots' neighbourhoods, weighted as the network pools them.
    """
    builders = [BlockBuilder(graph) for graph in graphs]
    order = plan.order(epoch)
    with ThreadPoolExecutor(1, thread_name_prefix="pinsage-batches") as maker:

        def submit(step: int) -> Future[Batch]:
            return maker.submit(plan.batch, epoch, step, hard_each, order[step], builders)

        pending = deque(submit(step) for step in range(start, min(start + ahead, len(order))))
        for step in range(start, len(order)):
            batch = pending.popleft().result()
            if step + ahead < len(order):
                pending.append(submit(step + ahead))
            yield batch
