"""Fine-tuning end to end against frozen pins: in-batch softmax over cosines, resumable.

    L = -log exp(q.p / T - log Q(p)) / sum over the pool of exp(q.p' / T - log Q(p'))

The post's recipe is the batch's own pins without log Q. Random pins beside them and log Q make that of its
successor (OmniSearchSage, arXiv 2404.16260). Before anything is learned a query is where the encoder puts its
words among the words of pins; the rest of the readout is a ridge regression of the engaged pins' mean on what
the encoder says, so that fine-tuning distorts little of what it knew (Kumar et al., ICLR 2022). See
`averaging.py` for how far it goes from there.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from training.models.searchsage.network import QueryTower
from training.models.searchsage.tokens import QueryTokens, by_length
from training.pinsage.checkpoint import Place, load_checkpoint, save_checkpoint
from training.searchsage.averaging import settle, weights_of
from training.searchsage.batches import Batch, BatchPlan
from training.searchsage.encoding import BLOCK, encode, used_words
from training.searchsage.frozen_pins import FrozenPins
from training.searchsage.pairs import QueryPairs, TooFewQueries

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Progress = Callable[[str], None]

RIDGE = 1e-3
"""Of the readout's start, times the mean square of the states."""


class SearchSageTraining(BaseModel):
    """How a query tower is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(1, ge=0)
    batch: int = Field(256, ge=2)
    """Pairs a step."""
    cap: int = Field(16, ge=1)
    """Pairs that one pin has at most."""
    random_negatives: int = Field(4096, ge=0)
    """Pins drawn evenly from the catalogue beside the batch's own; 0 is the post's recipe. A batch alone has
    too few pins of one topic to tell them apart: with a linear head over the demo world's queries recall@10 is
    0.062 with them and 0.035 without, both at a temperature of 0.03."""
    log_q: bool = True
    """Whether the loss corrects for how likely a pin is to be in the pool."""
    temperature: float = Field(0.05, gt=0)
    """Divides cosines in the loss; where it begins if it is learned. At 0.02 the start is too sure of itself,
    and what it knew is lost in a few steps."""
    learn_temperature: bool = False
    learning_rate: float = Field(3e-5, gt=0)
    """Peak of the transformer's, reached after a tenth of the steps; linear decay to a tenth of it."""
    readout_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    max_pairs: int = Field(1_000_000, ge=1)
    """Pairs learned from, the newest where there are more."""
    seed: int = 7

    def share(self, step: int, steps: int) -> float:
        """Share of the peak rate at a step, counted from 0 over the whole run."""
        warm = max(1, steps // 10)
        return (step + 1) / warm if step < warm else 1 - 0.9 * (step - warm) / max(1, steps - warm)


@dataclass(frozen=True)
class Trained:
    """Mean loss of each epoch, and how many pairs were learned from."""

    losses: tuple[float, ...]
    pairs: int
    recall: dict[float, float] = field(default_factory=dict)
    """Recall@10 of the checked pairs by the share of the way from the start; empty where none were given."""


class _Learner(nn.Module):
    """The tower and the temperature that it is learned with."""

    def __init__(self, tower: QueryTower, training: SearchSageTraining) -> None:
        super().__init__()
        self.tower = tower
        learned = training.learn_temperature
        self.log_scale = nn.Parameter(torch.tensor(-math.log(training.temperature)), requires_grad=learned)

    def loss(self, ids: Sequence[Sequence[int]], pins: Tensor, log_q: Tensor, batch: Batch) -> Tensor:
        """Of one batch; `ids` are of its queries, `pins` (p, d) and `log_q` (p,) of the catalogue."""
        queries = encode(self.tower, ids)  # (u, d)
        pool = torch.from_numpy(batch.pool)
        return batch.softmax(self.log_scale.exp() * (queries @ pins[pool].T) - log_q[pool])


def train(
    tower: QueryTower,
    tokens: QueryTokens,
    pairs: QueryPairs,
    pins: FrozenPins,
    training: SearchSageTraining,
    *,
    checked: QueryPairs | None = None,
    text: Floats | None = None,
    identity: str = "",
    checkpoints: Path | None = None,
    checkpoint_steps: int = 100,
    progress: Progress | None = None,
) -> Trained:
    """Train the tower on `pairs`; equal arguments give equal weights, interrupted or not.

    With `checked`, pairs to choose on, the weights are those of `averaging.settle`; else the last. `text`
    (width, t) turns the tower's own states into the first t places of pins, where those hold what it says of
    their words; else all places begin as a regression. With `checkpoints` the state is kept there every
    `checkpoint_steps` steps and after each epoch, and a run that was cut short goes on from it; `identity`
    tells runs on other data apart. Raises TooFewQueries where no pair's pin has a vector, and ValueError on a
    checkpoint of another run and a loss that is not finite.
    """
    pairs = _used(pairs, pins, training)
    plan = BatchPlan(
        pairs.query,
        pins.rows(pairs.pins),
        training.batch,
        training.random_negatives,
        pins.candidates,
        training.seed,
    )
    tower.eval()  # no dropout: what a step does is fixed by its batch
    with used_words(tower, tokens(pairs.queries)) as ids:
        start_readout(tower, ids, plan, pins, text)
    start = weights_of(tower)
    with used_words(tower, tokens(pairs.queries)) as ids:
        losses = _epochs(tower, ids, plan, pins, training, identity, checkpoints, checkpoint_steps, progress)
    recall = {}
    if checked is not None and losses:
        recall = settle(tower, start, tokens, checked, pins)
        if progress is not None:
            said = ", ".join(f"{share:g}: {found:.4f}" for share, found in recall.items())
            progress(f"searchsage: recall@10 of {len(checked)} checked pairs by share of the way: {said}")
    return Trained(losses, len(pairs), recall)


def _epochs(
    tower: QueryTower,
    ids: Sequence[Sequence[int]],
    plan: BatchPlan,
    pins: FrozenPins,
    training: SearchSageTraining,
    identity: str,
    checkpoints: Path | None,
    checkpoint_steps: int,
    progress: Progress | None,
) -> tuple[float, ...]:
    """Mean loss of each epoch, those of a run that was cut short included."""
    learner = _Learner(tower, training)
    optimiser = _optimiser(learner, training)
    said = f"searchsage\0{identity}\0{training.model_dump_json()}"
    run = hashlib.sha256(said.encode()).hexdigest()[:32]
    place = (checkpoints and load_checkpoint(checkpoints, run, learner, optimiser)) or Place()
    vectors, log_q = torch.from_numpy(pins.vectors), torch.zeros(len(pins.ids))
    if training.log_q:
        log_q = torch.from_numpy(plan.log_q(len(pins.ids)))
    each = len(plan.order(0))  # how a shuffle packs may make one batch more or less
    for epoch in range(place.epoch, training.epochs):
        order = plan.order(epoch)
        for step in range(place.step, len(order)):
            share = training.share(min(epoch * each + step, training.epochs * each - 1), training.epochs * each)
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * share
            batch = plan.batch(epoch, step, order[step])
            optimiser.zero_grad(set_to_none=True)
            loss = learner.loss([ids[q] for q in batch.queries.tolist()], vectors, log_q, batch)
            loss.backward()
            nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
            optimiser.step()
            place = Place(epoch, step + 1, place.losses, place.running + loss.item())
            if not np.isfinite(place.running):
                raise ValueError(f"searchsage: loss {loss.item()} in epoch {epoch + 1}; lower learning_rate")
            if checkpoints is not None and (step + 1) % checkpoint_steps == 0 and step + 1 < len(order):
                save_checkpoint(checkpoints, run, place, learner, optimiser)
        place = Place(epoch + 1, 0, (*place.losses, place.running / len(order)))
        if checkpoints is not None:
            save_checkpoint(checkpoints, run, place, learner, optimiser)
        if progress is not None:
            progress(f"searchsage: epoch {epoch + 1} of {training.epochs}, loss {place.losses[-1]:.4f}")
    return place.losses


def start_readout(
    tower: QueryTower,
    ids: Sequence[Sequence[int]],
    plan: BatchPlan,
    pins: FrozenPins,
    text: Floats | None = None,
) -> None:
    """Set the readout to the ridge regression of each query's mean engaged pin on its state, by its pairs; with
    `text` (width, t) its first t places to that of unit states, and its last, engagement, to all of a pin's."""
    states = torch.empty(len(ids), tower.readout.in_features, dtype=torch.float64)
    with torch.inference_mode():
        for rows, t in by_length(ids, BLOCK):
            states[torch.from_numpy(rows)] = tower.states(torch.from_numpy(t)).double()
    weight, bias = _ridge(states, plan, pins)
    if text is not None:
        places = text.shape[1]
        weight[:, :places] = torch.from_numpy(text) / states.norm(dim=1).mean()
        bias[:places] = 0
        weight[:, -1], bias[-1] = 0, 1
    with torch.no_grad():
        tower.readout.weight.copy_(weight.T.float())
        tower.readout.bias.copy_(bias.float())


def _ridge(states: Tensor, plan: BatchPlan, pins: FrozenPins) -> tuple[Tensor, Tensor]:
    """(weight (width, d), bias (d,)) of `states` (u, width), each as often as it has pairs."""
    weight = torch.from_numpy(np.bincount(plan.query, minlength=len(states)).astype(np.float64))
    sums = torch.zeros(len(states), pins.vectors.shape[1], dtype=torch.float64)
    sums.index_add_(0, torch.from_numpy(plan.query), torch.from_numpy(pins.vectors[plan.rows]).double())
    share, wanted = weight / weight.sum(), sums / weight.clamp(min=1)[:, None]
    middle, target = share @ states, share @ wanted
    x, y = states - middle, wanted - target
    gram = x.T @ (share[:, None] * x)
    gram += RIDGE * gram.diagonal().mean().clamp(min=1e-12) * torch.eye(len(gram), dtype=torch.float64)
    solved = torch.linalg.solve(gram, x.T @ (share[:, None] * y))
    return solved, target - middle @ solved


def _used(pairs: QueryPairs, pins: FrozenPins, training: SearchSageTraining) -> QueryPairs:
    """Those that are learned from: pins that have a vector, the newest pairs, the cap."""
    known = pins.rows(pairs.pins) >= 0
    if not known.any():
        raise TooFewQueries(f"none of the pins of {len(pairs)} pairs has a vector to map queries to")
    pairs = pairs.where(known)
    newest = np.arange(len(pairs)) >= len(pairs) - training.max_pairs
    return pairs.where(newest).capped(training.cap, training.seed)


def _optimiser(learner: _Learner, training: SearchSageTraining) -> torch.optim.Optimizer:
    """AdamW; the readout, and what begins at random, learns faster than what was trained before."""
    tower = learner.tower
    groups = [
        {"params": list(tower.transformer.parameters()), "peak": training.learning_rate},
        {"params": list(tower.readout.parameters()), "peak": training.readout_rate},
    ]
    if training.learn_temperature:
        groups.append({"params": [learner.log_scale], "peak": training.readout_rate, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)
