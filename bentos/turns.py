"""Hits of several queries as one list of candidates: each query's share, in turns, every pin once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bentos.features import Floats, Ints
from feature_repo.vectors.index import Hits
from training.models.light_kernels import compiled, dealt


@dataclass(frozen=True)
class Found:
    """n pins, every query's best first, then every query's second, and so on."""

    pin_ids: Ints  # (n,) distinct
    scores: Floats  # (n,) likeness to the query that brought the pin
    owners: Ints  # (n,) which query that was


def in_turns(hits: Hits, shares: Ints) -> Found:
    """The first `shares[q]` hits of each query q, dealt in turns; padding is dropped."""
    return Found(
        *dealt(compiled(hits.ids, np.int64), compiled(hits.scores, np.float32), compiled(shares, np.int64))
    )
