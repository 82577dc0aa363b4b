"""The training loop: the weighted multi-task loss, warm-up and decay, resumable at any step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from training.models.pinnerformer.inference import native_bfloat16
from training.models.transact.config import TransActConfig
from training.models.transact.loss import label_matrix, multi_task_loss
from training.models.transact.network import TransAct, probabilities, seeded
from training.pinsage.checkpoint import Place, load_checkpoint, save_checkpoint
from training.transact.examples import Examples

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Progress = Callable[[str], None]


class NothingToLearn(ValueError):
    """The training set is empty, or no row of it carries weight for any head."""


class TransActTraining(BaseModel):
    """How a network is trained. The paper: Adam, rate 0.0048 after 5,000 steps, cosine, batches of 12,000."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(1, ge=1)
    batch_rows: int = Field(512, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    """Peak, reached after `warm_up` of all steps and brought down to a tenth along a cosine."""
    warm_up: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    average: float = Field(0.0, ge=0, lt=1)
    """Share of all steps that the weights at the end are an exponential average over: less of the last rows'
    chance is in it (Polyak and Juditsky, 1992). 0 takes the last weights."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of a step's gradient."""
    bfloat16: bool | None = None
    """Whether matrix products run in bfloat16; None does where the CPU has it. Losses are float32 always."""
    seed: int = 7

    def kept(self, steps: int) -> float:
        """Of the average, at each of `steps` steps in all."""
        return 1 - 1 / max(1.0, self.average * steps)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` (from 0) of `steps` in all."""
        warm = max(1, int(self.warm_up * steps))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        along = (step - warm) / max(1, steps - warm)
        return self.learning_rate * (0.1 + 0.45 * (1 + np.cos(np.pi * along)))


@dataclass(frozen=True)
class Trained:
    """A trained network, in evaluation mode, and the mean loss of each epoch."""

    network: TransAct
    losses: tuple[float, ...]


def train_network(
    config: TransActConfig,
    examples: Examples,
    actions: Sequence[str],
    training: TransActTraining,
    *,
    start: TransAct | None = None,
    checkpoints: Path | None = None,
    checkpoint_steps: int = 200,
    progress: Progress | None = None,
) -> Trained:
    """Train one ranker on every row of `examples`; `actions` name the columns of its labels.

    `start` is a network of the same configuration whose weights, and feature scale, are gone on from. Equal
    arguments and thread counts give equal weights, interrupted or not: with `checkpoints` the state is kept
    there every `checkpoint_steps` steps and after each epoch, and a run cut short goes on from it.

    Raises NothingToLearn, and ValueError for heads that the labels lack, for a `start` of another shape, on a
    checkpoint of another run and on a loss that is not finite.
    """
    matrix = label_matrix(config.heads, actions)
    if len(examples) == 0 or not (examples.weights > 0).any():
        raise NothingToLearn("the training set has no row of any weight; build it over more days")
    content_dim = examples.pins.content.shape[1]
    if start is None:
        network = seeded(config, content_dim, training.seed)
        network.learn_scale(torch.from_numpy(examples.features))
    else:
        if start.config != config or start.content_dim != content_dim:
            raise ValueError("the network to start from has another configuration; train a new one")
        network = seeded(config, content_dim, training.seed)
        network.load_state_dict(start.state_dict())
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
    )
    steps = -(-len(examples) // training.batch_rows)
    place, run = Place(), ""
    if checkpoints is not None:
        run = run_digest(network, examples, actions, training)
        place = load_checkpoint(checkpoints, run, network, optimiser) or place
    if config.lifelong is not None:
        examples = examples.chosen_by(config.lifelong)
    network.train()
    for epoch in range(place.epoch, training.epochs):
        order = np.random.default_rng([training.seed, epoch]).permutation(len(examples))
        for step in range(place.step, steps):
            optimiser.param_groups[0]["lr"] = training.rate(epoch * steps + step, training.epochs * steps)
            rows = order[step * training.batch_rows : (step + 1) * training.batch_rows]
            loss = train_step(network, optimiser, examples, rows, matrix, training, (epoch, step))
            if not np.isfinite(loss):
                raise ValueError(f"loss {loss} at epoch {epoch + 1}, step {step + 1}; lower learning_rate")
            if training.average:
                _average(optimiser, training.kept(training.epochs * steps))
            place = Place(epoch, step + 1, place.losses, place.running + loss)
            if checkpoints is not None and (step + 1) % checkpoint_steps == 0 and step + 1 < steps:
                save_checkpoint(checkpoints, run, place, network, optimiser)
        place = Place(epoch + 1, 0, (*place.losses, place.running / steps), 0.0)
        if checkpoints is not None:
            save_checkpoint(checkpoints, run, place, network, optimiser)
        if progress is not None:
            progress(f"transact: epoch {epoch + 1} of {training.epochs}, loss {place.losses[-1]:.4f}")
    if training.average:
        _take_average(optimiser)
    return Trained(network.eval(), place.losses)


def train_step(
    network: TransAct,
    optimiser: torch.optim.Optimizer,
    examples: Examples,
    rows: Ints,
    matrix: tuple[Tensor, Tensor, Tensor],
    training: TransActTraining,
    at: tuple[int, int],
) -> float:
    """One step, the loss before it. Everything random is drawn from (seed, epoch, step)."""
    rng = np.random.default_rng([training.seed, *at])
    batch = examples.batch(rows, network.config, rng)
    labels, weights, targets = examples.answers(rows)
    optimiser.zero_grad(set_to_none=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))  # dropout
        hours = torch.Generator().manual_seed(int(rng.integers(2**62)))
        low = native_bfloat16() if training.bfloat16 is None else training.bfloat16
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits, encoded, pins = network.answer(batch, hours)
        loss = multi_task_loss(logits, labels, *matrix, weights, targets)
        if network.config.next_action is not None:
            loss = loss + network.config.next_action.weight * network.next_action_loss(batch, encoded, pins)
        loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), training.clip)
    optimiser.step()
    return loss.item()


@torch.no_grad()
def _average(optimiser: torch.optim.Optimizer, kept: float) -> None:
    """Kept beside Adam's moments, where checkpoints find it."""
    for parameter, state in optimiser.state.items():
        if "average" not in state:
            state["average"] = parameter.detach().clone()
        state["average"].lerp_(parameter, 1 - kept)


@torch.no_grad()
def _take_average(optimiser: torch.optim.Optimizer) -> None:
    for parameter, state in optimiser.state.items():
        parameter.copy_(state["average"])


def predict(network: TransAct, examples: Examples, *, batch_rows: int = 512) -> Floats:
    """The training forward's answers, (n, H) float32 in [0, 1]: nothing hidden, no dropout."""
    out = np.empty((len(examples), len(network.config.heads)), np.float32)
    network.eval()
    with torch.inference_mode():
        for at in range(0, len(examples), batch_rows):
            rows = np.arange(at, min(at + batch_rows, len(examples)))
            out[rows] = probabilities(network(examples.batch(rows, network.config))).numpy()
    return out


def run_digest(
    network: TransAct, examples: Examples, actions: Sequence[str], training: TransActTraining
) -> str:
    """Digest (32 hex digits) of everything that decides the trained weights, those it starts from included."""
    settings = (network.config.model_dump_json(), training.model_dump_json(), *actions)
    total = hashlib.sha256("\0".join(settings).encode())
    arrays = [getattr(examples, n) for n in ("log_places", "user_ids", "candidates", "request_ms", "features")]
    arrays += [examples.labels, examples.weights, examples.pins.content]
    log = examples.log
    arrays += [log.users, log.offsets, log.actions, log.surfaces, log.timestamps_ms]
    if (shown := examples.shown) is not None:
        arrays += [shown.users, shown.offsets, shown.pin_ids, shown.times_ms, shown.acted_ms]
    if examples.targets is not None:
        arrays.append(examples.targets)
    if examples.users is not None:
        arrays += [examples.users.ids, examples.users.as_of_ms, examples.users.vectors]
    arrays += [t.numpy() for t in network.state_dict().values()]
    for array in arrays:
        total.update(f"{array.shape}{array.dtype}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()[:32]
