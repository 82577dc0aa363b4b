"""The training loop: shared negatives, a curriculum of hard ones, warm-up and decay, resumable at any step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from training.models.pinsage.config import PinSageConfig
from training.models.pinsage.inference import embed_catalogue, pooled_graph
from training.models.pinsage.loss import max_margin_loss
from training.models.pinsage.network import PinSage, seeded
from training.pinsage.batches import Batch, BatchPlan, Snapshot, epoch_batches
from training.pinsage.checkpoint import Place, load_checkpoint, save_checkpoint

Progress = Callable[[str], None]


class PinSageTraining(BaseModel):
    """How a network is trained. Batch, negatives, curriculum and schedule are the paper's; the rest is ours."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(6, ge=1)
    batch: int = Field(512, ge=1)
    """Pairs a step (the paper's best is 2048 of 1.2 billion)."""
    uniform_negatives: int = Field(500, ge=0)
    """Drawn from the whole catalogue and shared by the batch, beside the batch's own positives."""
    in_batch_negatives: int = Field(16, ge=0)
    """Positives of the batch that serve every other query as negatives as well. They come as often as they are
    engaged with, so many of them teach the network to set popularity aside."""
    margin: float = Field(0.1, gt=0)
    learning_rate: float = Field(3e-3, gt=0)
    """Peak, reached at the end of epoch 1."""
    decay_per_epoch: float = Field(0.8, gt=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    max_hard_negatives: int = Field(6, ge=0)
    """Epoch n (from 1) adds min(n - 1, this) hard negatives a query."""
    hard_weight: float = Field(0.3, ge=0)
    """Weight of the hard negatives' mean hinge beside the shared ones'."""
    max_gap_hours: float | None = Field(None, gt=0)
    """Engagements further apart make no pair; None pairs them however long ago."""
    seed: int = 7

    def hard_each(self, epoch: int) -> int:
        """Hard negatives a query in `epoch`, counted from 0: none in the first, one more in each later one."""
        return min(epoch, self.max_hard_negatives)

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Learning rate of a step: linear warm-up over epoch 0, exponential decay by the epoch after it."""
        if epoch == 0:
            return self.learning_rate * (step + 1) / steps
        return self.learning_rate * self.decay_per_epoch ** (epoch - 1 + (step + 1) / steps)


@dataclass(frozen=True)
class Trained:
    """A trained network, in evaluation mode, and the mean loss of each epoch."""

    network: PinSage
    losses: tuple[float, ...]


def train_network(
    config: PinSageConfig,
    snapshots: Sequence[Snapshot],
    training: PinSageTraining,
    *,
    checkpoints: Path | None = None,
    checkpoint_steps: int = 200,
    progress: Progress | None = None,
) -> Trained:
    """Train one network on the pairs of every snapshot; it serves the last one's pins at mean length one.

    Equal arguments and thread counts give equal weights, interrupted or not.

    With `checkpoints` the state is kept there every `checkpoint_steps` steps and after each epoch, and a run
    that was cut short goes on from it. Raises ValueError on no pairs, on inputs of the wrong width, on a
    checkpoint of another run, and on a loss that is not finite.
    """
    snapshots = tuple(snapshot for snapshot in snapshots if len(snapshot.pairs))
    _check(config, snapshots)
    content_dim = snapshots[0].inputs.shape[1] - int(config.degree)
    network = seeded(config, content_dim, training.seed)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    run = run_digest(config, snapshots, training) if checkpoints is not None else ""
    place = Place()
    if checkpoints is not None:
        place = load_checkpoint(checkpoints, run, network, optimiser) or place
    plan = BatchPlan(
        snapshots,
        training.batch,
        training.uniform_negatives,
        training.in_batch_negatives,
        training.seed,
        config.layers,
    )
    graphs = [pooled_graph(s.neighbourhoods.top(config.neighbours), config.pooling) for s in snapshots]
    network.train()
    for epoch in range(place.epoch, training.epochs):
        hard_each = training.hard_each(epoch)
        start = place.step
        for step, batch in enumerate(epoch_batches(plan, graphs, epoch, hard_each, start=start), start):
            optimiser.param_groups[0]["lr"] = training.rate(epoch, step, plan.steps)
            loss = train_step(network, optimiser, batch, training)
            if not np.isfinite(loss):
                raise ValueError(f"loss {loss} at epoch {epoch + 1}, step {step + 1}; lower learning_rate")
            place = Place(epoch, step + 1, place.losses, place.running + loss)
            if checkpoints is not None and (step + 1) % checkpoint_steps == 0 and step + 1 < plan.steps:
                save_checkpoint(checkpoints, run, place, network, optimiser)
        place = Place(epoch + 1, 0, (*place.losses, place.running / plan.steps), 0.0)
        if checkpoints is not None:
            save_checkpoint(checkpoints, run, place, network, optimiser)
        if progress is not None:
            progress(f"pinsage: epoch {epoch + 1} of {training.epochs}, loss {place.losses[-1]:.4f}")
    network.eval()
    _settle_scale(network, snapshots[-1])
    return Trained(network, place.losses)


def train_step(
    network: PinSage, optimiser: torch.optim.Optimizer, batch: Batch, training: PinSageTraining
) -> float:
    """One step; the loss before it."""
    optimiser.zero_grad(set_to_none=True)
    loss = batch_loss(network, batch, training)
    loss.backward()
    optimiser.step()
    return loss.item()


def batch_loss(network: PinSage, batch: Batch, training: PinSageTraining) -> Tensor:
    """Shared negatives' max-margin loss, and the hard ones' at `hard_weight`."""
    vectors = network(batch.inputs, batch.block)  # (seeds, dim)
    queries, positives = vectors[batch.queries], vectors[batch.positives]
    loss = max_margin_loss(queries, positives, vectors[batch.negatives], batch.allowed, training.margin)
    if batch.hard is not None and batch.hard_allowed is not None:
        hard = max_margin_loss(queries, positives, vectors[batch.hard], batch.hard_allowed, training.margin)
        loss = loss + training.hard_weight * hard
    return loss


def _settle_scale(network: PinSage, snapshot: Snapshot) -> None:
    """Makes the mean length of the snapshot's served rows one, so that inner products read as cosines."""
    near = snapshot.neighbourhoods.top(network.config.neighbours)
    lengths = np.linalg.norm(embed_catalogue(network, snapshot.inputs, near), axis=1)
    if lengths.any():
        network.scale.fill_(float(lengths.mean()))


def run_digest(config: PinSageConfig, snapshots: Sequence[Snapshot], training: PinSageTraining) -> str:
    """Digest (32 hex digits) of everything that decides the trained weights."""
    total = hashlib.sha256(f"{config.model_dump_json()}\0{training.model_dump_json()}".encode())
    for snapshot in snapshots:
        graph, pairs = snapshot.neighbourhoods, snapshot.pairs
        arrays = [snapshot.inputs, graph.offsets, graph.ids, graph.weights, pairs.queries, pairs.positives]
        arrays += [snapshot.hard.candidates] if snapshot.hard is not None else []
        for array in arrays:
            total.update(f"{array.shape}{array.dtype}".encode())
            total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()[:32]


def _check(config: PinSageConfig, snapshots: tuple[Snapshot, ...]) -> None:
    if not snapshots:
        raise ValueError("no training pairs: no user has two positive actions on different pins")
    for snapshot in snapshots:
        inputs, graph = snapshot.inputs, snapshot.neighbourhoods
        if len(inputs) != len(graph):
            raise ValueError(f"{len(inputs)} input rows and {len(graph)} neighbourhoods; both are one a pin")
        if inputs.shape[1] != snapshots[0].inputs.shape[1] or inputs.shape[1] <= int(config.degree):
            raise ValueError(f"inputs of width {inputs.shape[1]}; make each snapshot's with pin_inputs")
        if not np.isfinite(inputs).all():
            raise ValueError("inputs hold numbers that are not finite; make them with pin_inputs")
