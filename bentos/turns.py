"""Hits of several queries as one list of candidates: each query's share, in turns, every pin once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bentos.features import Floats, Ints
from feature_repo.vectors.index import Hits
from training.models.light_kernels import first_places


@dataclass(frozen=True)
class Found:
    """n pins, every query's best first, then every query's second, and so on."""

    pin_ids: Ints  # (n,) distinct
    scores: Floats  # (n,) likeness to the query that brought the pin
    owners: Ints  # (n,) which query that was


def in_turns(hits: Hits, shares: Ints) -> Found:
    """The first `shares[q]` hits of each query q, dealt in turns; padding is dropped."""
    turn = np.flatnonzero(((np.arange(hits.ids.shape[1]) < shares[:, None]) & (hits.ids != 0)).T)
    ids = hits.ids.T.ravel()
    turn = turn[first_places(ids[turn])]
    return Found(ids[turn], hits.scores.T.ravel()[turn], turn % len(hits.ids))
