"""Sponsored pins near the pin being looked at: an exact product with every pin whose campaign runs now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bentos.candidates import Candidates

if TYPE_CHECKING:
    from bentos.feed import Feed

NAME = "sponsored"


def candidates(feed: Feed) -> Candidates:
    """Nearest first, scored by inner product in the release's pin space, none below the policy's relevance.

    Nothing in a release without an ads model: an ad is not shown unpriced.
    """
    release = feed.release
    if not release.has_ads:
        feed.fallback = release.no_ads
        return Candidates.none()
    live = release.campaigns.live(feed.now_ms)
    anchor, known = release.vectors(np.array([feed.pin_id], np.int64), release.pin_space)
    if not len(live) or not known.any():
        return Candidates.none()
    vectors, present = release.sponsored_vectors.of(
        live.pin_ids, lambda ids: release.vectors(ids, release.pin_space)
    )
    scores = vectors @ anchor[0]
    near = np.flatnonzero(present & (scores >= release.ads_policy.relevance) & (live.pin_ids != feed.pin_id))
    best = near[np.argsort(-scores[near], kind="stable")]
    return Candidates.of(NAME, live.pin_ids[best], scores[best], feed.pin_id, "similar")
