"""One fit of an ads model: negatives thinned, towers trained each by its own source, curves on later days."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from training.ads.examples import AdExamples
from training.models.ads.config import SHARED, AdsModelConfig
from training.models.ads.model import AdsModel
from training.models.ads.network import AdsNetwork
from training.models.ads.representation import Batch, Seen
from training.models.calibration import CalibrationConfig, Calibrator, fit

HEADS = ("click", "long_click", "hide")
"""Actions an ads model foretells where the data set has them. The first is what a bid pays for."""

Progress = Callable[[str], None]
Watch = Callable[[int, AdsModel], None]


class NothingToLearn(ValueError):
    """The rows hold no click, or nothing but clicks."""


class Diverged(ValueError):
    """The loss is no number; the message says at which epoch, and the mend."""


class AdsTraining(BaseModel):
    """How an ads model is trained; `model` names sizes, its heads and sources are found in the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: AdsModelConfig = AdsModelConfig()
    epochs: int = Field(4, ge=1)
    batch_rows: int = Field(256, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    """Peak, reached after a fifth of all steps and brought down to nothing along a line."""
    weight_decay: float = Field(1e-2, ge=0)
    negative_rate: float = Field(0.25, gt=0, le=1)
    """Share of rows without any foretold action that are kept; probabilities are corrected for it."""
    min_positives: int = Field(30, ge=1)
    """A source with fewer clicks in training has no tower of its own; a head with none in all is left out."""
    calibration: CalibrationConfig = CalibrationConfig(min_positives=30)
    towers: bool = True
    seed: int = 7

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` (from 0) of `steps` in all; above 0 at each of them."""
        warm = max(1, steps // 5)
        return self.learning_rate * min((step + 1) / warm, (steps - step) / max(1, steps - warm))


@dataclass(frozen=True)
class Layout:
    """What the training rows allow of heads and towers."""

    heads: tuple[str, ...]
    sources: tuple[str, ...]
    left_out: Mapping[str, str]
    """Heads without a head, with the reason."""
    fallbacks: Mapping[str, str]
    """Sources without a tower, with the reason."""


def layout_of(train: AdExamples, training: AdsTraining) -> Layout:
    """Raises NothingToLearn where the rows have no click, or nothing but clicks."""
    heads, left_out = [], {}
    for head in (h for h in HEADS if h in train.actions):
        positives = int(train.of([head]).sum())
        if positives:
            heads.append(head)
        else:
            left_out[head] = f"no {head} among {len(train)} training rows"
    clicked = train.of([heads[0]])[:, 0] if heads[:1] == [HEADS[0]] else np.zeros(len(train), np.float32)
    if not 0 < clicked.sum() < len(train):
        raise NothingToLearn(
            f"{len(train)} impressions of ads with {int(clicked.sum())} of {HEADS[0]}: both outcomes are needed"
        )
    sources, fallbacks = [], {}
    for name in np.unique(train.sources).tolist():
        count = int(clicked[train.sources == name].sum())
        if count >= training.min_positives and name != SHARED:
            sources.append(name)
        else:
            fallbacks[name] = f"{count} clicks in training, a tower needs {training.min_positives}"
    return Layout(tuple(heads), tuple(sources), left_out, fallbacks)


def thinned(train: AdExamples, heads: tuple[str, ...], rate: float, seed: int) -> NDArray[np.bool_]:
    """Rows (n,) that are trained on: all with a foretold action, a share `rate` of the others."""
    kept = train.of(heads).any(axis=1)
    return kept | (np.random.default_rng([seed, 1]).random(len(train)) < rate)


def train_model(
    train: AdExamples,
    validation: AdExamples,
    training: AdsTraining,
    *,
    name: str,
    layout: Layout | None = None,
    watch: Watch | None = None,
    progress: Progress | None = None,
) -> AdsModel:
    """Fit the network on `train` and its curves on `validation`, days after it and unthinned.

    `name` is the version it becomes, `ads_multi_tower@4`; the curves are bound to it. Without `towers` one
    shared tower answers every source. `watch` sees the network, uncalibrated, after each epoch, and may raise.
    Equal arguments and threads give equal weights. Raises NothingToLearn, and Diverged on a loss that is no
    number.
    """
    layout = layout or layout_of(train, training)
    sources = layout.sources if training.towers else ()
    config = training.model.model_copy(update={"heads": layout.heads, "sources": sources})
    config = AdsModelConfig.model_validate(config.model_dump())
    used = train.take(thinned(train, layout.heads, training.negative_rate, training.seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = AdsNetwork(config, Seen.of(used.rows), name)
        network.representation.learn(used.rows)
        _set_rates(network, used, layout.heads)
        model = AdsModel(network, {}, layout.fallbacks)
        _train(model, used, training, watch, progress)
    return calibrated(model, validation, training)


def _set_rates(network: AdsNetwork, used: AdExamples, heads: tuple[str, ...]) -> None:
    """Begin at the rate of each head, so that the first steps do not go into finding it."""
    rate = np.clip(used.of(heads).mean(axis=0), 1e-4, 1 - 1e-4)
    for outer in network.outer:
        with torch.no_grad():
            outer.bias.copy_(torch.from_numpy(np.log(rate / (1 - rate))))


def _train(
    model: AdsModel,
    used: AdExamples,
    training: AdsTraining,
    watch: Watch | None,
    progress: Progress | None,
) -> None:
    network = model.network.train()
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
    )
    batch, labels = Batch.of(used.rows), torch.from_numpy(used.of(network.config.heads))
    towers = torch.from_numpy(model.towers(used.sources))
    steps = -(-len(used) // training.batch_rows)
    for epoch in range(training.epochs):
        order = torch.from_numpy(np.random.default_rng([training.seed, 2, epoch]).permutation(len(used)))
        total = 0.0
        for step, at in enumerate(range(0, len(used), training.batch_rows)):
            optimiser.param_groups[0]["lr"] = training.rate(epoch * steps + step, training.epochs * steps)
            rows = order[at : at + training.batch_rows]
            optimiser.zero_grad(set_to_none=True)
            loss = network.loss(Batch(*(t[rows] for t in batch)), towers[rows], labels[rows])
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            total += loss.item()
        if not np.isfinite(total):
            raise Diverged(f"ads: loss {total} in epoch {epoch + 1}; lower learning_rate")
        if progress is not None:
            progress(f"ads: epoch {epoch + 1} of {training.epochs}, loss {total / steps:.4f}")
        if watch is not None:
            watch(epoch, model)
            network.train()
    network.eval()


def calibrated(model: AdsModel, validation: AdExamples, training: AdsTraining) -> AdsModel:
    """The model with a curve a head for each source and for all of them together, fitted on `validation`.

    A source with too few rows for a curve of a head takes that of all sources.
    """
    p, labels = model.raw(validation.rows, validation.sources), validation.of(model.heads)
    parts = {SHARED: np.ones(len(validation), bool)}  # first: the others fall back on it
    parts |= {s: validation.sources == s for s in np.unique(validation.sources).tolist()}
    curves: dict[str, Calibrator] = {}
    for source, rows in parts.items():
        curves[source] = fit(
            p[rows],
            labels[rows],
            model.heads,
            ranker=model.name,
            config=training.calibration,
            negative_rate=training.negative_rate,
            sample=f"{int(rows.sum())} impressions of {'all sources' if source == SHARED else source}",
            stand_in=curves.get(SHARED),
        )
    return AdsModel(model.network, curves, model.fallbacks)
