"""Models of the leave-one-out table that read the order in which a user took pins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.evaluation.leave_one_out import TrainSet
from training.evaluation.sasrec import SasRecConfig, few_users_batch, recommend
from training.models.baselines import Scorer
from training.models.pinnerformer import PinnerFormerConfig, embed_pins, embed_users
from training.models.pinnerformer.config import TokenFeatures
from training.models.pinnerformer.tokens import MS_PER_DAY, ActionArrays
from training.pinnerformer.batches import Sampling
from training.pinnerformer.timelines import Timelines
from training.pinnerformer.trainer import PinnerFormerTraining, train_network

LISTED = 5_000
"""Pins that SASRec names for a user at most; those beyond are ranked behind them, all equal."""

NETWORK = PinnerFormerConfig(
    id_dim=64,
    layers=1,
    heads=2,
    hidden=64,
    length=100,
    dropout=0.2,
    features=TokenFeatures(action=False, surface=False, duration=False, time=False),
)
"""PinnerFormer where pins have no content: ids, in order. One block and the rate of `TRAINING` were chosen by
the newest-but-one pins of a small demo world's users."""

TRAINING = PinnerFormerTraining(epochs=20, learning_rate=3e-3, sampling=Sampling(users=128))


def pinnerformer(
    train: TrainSet, *, config: PinnerFormerConfig = NETWORK, training: PinnerFormerTraining = TRAINING
) -> Scorer:
    """PinnerFormer with its id embedding, from pairs and their order alone.

    Interactions on file rarely say what unit their clock has, so every pair counts as a day: a window of K days
    is the user's next K pins. Few users make small batches, as SASRec's do.
    """
    lines, (users, pins) = timelines(train), train.matrix.shape
    sampling = training.sampling.model_copy(update={"users": few_users_batch(users, training.sampling.users)})
    training = training.model_copy(update={"sampling": sampling})
    nothing = np.empty((pins, 0), np.float32)
    network = train_network(config, lines, nothing, training).network
    index = np.ascontiguousarray(embed_pins(network, nothing).T)

    def score(users: NDArray[np.integer]) -> NDArray[np.float32]:
        starts, ends = lines.offsets[:-1][users], lines.offsets[1:][users]
        return embed_users(network, lines.arrays, starts, ends, nothing) @ index

    return score


def timelines(train: TrainSet) -> Timelines:
    """One timeline a row of the matrix, a day a pair, every pair a label."""
    order = np.argsort(train.users, kind="stable")
    counts = np.bincount(train.users, minlength=train.matrix.shape[0])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    n = len(order)
    times = (np.arange(n) - np.repeat(offsets[:-1], counts) + 1) * MS_PER_DAY
    ones, zeros = np.ones(n, np.int8), np.zeros(n, np.int8)
    arrays = ActionArrays(train.pins[order].astype(np.int32), ones, zeros, np.zeros(n, np.float32), times)
    return Timelines(np.arange(len(counts)), offsets, arrays, np.ones(n, bool), times)


def sasrec(train: TrainSet, *, config: SasRecConfig) -> Scorer:
    """SASRec of RecTools; raises SasRecError where it is not installed."""
    users, pins = train.matrix.shape
    k = min(LISTED, pins)
    found = recommend(train.users, train.pins, np.arange(users), k, config)
    order = np.argsort(found.users, kind="stable")
    ends = np.searchsorted(found.users[order], np.arange(users + 1))

    def score(chosen: NDArray[np.integer]) -> NDArray[np.float32]:
        scores = np.full((len(chosen), pins), found.scores.min(initial=0.0) - 1.0, np.float32)
        for row, user in enumerate(chosen.tolist()):
            of = order[ends[user] : ends[user + 1]]
            scores[row, found.pins[of]] = found.scores[of]
        return scores

    return score
