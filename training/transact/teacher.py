"""What trees know, told to the network: a head learns from labels and from what boosted trees answer.

    target = (1 - share) label + share p_trees

Trees of few levels find what features say alone and in pairs, and stop before they learn chance. A network that
meets a few thousand rare answers, hides for one, finds less of it and more chance; a probability says more of a
row than the one answer it got (arXiv 1503.02531; from trees to networks: DeepGBM, KDD 2019). Serving needs no
trees.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.models.transact import TransActConfig
from training.pipelines.fitting import GbdtConfig, NothingToLearn, Rows, fit_gbdt
from training.transact.examples import Examples
from training.transact.starting import head_rows

Floats = NDArray[np.float32]


class Teacher(BaseModel):
    """How trees teach."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(0.7, gt=0, le=1)
    """Of a target that is the trees' answer; the rest is the label."""
    newest: float = Field(0.1, gt=0, lt=1)
    """Share of the rows, the newest ones, that say when there are enough trees."""
    trees: GbdtConfig = GbdtConfig(depth=3, learning_rate=0.2, threads=1)


def taught(
    teacher: Teacher, config: TransActConfig, examples: Examples, actions: Sequence[str], seed: int
) -> Floats:
    """What each head of `config` is to answer to each row, (n, H) in [0, 1]; `actions` name the label columns.

    A head whose older or newer rows hold one outcome only has no trees and learns from its labels alone.
    """
    newest = examples.request_ms >= np.quantile(examples.request_ms, 1 - teacher.newest)
    targets = []
    for rows in head_rows(config.heads, examples, actions):
        try:
            trees = fit_gbdt(_of(rows, ~newest), _of(rows, newest), config.spec, teacher.trees, seed=seed)
        except NothingToLearn:
            targets.append(rows.label)
            continue
        answers = trees.score(rows.features)
        targets.append((1 - teacher.share) * rows.label + teacher.share * answers)
    return np.stack(targets, axis=1).astype(np.float32)


def _of(rows: Rows, chosen: NDArray[np.bool_]) -> Rows:
    return Rows(rows.features[chosen], rows.label[chosen], rows.weight[chosen])
