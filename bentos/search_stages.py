"""What only search does: weigh meaning and words, and leave out pins of topics it is not about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bentos.candidates import Candidates
from bentos.features import Flags, Floats, Ints
from bentos.sources import lexical, searchsage
from bentos.stages import Merge, merge
from training.models.source_lists import DAMPING

if TYPE_CHECKING:
    from bentos.feed import Feed

TOP = 20
"""Best results whose topics are the query's."""
COVERED = 0.9
"""Share of them, by reciprocal rank, that the query's topics explain: the rest may be chance."""


@dataclass(frozen=True)
class Blend(Merge):
    """`Merge` in which meaning and words count what the release has chosen on its checked pairs."""

    def merged(self, feed: Feed, budget: int) -> Candidates:
        fusion = feed.release.fusion
        weights = {searchsage.NAME: fusion.meaning, lexical.NAME: 1 - fusion.meaning}
        return merge(*feed.brought, budget, weights, fusion.damping)


def on_topic(feed: Feed) -> Flags:
    """Of the query's topics, of one above, below or beside them, or of none that is known, (n,).

    The query's topics are the fewest, largest first, that explain COVERED of the TOP best results. All pass
    where results have no topics, and where nothing was found for the query.
    """
    topics = feed.pins.stats.topics[feed.pins.rows(feed.candidates.pin_ids)]  # (n, t), 0 is none
    asked = topics_of(topics[:TOP])
    if feed.fallback or not len(asked):
        return np.ones(len(topics), bool)
    parents = {topic: named.parent_id for topic, named in feed.release.topics.items()}
    family = {*asked.tolist(), *(parents.get(topic, 0) for topic in asked.tolist())} - {0}
    near = [t for t in np.unique(topics).tolist() if t in family or parents.get(t, 0) in family]
    return np.isin(topics, near).any(axis=1) | ~topics.any(axis=1)


def topics_of(topics: Ints) -> Ints:
    """The query's topics out of those of its best results (n, t), best first; largest share first."""
    rank = np.arange(len(topics))
    weights: Floats = np.where(topics.any(axis=1), 1 / (DAMPING + rank), 0).astype(np.float32)
    whole, open_ = weights.sum(), np.ones(len(topics), bool)
    chosen: list[int] = []
    while weights[open_].sum() > (1 - COVERED) * whole:
        left = topics[open_]
        candidates = np.unique(left[left > 0])
        held = (left[None] == candidates[:, None, None]).any(axis=2)  # (topics, n)
        best = int(candidates[(held * weights[open_]).sum(axis=1).argmax()])
        chosen.append(best)
        open_ &= ~(topics == best).any(axis=1)
    return np.array(chosen, np.int64)
