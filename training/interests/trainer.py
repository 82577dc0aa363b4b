"""The training loop of all learners: streaming logQ, warm-up and decay, resumable at any step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from training.interests.batches import Batch, BatchPlan
from training.interests.engagements import UserDays
from training.interests.learners import Learner
from training.models.interests.frequency import StreamingFrequency
from training.pinsage.checkpoint import Place, load_checkpoint, save_checkpoint

Progress = Callable[[str], None]


class InterestsTraining(BaseModel):
    """How a model is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(12, ge=1)
    batch: int = Field(1024, ge=1)
    """Engagements a step."""
    uniform_negatives: int = Field(0, ge=0)
    """Items drawn evenly from the catalogue beside the batch's own (the paper has in-batch ones only)."""
    log_q: bool = True
    """Whether the loss corrects for how often an item is in a batch."""
    frequency_rate: float = Field(0.05, gt=0, le=1)
    """a of the streaming estimate."""
    learning_rate: float = Field(4e-3, gt=0)
    """Peak, reached after a tenth of the steps; linear decay to a tenth of it."""
    weight_decay: float = Field(1e-4, ge=0)
    seed: int = 7

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, counted from 0 over the whole run."""
        warm = max(1, steps // 10)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * (1 - 0.9 * (step - warm) / max(1, steps - warm))


@dataclass(frozen=True)
class Trained:
    """Mean loss of each epoch; the network is the learner's, in evaluation mode."""

    losses: tuple[float, ...]


def train(
    learner: Learner,
    days: UserDays,
    candidates: np.ndarray,
    training: InterestsTraining,
    *,
    name: str,
    identity: str = "",
    checkpoints: Path | None = None,
    checkpoint_steps: int = 200,
    progress: Progress | None = None,
) -> Trained:
    """Train the learner's network on `days`; equal arguments give equal weights, interrupted or not.

    `candidates` are the catalogue rows that uniform negatives come from. With `checkpoints` the state is kept
    there and a run that was cut short goes on from it; `identity` tells runs on other data apart. Raises
    ValueError on no engagements, a checkpoint of another run, and a loss that is not finite.
    """
    if not len(days.pins):
        raise ValueError(f"{name}: no engagements to learn from; bring more days of actions")
    network = learner.network
    evenly = max(1.0, len(candidates) / training.batch)  # batches between two meetings of an item
    frequency = StreamingFrequency(_buckets(len(candidates)), training.frequency_rate, first_gap=evenly)
    both = nn.ModuleDict({"network": network, "frequency": frequency})
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    plan = BatchPlan(
        days, training.batch, training.uniform_negatives, candidates, learner.by_day, training.seed
    )
    run = hashlib.sha256(f"{name}\0{identity}\0{training.model_dump_json()}".encode()).hexdigest()[:32]
    place = Place()
    if checkpoints is not None:
        place = load_checkpoint(checkpoints, run, both, optimiser) or place
    network.train()
    each = len(plan.order(0))  # how a shuffle packs may make one batch more or less
    steps = training.epochs * each
    for epoch in range(place.epoch, training.epochs):
        order = plan.order(epoch)
        for step in range(place.step, len(order)):
            optimiser.param_groups[0]["lr"] = training.rate(min(steps - 1, epoch * each + step), steps)
            batch = plan.batch(epoch, step, order[step])
            generator = torch.Generator().manual_seed(_seed(training.seed, epoch, step))
            loss = train_step(learner, optimiser, frequency, batch, training, generator, len(candidates))
            if not np.isfinite(loss):
                raise ValueError(
                    f"{name}: loss {loss} at epoch {epoch + 1}, step {step + 1}; lower learning_rate"
                )
            place = Place(epoch, step + 1, place.losses, place.running + loss)
            if checkpoints is not None and (step + 1) % checkpoint_steps == 0 and step + 1 < len(order):
                save_checkpoint(checkpoints, run, place, both, optimiser)
        place = Place(epoch + 1, 0, (*place.losses, place.running / len(order)), 0.0)
        if checkpoints is not None:
            save_checkpoint(checkpoints, run, place, both, optimiser)
        if progress is not None:
            progress(f"{name}: epoch {epoch + 1} of {training.epochs}, loss {place.losses[-1]:.4f}")
    network.eval()
    return Trained(place.losses)


def train_step(
    learner: Learner,
    optimiser: torch.optim.Optimizer,
    frequency: StreamingFrequency,
    batch: Batch,
    training: InterestsTraining,
    generator: torch.Generator,
    catalogue: int,
) -> float:
    """One step; the loss before it."""
    log_q = pool_log_q(frequency, batch, training, catalogue)
    optimiser.zero_grad(set_to_none=True)
    loss = learner.loss(batch, log_q, generator)
    loss.backward()
    optimiser.step()
    return loss.item()


def pool_log_q(
    frequency: StreamingFrequency, batch: Batch, training: InterestsTraining, catalogue: int
) -> Tensor:
    """(u,) log of the chance that an item is in the pool: by the stream, or among the uniform draws."""
    pool = torch.from_numpy(batch.pool)
    frequency.update(pool[: batch.own].unique())
    if not training.log_q:
        return torch.zeros(len(pool))
    drawn = min(training.uniform_negatives, catalogue) / max(1, catalogue)
    return torch.log((frequency.probability(pool) + drawn).clamp(max=1.0))


def _buckets(items: int) -> int:
    return 1 << max(10, (4 * items - 1).bit_length())


def _seed(seed: int, epoch: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, step, 1]).generate_state(1, np.uint64)[0] >> 1)
