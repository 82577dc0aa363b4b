"""A period to learn from and one to measure on; one model of each kind fitted to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.interests.engagements import Engagements, UserDays, ms, read_engagements
from training.interests.evaluation import existing
from training.interests.learners import ConditionalLearner, ImplicitLearner, TopicAssociation, fit_clusters
from training.interests.trainer import InterestsTraining, Trained, train
from training.models.interactions import Pins
from training.models.interests import Construction, InterestNetwork, InterestsConfig
from training.models.interests.network import seeded
from validation.lake import Lake


class TooFewEngagements(ValueError):
    """The days hold no engagement to learn from, or none to measure on."""


@dataclass(frozen=True)
class Period:
    """One catalogue, the days to learn from and the days to measure on."""

    data: Engagements
    train: UserDays
    held_out: UserDays
    candidates: NDArray[np.int64]
    """Catalogue rows that existed when training ends."""


def read_period(lake: Lake, pins: Pins, cut: datetime, end: datetime, train_days: int) -> Period:
    """What is held out, `cut` to `end` (UTC midnights), and the `train_days` before it that the lake has.

    Raises TooFewEngagements where either has none.
    """
    start = max(cut - timedelta(days=train_days), lake.interval()[0])
    data = read_engagements(lake, pins, min(start, cut), end)
    period = Period(
        data,
        data.days.between(start, cut),
        data.days.between(cut, end),
        existing(data.catalogue, ms(cut)),
    )
    if not len(period.train) or not len(period.held_out):
        raise TooFewEngagements(
            f"{len(period.train.pins)} engagements from {start:%Y-%m-%d} to {cut:%Y-%m-%d} and "
            f"{len(period.held_out.pins)} until {end:%Y-%m-%d}; both need some: bring more actions"
        )
    return period


def fit_implicit(
    period: Period,
    network: InterestsConfig,
    training: InterestsTraining,
    *,
    checkpoints: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[InterestNetwork, Trained]:
    """One implicit model trained on the period's training days."""
    made = _network(period, network, training.seed)
    if network.construction is Construction.PFS:
        fit_clusters(made, period.data.catalogue.features, training.seed)
    learner = ImplicitLearner(made, period.data)
    trained = train(
        learner,
        period.train,
        period.candidates,
        training,
        name=network.construction.value,
        identity=network.model_dump_json(),
        checkpoints=checkpoints,
        progress=progress,
    )
    return made, trained


def fit_conditional(
    period: Period,
    network: InterestsConfig,
    training: InterestsTraining,
    association: TopicAssociation,
    *,
    checkpoints: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[InterestNetwork, Trained, TopicAssociation]:
    """Conditional retrieval trained on the engagements that have a topic to be associated with.

    Where no impression names a source topic the item's topics are used; the association that was is returned.
    Raises TooFewEngagements where neither is there.
    """
    days = period.train
    if association is TopicAssociation.SOURCE and not days.sources.any():
        association = TopicAssociation.ITEM
    topics = period.data.catalogue.features.topics
    with_topic = days.sources > 0 if association is TopicAssociation.SOURCE else topics[days.pins].any(axis=1)
    if not with_topic.any():
        raise TooFewEngagements("no engagement names a topic, of its pin or of its source; bring topics")
    made = _network(period, network, training.seed)
    trained = train(
        ConditionalLearner(made, period.data, association),
        days.where(with_topic),
        period.candidates,
        training,
        name="conditional",
        identity=f"{network.model_dump_json()}{association}",
        checkpoints=checkpoints,
        progress=progress,
    )
    return made, trained, association


def _network(period: Period, config: InterestsConfig, seed: int) -> InterestNetwork:
    catalogue = period.data.catalogue
    return seeded(config, catalogue.features.content.shape[1], catalogue.topics, seed)
