"""From a feed of sponsored pins to the ads model's probabilities: the assembly that training uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bentos.breaker import PartAbsent
from bentos.heads import Heads
from bentos.ranking_features import meetings
from training.models.ads.rows import assemble

if TYPE_CHECKING:
    from bentos.feed import Feed


class NoAdsModel(PartAbsent):
    """The release has no ads model, or this process did not load it."""


def score(feed: Feed) -> Heads:
    """Calibrated probabilities of `feed.candidates` beside `feed.pin_id`. Raises NoAdsModel.

    A pin without a live campaign is of no source that a model knows: the shared tower answers.
    """
    release, table = feed.release, feed.pins
    if release.ads is None:
        raise NoAdsModel(
            release.no_ads if not release.has_ads else f"{release.ads_name} is not loaded in this process"
        )
    ids = feed.candidates.pin_ids
    rows, anchor = table.rows(ids), table.rows(np.array([feed.pin_id], np.int64))
    live = release.campaigns.live(feed.now_ms)
    at, here = live.rows(ids)
    sources = np.where(here, live.sources[at], "") if len(live) else np.full(len(ids), "")
    n = len(ids)
    made = assemble(
        user_scalars=feed.user.scalars,
        pin_scalars=table.stats.scalars[rows],
        interactions=meetings(feed),
        sources=sources,
        user_ids=np.full(n, feed.user_id, np.int64),
        pin_ids=ids,
        pin_topics=table.stats.topics[rows],
        anchor_topics=np.repeat(table.stats.topics[anchor], n, axis=0),
        pin_vectors=table.vectors[rows],
        anchor_vectors=np.repeat(table.vectors[anchor], n, axis=0),
    )
    p = release.ads.score(made, sources)
    return Heads(release.ads_name, release.ads.heads, ids, p, calibrated=True)
