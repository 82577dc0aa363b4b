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
from training.pipelines.fitting import GbdtConfig, Rows, fit_gbdt
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
    min_positives: int = Field(100, ge=1)
    """Of a head that is taught, among the older rows and among the newest, and as many of the other outcome:
    what a head needs to be learned and a calibrator to be fitted."""
    trees: GbdtConfig = GbdtConfig(depth=3, learning_rate=0.2, threads=1)


def taught(
    teacher: Teacher, config: TransActConfig, examples: Examples, actions: Sequence[str], seed: int
) -> tuple[Floats, dict[str, str]]:
    """What each head of `config` is to answer to each row, (n, H) in [0, 1], and the heads that trees do not
    teach, with the reason: they learn from their labels alone. `actions` name the label columns.

    Trees learn from the older rows, so their answers to the newest are of rows they have not seen, and to the
    others of rows they have.
    """
    newest = examples.request_ms >= np.quantile(examples.request_ms, 1 - teacher.newest)
    parts = np.flatnonzero(~newest), np.flatnonzero(newest)
    features = [examples.features[part] for part in parts]
    targets, untaught = [], {}
    for head, rows in zip(config.heads, head_rows(config.heads, examples, actions), strict=True):
        older, newer = (
            Rows(x, rows.label[part], rows.weight[part]) for x, part in zip(features, parts, strict=True)
        )
        found = min(older.outcomes()), min(newer.outcomes())
        if min(found) < teacher.min_positives:
            untaught[head.action] = (
                f"{found[0]} older and {found[1]} newest rows of the rarer outcome, "
                f"{teacher.min_positives} of each are needed"
            )
            targets.append(rows.label)
            continue
        trees = fit_gbdt(older, newer, config.spec, teacher.trees, seed=seed)
        targets.append((1 - teacher.share) * rows.label + teacher.share * trees.score(rows.features))
    return np.stack(targets, axis=1).astype(np.float32), untaught
