"""Hits of several queries as one list of candidates: each query's share, in turns, every pin once."""

from __future__ import annotations

from dataclasses import dataclass

from bentos.features import Floats, Ints
from feature_repo.vectors.index import Hits


@dataclass(frozen=True)
class Found:
    """n pins, every query's best first, then every query's second, and so on."""

    pin_ids: Ints  # (n,) distinct
    scores: Floats  # (n,) likeness to the query that brought the pin
    owners: Ints  # (n,) which query that was


def in_turns(hits: Hits, shares: Ints) -> Found:
    """The first `shares[q]` hits of each query q, dealt in turns; padding is dropped."""
    from training.models.interests import round_robin

    pins, owners = round_robin([row[:share] for row, share in zip(hits.ids, shares.tolist(), strict=True)])
    places = (hits.ids[owners] == pins[:, None]).argmax(axis=1)
    return Found(pins, hits.scores[owners, places], owners)
