"""Networks of the temporal table, each trained on what lies before the cut: PinnerFormer, multi-interest
retrieval with its baselines, conditional retrieval, the two towers, and RecTools' SASRec.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from training.evaluation.as_of import AsOf, Ints, NotApplicable, Recommend, best_new
from training.evaluation.sasrec import INSTALL, SasRecConfig, installed
from training.evaluation.sasrec import recommend as sasrec_recommend
from training.evaluation.temporal_spaces import OpenSentences, content_pins, default_sentences
from training.interests.engagements import UserDays, followed_topics, read_engagements
from training.interests.evaluation import (
    BLOCK,
    Scores,
    conditional_scores,
    existing,
    implicit_scores,
    two_tower_scores,
)
from training.interests.fitting import Period, TooFewEngagements, fit_conditional, fit_implicit
from training.models.interests import Construction, Method, sample_followed
from training.models.interests.budgets import FOLLOWED
from training.models.pinnerformer import PinnerFormerConfig
from training.pinnerformer.retriever import Retriever
from training.pinnerformer.timelines import LabelRules, Timelines, read_timelines
from training.pinnerformer.trainer import NothingToPredict, PinnerFormerTraining, train_network
from training.pipelines.interests import InterestsPipeline
from training.pipelines.two_tower import TwoTowerPipeline, fit_two_tower
from validation.tables import ACTION, ACTIONS, PIN_ID, TIMESTAMP, USER_ID, Polarity

SEQUENCES, LEAST_EPOCHS = 25_000, 3
"""What a table fits PinnerFormer on: minutes a seed, whatever the length of the histories."""


def pinnerformer(
    known: AsOf,
    *,
    network: PinnerFormerConfig,
    labels: LabelRules,
    training: PinnerFormerTraining = PinnerFormerTraining(),
    seed: int,
    sentences: OpenSentences = default_sentences,
) -> Recommend:
    """PinnerFormer on every timeline before the cut, each user's vector as of the cut."""
    pins = content_pins(known, sentences)
    lines = read_timelines(known.lake, pins.ids, known.cut, labels)
    content = np.ascontiguousarray(pins.vectors, np.float32)
    epochs = epochs_of(lines, network.length, training)
    training = training.model_copy(update={"seed": seed, "epochs": epochs})
    try:
        trained = train_network(network, lines, content, training).network
    except NothingToPredict as reason:
        raise NotApplicable(str(reason)) from reason
    every = np.arange(len(pins.ids))
    return Retriever(trained, content, pins.ids, every, lines, known.cut_ms).recommend


def epochs_of(lines: Timelines, length: int, training: PinnerFormerTraining) -> int:
    """Epochs that see about `SEQUENCES` sequences: at most those asked for, at least `LEAST_EPOCHS`."""
    of_users = np.minimum(-(-np.diff(lines.offsets) // length), training.sampling.sequences_per_user)
    return min(training.epochs, max(LEAST_EPOCHS, SEQUENCES // max(int(of_users.sum()), 1)))


def interests(
    known: AsOf,
    *,
    method: Method,
    config: InterestsPipeline,
    seed: int,
    sentences: OpenSentences = default_sentences,
) -> Recommend:
    """One multi-interest user model: the best product over a user's embeddings."""
    period = period_before(known, config.train_days, sentences)
    training = config.training.model_copy(update={"seed": seed})
    network, _ = fit_implicit(period, method.config(config.network), training)
    return by_products(known, period, implicit_scores(network, period.data))


def conditional(
    known: AsOf, *, config: InterestsPipeline, seed: int, sentences: OpenSentences = default_sentences
) -> Recommend:
    """Conditional retrieval under at most five of the topics each user followed before the cut.

    Raises NotApplicable where nobody followed any.
    """
    followed = followed_topics(known.lake, known.cut)
    if not followed:
        raise NotApplicable("nobody followed a topic before the cut")
    period = period_before(known, config.train_days, sentences)
    training = config.training.model_copy(update={"seed": seed})
    shape = config.network.model_copy(update={"construction": Construction.TOPICS})
    try:
        network = fit_conditional(period, shape, training, config.association)[0]
    except TooFewEngagements as reason:
        raise NotApplicable(str(reason)) from reason
    topics = {user: sample_followed(of, (seed, user), FOLLOWED) for user, of in followed.items()}
    return by_products(known, period, conditional_scores(network, period.data, topics, filtered=True))


def two_tower(
    known: AsOf, *, config: TwoTowerPipeline, seed: int, sentences: OpenSentences = default_sentences
) -> Recommend:
    """The two towers, pins with their performance as of the cut."""
    period = period_before(known, config.train_days, sentences)
    config = config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})
    network, _ = fit_two_tower(period, config.fitted_to(len(period.train.pins)))
    return by_products(known, period, two_tower_scores(network, period.data))


def sasrec(known: AsOf, *, config: SasRecConfig) -> Recommend:
    """SASRec of RecTools on the pins each user took before the cut, each at its first time, in order.

    Raises NotApplicable where RecTools is not installed.
    """
    if not installed():
        raise NotApplicable(INSTALL)
    positive = known.lake.contract().vocabulary.codes(Polarity.POSITIVE)
    rows = known.lake.read(ACTIONS.name, [USER_ID, PIN_ID, ACTION, TIMESTAMP], end=known.cut)
    rows = rows[rows[ACTION].isin(positive) & rows[PIN_ID].isin(known.pins)]
    rows = rows.sort_values(TIMESTAMP, kind="stable").drop_duplicates([USER_ID, PIN_ID])

    def recommend(users: Ints, k: int) -> Ints:
        pairs = (rows[column].to_numpy(np.int64) for column in (USER_ID, PIN_ID))
        found = sasrec_recommend(*pairs, users, k, config)
        out = np.zeros((len(users), k), np.int64)
        for row, user in zip(out, users.tolist(), strict=True):
            pins = found.pins[found.users == user]
            row[: len(pins)] = pins
        return out

    return recommend


def period_before(known: AsOf, days: int, sentences: OpenSentences = default_sentences) -> Period:
    """The last `days` before the cut to learn from, once a cut; nothing is held out.

    Raises NotApplicable where they hold no engagement.
    """
    period = known.once(("period", days), lambda: _period(known, days, sentences))
    if not len(period.train):
        raise NotApplicable(f"the {days} days before the cut hold no engagement with a pin that has content")
    return period


def _period(known: AsOf, days: int, sentences: OpenSentences) -> Period:
    start = max(known.cut - timedelta(days=days), known.lake.interval()[0])
    data = read_engagements(known.lake, content_pins(known, sentences), start, known.cut)
    nothing = data.days.take(np.empty(0, np.int64))
    return Period(data, data.days, nothing, existing(data.catalogue, known.cut_ms))


def by_products(known: AsOf, period: Period, scores: Scores) -> Recommend:
    """A recommender from scores of the period's catalogue, users as of the cut."""
    columns = np.searchsorted(known.pins, period.data.catalogue.ids)
    nothing = np.empty(0, np.int64)

    def recommend(users: Ints, k: int) -> Ints:
        out = np.zeros((len(users), k), np.int64)
        for start in range(0, len(users), BLOCK):
            some = users[start : start + BLOCK]
            times = np.full(len(some), known.cut_ms)
            days = UserDays(some, times, np.zeros(len(some) + 1, np.int64), nothing, nothing)
            every = np.full((len(some), len(known.pins)), -np.inf, np.float32)
            every[:, columns] = scores(days).scores.max(axis=1)
            out[start : start + BLOCK] = best_new(known, every, known.rows_of(some), k)
        return out

    return recommend
