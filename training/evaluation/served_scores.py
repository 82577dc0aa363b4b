"""Rows of a training set scored by any ranker as serving would have scored them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.data.training_set import Block
from training.models.ranker import Candidates, Ranker, Request
from training.transact.examples import Examples, Known

Floats = NDArray[np.float32]


def served_scores(
    ranker: Ranker,
    block: Block,
    known: Known | None = None,
    *,
    as_of_ms: NDArray[np.int64] | None = None,
) -> Floats:
    """Raw scores, (n, H) float32: what was known at each row's time, every pin at serving's position.

    `known` is what a ranker of sequences reads beside the rows, `as_of_ms` (n,) when the histories were cut,
    the last midnight where it is not given. Raises ValueError where such a ranker is given none, or vectors of
    users in another space than its own.
    """
    from training.models.transact.ranker import TransActRanker

    if not isinstance(ranker, TransActRanker):
        features = ranker.spec.assemble(
            block.user_scalars, block.pin_scalars, block.interactions, query=block.query
        )
        nothing = np.empty((len(block), 0), np.float32)
        return ranker.score_heads(Request.stranger(0), Candidates(nothing, features))
    if known is None:
        raise ValueError("a ranker of sequences reads everyone's actions; give what is known")
    if ranker.user_space is not None and known.user_space != ranker.user_space:
        raise ValueError(f"the ranker reads users in {ranker.user_space}, the rows have {known.user_space}")
    from training.transact.trainer import predict

    users = known.users if ranker.user_space is not None else None
    examples = Examples.of(
        block,
        known.log,
        known.pins,
        ranker.spec,
        users,
        serving=True,
        shown=known.shown,
        as_of_ms=as_of_ms,
    )
    return predict(ranker.network, examples)
