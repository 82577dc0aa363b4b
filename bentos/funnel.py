"""The funnel, whole: what happens to a request, in order. Everything else in this folder serves these lists.

features -> candidate sources, or what is popular -> merge -> filters -> light ranking -> shortlist -> vectors
-> near-duplicates (last of the filters, since it costs the square of the candidates) -> heavy ranking ->
calibration -> utility -> diversity. The side effect, logging what was shown, follows in `feed_service.py`.
Under load the quality factor (`load.py`) shrinks merge and shortlist, and leaves out the sources whose
`quality` it has fallen below.
"""

from __future__ import annotations

from bentos import filters
from bentos.ads_stages import Price, Slots
from bentos.feed import Surface
from bentos.popular_stage import OrPopular
from bentos.ranking_stages import Calibrate, Diversify, Rank, Value
from bentos.search_stages import Blend, on_topic
from bentos.sources import (
    conditional,
    dcm,
    followed_boards,
    followed_topics,
    lexical,
    pinnerformer,
    pinnersage,
    pixie,
    popular_by_topic,
    saved_together,
    searchsage,
    similar_pins,
    sponsored,
    two_tower,
)
from bentos.stages import (
    Keep,
    LightRank,
    Merge,
    ReadPins,
    ReadUser,
    ReadVectors,
    Retrieve,
    Shortlist,
    Source,
    Stage,
    Take,
)

HOMEFEED: tuple[Stage, ...] = (
    ReadUser(deadline_ms=500),
    Retrieve(
        (
            Source(pinnersage.NAME, pinnersage.candidates, budget=480, deadline_ms=400),
            Source(pinnerformer.NAME, pinnerformer.candidates, budget=600, deadline_ms=400, quality=0.3),
            Source(dcm.NAME, dcm.candidates, budget=600, deadline_ms=400, quality=0.6),
            Source(conditional.NAME, conditional.candidates, budget=600, deadline_ms=400, quality=0.6),
            Source(two_tower.NAME, two_tower.candidates, budget=600, deadline_ms=400, quality=0.3),
            Source(pixie.NAME, pixie.candidates, budget=600, deadline_ms=400),
            Source(followed_boards.NAME, followed_boards.candidates, budget=160, deadline_ms=300),
            Source(followed_topics.NAME, followed_topics.candidates, budget=240, deadline_ms=300),
            Source(popular_by_topic.NAME, popular_by_topic.candidates, budget=240, deadline_ms=300),
        )
    ),
    OrPopular(300, popular_by_topic.candidates, fallback="no source brought a pin: popular pins"),
    Merge(budget=2_000),
    Keep("not_hidden", filters.not_hidden),
    Keep("unseen", filters.unseen),
    ReadPins(deadline_ms=500, vectors=False),
    LightRank(deadline_ms=200),
    Shortlist(),
    ReadVectors(deadline_ms=500),
    Keep("distinct", filters.distinct),
    Rank(deadline_ms=800),
    Calibrate(),
    Value(),
    Diversify(),
    Take(),
)

RELATED: tuple[Stage, ...] = (
    ReadUser(deadline_ms=500),
    Retrieve(
        (
            Source(similar_pins.NAME, similar_pins.candidates, budget=300, deadline_ms=400, always=True),
            Source(saved_together.NAME, saved_together.candidates, budget=150, deadline_ms=400),
        )
    ),
    OrPopular(300, similar_pins.popular_of_topics, fallback="nothing related is found: popular pins"),
    Merge(budget=300),
    Keep("not_hidden", filters.not_hidden),
    ReadPins(deadline_ms=500),
    Keep("distinct", filters.distinct),
    Take(),
)

RELATED_ADS: tuple[Stage, ...] = (
    ReadUser(deadline_ms=500),
    Retrieve((Source(sponsored.NAME, sponsored.candidates, budget=100, deadline_ms=400, always=True),)),
    Merge(budget=100),
    Keep("not_hidden", filters.not_hidden),
    ReadPins(deadline_ms=500),
    Price(deadline_ms=400),
    Keep("distinct", filters.distinct),
    Slots(),
)

SEARCH: tuple[Stage, ...] = (
    ReadUser(deadline_ms=500),
    Retrieve(
        (
            Source(searchsage.NAME, searchsage.candidates, budget=300, deadline_ms=400),
            Source(lexical.NAME, lexical.candidates, budget=300, deadline_ms=300),
        )
    ),
    OrPopular(300, popular_by_topic.of_catalogue, fallback="nothing is found for this query: popular pins"),
    Blend(budget=400),
    Keep("not_hidden", filters.not_hidden),
    ReadPins(deadline_ms=500),
    Keep("on_topic", on_topic),
    Shortlist(budget=200),
    Keep("distinct", filters.distinct),
    Rank(deadline_ms=800),
    Calibrate(),
    Value(),
    Diversify(),
    Take(),
)

FUNNELS: dict[Surface, tuple[Stage, ...]] = {
    Surface.HOMEFEED: HOMEFEED,
    Surface.RELATED: RELATED,
    Surface.RELATED_ADS: RELATED_ADS,
    Surface.SEARCH: SEARCH,
}


def sources_of(surface: Surface) -> tuple[Source, ...]:
    """The candidate sources of a surface's funnel, for a process that only retrieves."""
    return next(stage.sources for stage in FUNNELS[surface] if isinstance(stage, Retrieve))
