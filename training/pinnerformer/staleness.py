"""How much a vector loses by age: made once, every midnight, or before every action (paper, table 2)."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from training.models.pinnerformer.tokens import MS_PER_DAY
from training.pinnerformer.evaluation import RECALL_AT, Positives, known_pins
from training.pinnerformer.retriever import Retriever

Ints = NDArray[np.int64]

_BLOCK = 1024


class Refresh(StrEnum):
    """When a user's vector is made anew."""

    ONCE = "once"
    DAILY = "daily"
    REALTIME = "realtime"

    def as_of(self, asked_ms: Ints, cut_ms: int) -> Ints:
        """Time of the vector that serves at `asked_ms`, both (h,) Unix ms: it knows what came before."""
        if self is Refresh.ONCE:
            return np.full(len(asked_ms), cut_ms)
        if self is Refresh.DAILY:
            return cut_ms + (asked_ms - cut_ms) // MS_PER_DAY * MS_PER_DAY
        return asked_ms


def recall_by_refresh(retriever: Retriever, positives: Positives) -> dict[Refresh, float]:
    """Recall@10 of the same positives under each refresh, from `retriever.as_of_ms` on.

    Whatever the refresh, pins the user acted on before the positive are out of the running: the seen filter is
    live even where the vector is old.
    """
    ranks = {refresh: refreshed_ranks(retriever, positives, refresh) for refresh in Refresh}
    return {refresh: float((found < RECALL_AT).mean()) for refresh, found in ranks.items()}


def refreshed_ranks(retriever: Retriever, positives: Positives, refresh: Refresh) -> Ints:
    """Rank from 0 of each positive among the candidates by the vector in service at its time, (h,).

    Of equal scores the lower row is ahead, as in `top_pins`: nothing tells pins of one content vector apart.
    """
    lines = retriever.timelines
    ends = lines.ends_before(positives.users, refresh.as_of(positives.asked_ms, retriever.as_of_ms))
    queries, of = np.unique(np.stack([positives.users, ends]), axis=1, return_inverse=True)
    vectors = retriever.user_vectors(queries[0], queries[1])
    index = np.ascontiguousarray(retriever.pin_vectors[retriever.candidates].T)
    place = np.full(len(retriever.pin_vectors), -1, np.int64)
    place[retriever.candidates] = np.arange(len(retriever.candidates))
    seen = known_pins(lines, positives.users, lines.ends_before(positives.users, positives.asked_ms))
    ranks = np.empty(len(positives), np.int64)
    of = of.reshape(-1)
    for start in range(0, len(ranks), _BLOCK):
        scores = vectors[of[start : start + _BLOCK]] @ index  # (b, candidates)
        for i, rows in enumerate(seen[start : start + _BLOCK]):
            at = place[rows[rows >= 0]]
            scores[i, at[at >= 0]] = -np.inf
        at = place[positives.pin_rows[start : start + _BLOCK], None]  # (b, 1)
        right = np.take_along_axis(scores, at, axis=1)
        ahead = (scores > right) | ((scores == right) & (np.arange(scores.shape[1]) < at))
        ranks[start : start + _BLOCK] = ahead.sum(axis=1)
    return ranks
