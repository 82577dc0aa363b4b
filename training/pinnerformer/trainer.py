"""The training loop: sampled softmax over mixed negatives, warm-up and decay, resumable at any step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from training.models.pinnerformer.config import PinnerFormerConfig
from training.models.pinnerformer.inference import WIDE, native_bfloat16
from training.models.pinnerformer.loss import even_weights, log_expected, sampled_softmax
from training.models.pinnerformer.network import PinnerFormer, seeded
from training.models.pinnerformer.sketch import CountMinSketch
from training.pinnerformer.batches import Batch, BatchPlan, Sampling
from training.pinnerformer.timelines import Timelines
from training.pinsage.checkpoint import Place, load_checkpoint, save_checkpoint

Floats = NDArray[np.float32]
Progress = Callable[[str], None]


class NothingToPredict(ValueError):
    """No user has an action that a label follows."""


class PinnerFormerTraining(BaseModel):
    """How a network is trained. Objective, window and negatives are the paper's; it names no optimiser."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampling: Sampling = Sampling()
    epochs: int = Field(12, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    """Peak, reached after `warm_up` of all steps and brought down to a tenth along a cosine."""
    warm_up: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0)
    """Largest norm of a step's gradient."""
    log_q: bool = True
    sketch_width: int = Field(65_536, ge=16)
    sketch_depth: int = Field(4, ge=1, le=16)
    bfloat16: bool | None = None
    """Whether matrix products of the towers run in bfloat16; None does where the CPU has it and the network is
    wide enough to gain. Logits and loss are float32 always."""
    seed: int = 7

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` (from 0) of `steps` in all."""
        warm = max(1, int(self.warm_up * steps))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        along = (step - warm) / max(1, steps - warm)
        return self.learning_rate * (0.1 + 0.45 * (1 + np.cos(np.pi * along)))


class Learner(nn.Module):
    """What a checkpoint holds beside the optimiser: the network, and how often each pin was a positive."""

    def __init__(self, network: PinnerFormer, sketch: CountMinSketch) -> None:
        super().__init__()
        self.network, self.sketch = network, sketch


def adamw(learner: Learner, training: PinnerFormerTraining) -> torch.optim.AdamW:
    """The optimiser, one pass over each parameter a step."""
    return torch.optim.AdamW(
        learner.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
    )


@dataclass(frozen=True)
class Trained:
    """A trained network, in evaluation mode, and the mean loss of each epoch."""

    network: PinnerFormer
    losses: tuple[float, ...]


def train_network(
    config: PinnerFormerConfig,
    timelines: Timelines,
    content: Floats,
    training: PinnerFormerTraining,
    *,
    candidates: NDArray[np.integer] | None = None,
    checkpoints: Path | None = None,
    checkpoint_steps: int = 200,
    progress: Progress | None = None,
) -> Trained:
    """Train one network on everything `timelines` hold.

    `content` (pins, P) are the catalogue's vectors (P may be 0 with an id embedding); `candidates` the rows
    uniform negatives come from, all by default. Equal arguments and thread counts give equal weights,
    interrupted or not: with `checkpoints` the state is kept there every `checkpoint_steps` steps and after
    each epoch, and a run cut short goes on from it.

    Raises NothingToPredict without a single pair to learn, ValueError on content that is not finite, on a
    checkpoint of another run and on a loss that is not finite.
    """
    if not np.isfinite(content).all():
        raise ValueError("content vectors hold numbers that are not finite")
    rows = np.arange(len(content)) if candidates is None else candidates
    plan = BatchPlan(
        timelines,
        content,
        rows.astype(np.int32),
        training.sampling,
        config.length,
        config.days,
        training.seed,
    )
    if plan.steps == 0:
        raise NothingToPredict("no user has an action that a label follows; bring more actions")
    network = seeded(config, content.shape[1], len(content) if config.id_dim else 0, training.seed)
    learner = Learner(network, CountMinSketch(training.sketch_width, training.sketch_depth, training.seed))
    optimiser = adamw(learner, training)
    run = run_digest(config, timelines, content, rows, training) if checkpoints is not None else ""
    place = Place()
    if checkpoints is not None:
        place = load_checkpoint(checkpoints, run, learner, optimiser) or place
    learner.train()
    for epoch in range(place.epoch, training.epochs):
        order = plan.order(epoch)
        for step in range(place.step, plan.steps):
            optimiser.param_groups[0]["lr"] = training.rate(
                epoch * plan.steps + step, training.epochs * plan.steps
            )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(hash((training.seed, epoch, step)))  # dropout, the same after a resumption
                loss = train_step(learner, optimiser, plan.batch(epoch, step, order[step]), plan, training)
            if not np.isfinite(loss):
                raise ValueError(f"loss {loss} at epoch {epoch + 1}, step {step + 1}; lower learning_rate")
            place = Place(epoch, step + 1, place.losses, place.running + loss)
            if checkpoints is not None and (step + 1) % checkpoint_steps == 0 and step + 1 < plan.steps:
                save_checkpoint(checkpoints, run, place, learner, optimiser)
        place = Place(epoch + 1, 0, (*place.losses, place.running / plan.steps), 0.0)
        if checkpoints is not None:
            save_checkpoint(checkpoints, run, place, learner, optimiser)
        if progress is not None:
            progress(
                f"pinnerformer: epoch {epoch + 1} of {training.epochs}, loss {place.losses[-1]:.4f}, "
                f"temperature {float(network.temperature.detach()):.3f}"
            )
    return Trained(network.eval(), place.losses)


def train_step(
    learner: Learner,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    plan: BatchPlan,
    training: PinnerFormerTraining,
) -> float:
    """One step; the loss before it. A batch whose tokens have no label changes nothing and costs 0."""
    if len(batch.positives) == 0:
        return 0.0
    optimiser.zero_grad(set_to_none=True)
    learner.sketch.add(batch.positives)
    loss = batch_loss(learner, batch, plan, training)
    loss.backward()
    nn.utils.clip_grad_norm_(learner.parameters(), training.clip)
    optimiser.step()
    learner.network.clamp_temperature()
    return loss.item()


def batch_loss(learner: Learner, batch: Batch, plan: BatchPlan, training: PinnerFormerTraining) -> Tensor:
    """The batch's loss, every sequence of equal weight."""
    network, sketch = learner.network, learner.sketch
    low = training.bfloat16
    if low is None:
        low = native_bfloat16() and network.config.hidden >= WIDE
    pins = torch.cat([batch.positives, batch.pool])
    distinct, rows = pins.unique(return_inverse=True)
    places, columns = by_sequence(batch)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        hidden = network.hidden_at(batch.tokens, places)  # (B, S, H)
        users = network.vectors(hidden[batch.owners, columns])  # (n, D)
        vectors = network.pins(torch.from_numpy(plan.content)[distinct], distinct + 1)[rows]
    n = len(batch.positives)
    log_q = None
    if training.log_q:
        frequency = sketch.estimate(pins) / max(sketch.total, 1)
        uniform = len(batch.pool) - batch.in_batch
        log_q = log_expected(batch.in_batch, frequency, uniform, len(plan.candidates))
    return sampled_softmax(
        users,
        vectors[:n],
        vectors[n:],
        network.temperature,
        allowed=batch.allowed[batch.owners],
        weights=even_weights(batch.owners, len(batch.tokens.lengths)),
        log_q=None if log_q is None else log_q[:n],
        pool_log_q=None if log_q is None else log_q[n:],
    )


def by_sequence(batch: Batch) -> tuple[Tensor, Tensor]:
    """The tokens that predict: (places (B, S) of each sequence, 0 behind its last; column (n,) of each pair).

    A token of several pairs has one place.
    """
    length = batch.tokens.pins.shape[1]
    tokens, of_pair = (batch.owners * length + batch.positions).unique(return_inverse=True)
    owners = tokens // length
    column = torch.arange(len(tokens)) - torch.searchsorted(owners, owners)
    places = torch.zeros(len(batch.tokens.lengths), int(column.max()) + 1, dtype=torch.int64)
    places[owners, column] = tokens % length
    return places, column[of_pair]


def run_digest(
    config: PinnerFormerConfig,
    timelines: Timelines,
    content: Floats,
    candidates: NDArray[np.integer],
    training: PinnerFormerTraining,
) -> str:
    """Digest (32 hex digits) of everything that decides the trained weights."""
    total = hashlib.sha256(f"{config.model_dump_json()}\0{training.model_dump_json()}".encode())
    arrays = [getattr(timelines.arrays, name) for name in timelines.arrays.__dataclass_fields__]
    arrays += [timelines.users, timelines.offsets, timelines.label, timelines.first_ms, content, candidates]
    for array in arrays:
        total.update(f"{array.shape}{array.dtype}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()[:32]
