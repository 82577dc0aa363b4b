"""From sponsored candidates to the ads of a page: probabilities, expected value, and the places they get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bentos.candidates import Candidates
from bentos.stages import fail_open
from training.models.ads.ranking import expected_value

if TYPE_CHECKING:
    from bentos.engines import Engines
    from bentos.feed import Feed

EXPECTED_VALUE = "expected_value"
"""`Feed.ordered_by` of ads; their score is in micro-currency an impression."""


@dataclass(frozen=True)
class Price:
    """Order ads by bid x p(click) less the penalty for hides; what brings nothing leaves.

    Fails closed: an ad that could not be priced is not shown, and the page has one more related pin.
    """

    deadline_ms: float
    name: str = "price"

    async def run(self, feed: Feed, engines: Engines) -> None:
        if len(feed.candidates) == 0:
            return
        try:
            heads = await engines.ranking.ads(feed, self.deadline_ms)
            live = feed.release.campaigns.live(feed.now_ms)
            at, here = live.rows(heads.pin_ids)
            kept = heads.sound & here
            feed.heads = heads.take(kept)
            policy = feed.release.ads_policy
            values = expected_value(live.bids[at[kept]], feed.heads.p, heads.names, policy)
        except Exception as error:
            fail_open(feed, self.name, error)
            feed.candidates, feed.heads = Candidates.none(), None
            return
        ranked = feed.candidates.take(kept).scored(values)
        feed.candidates = ranked.take(values > policy.least_value).best_first()
        feed.ads, feed.ordered_by = live, EXPECTED_VALUE


@dataclass(frozen=True)
class Slots:
    """As many ads as the page of `feed.limit` places has slots for."""

    name: str = "slots"

    async def run(self, feed: Feed, engines: Engines) -> None:
        feed.candidates = feed.candidates.take(slice(feed.release.ads_policy.slots(feed.limit)))
