"""Pins as the outside sees them: ids of the data set's own, cards, reasons, and what was foretold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bentos import why
from bentos.candidates import Candidates
from bentos.features import Card
from bentos.feed import Feed
from bentos.messages import FeedPin, InterestReport, Pin, Topic, UtilityReport
from bentos.ranking_stages import RANKED
from bentos.release import ServingRelease
from bentos.sources import pinnersage
from validation.tables import EntityKind


def as_pins(release: ServingRelease, cards: Sequence[Card]) -> list[Pin]:
    """Cards as the outside sees them, in order."""
    return [Pin(**told) for told in _told(release, cards)]


def _told(release: ServingRelease, cards: Sequence[Card]) -> list[dict[str, Any]]:
    """The fields of a `Pin` for each of `cards`."""
    outside = release.ids.outside(EntityKind.PIN, [card.pin_id for card in cards])
    topics = topics_of(release, cards)
    return [
        {
            "pin_id": pin_id,
            "title": card.title,
            "description": card.description,
            "link_domain": card.link_domain,
            "image": card.image,
            "topics": [topics[t] for t in card.topics if t in topics],
        }
        for pin_id, card in zip(outside, cards, strict=True)
    ]


def as_feed_pins(feed: Feed, candidates: Candidates, cards: dict[int, Card]) -> list[FeedPin]:
    """Candidates as the outside sees them; `cards` holds every one of them."""
    release = feed.release
    columns = zip(
        _told(release, [cards[i] for i in candidates.pin_ids.tolist()]),
        candidates.sources,
        candidates.scores.tolist(),
        feed.foretold(candidates.pin_ids),
        why.reasons(release, candidates, cards),
        feed.sponsors(candidates.pin_ids),
        strict=True,
    )
    return [
        FeedPin(
            **told,
            position=feed.place(nth),
            source=source,
            score=score,
            heads=heads,
            why=reason,
            sponsored=ad.source if ad else None,
        )
        for nth, (told, source, score, heads, reason, ad) in enumerate(columns)
    ]


def utility_of(feed: Feed) -> UtilityReport | None:
    """What ordered the feed; None where no ranker did."""
    if feed.heads is None or feed.ordered_by != RANKED:
        return None
    policy, names = feed.page_policy, feed.heads.names
    weights = np.round(policy.vector(names).astype(np.float64), 6).tolist()
    return UtilityReport(
        ranker=feed.heads.ranker,
        calibrated=feed.heads.calibrated,
        policy=policy.digest,
        weights=dict(zip(names, weights, strict=True)),
        unweighed=list(policy.without_head(names)),
        theta=feed.diversity.theta,
    )


def interests_of(feed: Feed) -> list[InterestReport]:
    """The user's clusters, heaviest first; none on surfaces that do not ask by them."""
    found, total = feed.user.interests, float(feed.user.interests.importances.sum())
    if not any(source.name == pinnersage.NAME for source in feed.sources) or total <= 0:
        return []
    asked: set[int] = set()
    for part in feed.parts:
        if len(part) and part.source == pinnersage.NAME:
            asked.update(part.anchors.tolist())
    medoids = found.medoid_pin_ids.tolist()
    return [
        InterestReport(pin_id=pin_id, importance=round(weight / total, 6), size=size, asked=medoid in asked)
        for pin_id, medoid, weight, size in zip(
            feed.release.ids.outside(EntityKind.PIN, medoids),
            medoids,
            found.importances.tolist(),
            found.sizes.tolist(),
            strict=True,
        )
    ]


def topics_of(release: ServingRelease, cards: Sequence[Card]) -> dict[int, Topic]:
    """Named topics of `cards`, by lake id; topics without a name are left out."""
    named = sorted({t for card in cards for t in card.topics if t in release.topics})
    outside = release.ids.outside(EntityKind.TOPIC, named)
    return {t: Topic(topic_id=o, name=release.topics[t].name) for t, o in zip(named, outside, strict=True)}
