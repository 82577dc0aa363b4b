"""From candidates to a page: a ranker's probabilities, calibrated, weighed into a utility, and spread out.

Each stage fails open by itself: without a calibrator probabilities stay as they are, without a utility the
order before ranking stands, without diversity the order of utility does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from bentos.candidates import KINDS
from bentos.features import Floats, Ints
from bentos.ranking_features import asked
from bentos.stages import PAST_DEADLINE_MS, NoScores, fail_open, read_past
from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from training.models.diversity import DiversityConfig, diversify
from training.models.pinnability import PIN_PREFIX, USER_PREFIX
from training.models.query_features import QUERY_FEATURES
from training.models.utility import utility

if TYPE_CHECKING:
    from bentos.engines import Engines
    from bentos.feed import Feed

_CALIBRATION_BLOCKS = (
    tuple(USER_PREFIX + n for n in USER_SCALARS),
    tuple(PIN_PREFIX + n for n in PIN_SCALARS),
    tuple(QUERY_FEATURES),
)
CALIBRATION_FEATURES = tuple(name for block in _CALIBRATION_BLOCKS for name in block)
"""What a calibrator may read beside the scores."""

RANKED = "ranked"
"""`Feed.ordered_by` of an order by utility."""


@dataclass(frozen=True)
class Rank:
    """Fill `feed.heads`: a probability of each action for every candidate, by the release's ranker.

    Pins that get none (a score that is no number) leave the feed, and the answer says how many.
    """

    deadline_ms: float
    name: str = "rank"

    async def run(self, feed: Feed, engines: Engines) -> None:
        if len(feed.candidates) == 0:
            return
        try:
            if feed.release.reads_history and feed.release.ranker is not None:
                await read_past(feed, engines.pool, PAST_DEADLINE_MS)
            heads = await engines.ranking.rank(feed, self.deadline_ms)
            sound = heads.sound
            if not sound.any():
                raise NoScores(f"{heads.ranker} gave none of {len(sound)} pins a probability")
        except Exception as error:
            # The order before it is an answer; it is worse, and the answer says so.
            fail_open(feed, self.name, error)
            return
        feed.heads = heads
        if not sound.all():
            feed.heads, feed.candidates = heads.take(sound), feed.candidates.take(sound)
            feed.missing.append(f"rank: {int((~sound).sum())} pins without a score")


@dataclass(frozen=True)
class Calibrate:
    """Make the ranker's scores probabilities, by the calibrator that was fitted for this very version."""

    name: str = "calibration"

    async def run(self, feed: Feed, engines: Engines) -> None:
        heads, calibrator = feed.heads, feed.release.calibrator
        if heads is None or calibrator is None:
            return
        try:
            calibrator.check(heads.ranker, heads.names)
            beside = calibration_features(feed, calibrator.features) if calibrator.reads_features else None
            made = heads.with_calibrated(calibrator.calibrate(heads.p, beside))
            if not made.sound.all():
                raise NoScores(f"calibration of {heads.ranker} makes numbers that are no probabilities")
            feed.heads = made
        except Exception as error:
            # Scores order pins without it; what they are worth beside each other is then a guess.
            fail_open(feed, self.name, error)


def calibration_features(feed: Feed, names: tuple[str, ...]) -> Floats:
    """(n, len(names)) of CALIBRATION_FEATURES for the candidates, NaN where a pin is not known."""
    rows, stats = feed.pins.rows(feed.candidates.pin_ids), feed.pins.stats
    blocks = (
        lambda: feed.user.scalars,
        lambda: np.where(stats.present[rows, None], stats.scalars[rows], np.float32(np.nan)),
        lambda: asked(feed),
    )
    out = np.empty((len(rows), len(names)), np.float32)
    for block, (places, columns) in zip(blocks, _columns(names), strict=True):
        if places:
            out[:, places] = block()[..., columns]
    return out


@cache
def _columns(names: tuple[str, ...]) -> list[tuple[list[int], list[int]]]:
    """Of what is known of the user, of a pin and of the query: which of `names` it has, and where. Raises
    ValueError for a name that none of them has."""
    unknown = [name for name in names if name not in CALIBRATION_FEATURES]
    if unknown:
        raise ValueError(f"no calibrator can read {', '.join(unknown)}")
    found = []
    for known in _CALIBRATION_BLOCKS:
        places = [place for place, name in enumerate(names) if name in known]
        found.append((places, [known.index(names[place]) for place in places]))
    return found


@dataclass(frozen=True)
class Value:
    """Order by utility: what the page policy holds each action to be worth, times its probability.

    Results of a search keep the order of the merge where the ranker does not read the query.
    """

    name: str = "utility"

    async def run(self, feed: Feed, engines: Engines) -> None:
        if feed.heads is None or (feed.query and not feed.heads.reads_query):
            return
        try:
            weights = feed.page_policy.vector(feed.heads.names)
            worth = utility(feed.heads.of(feed.candidates.pin_ids), weights)
        except Exception as error:
            # The order before ranking stands.
            fail_open(feed, self.name, error)
            return
        feed.candidates = feed.candidates.scored(worth).best_first()
        feed.ordered_by = RANKED


@dataclass(frozen=True)
class Diversify:
    """The page: the most useful pins that are not like each other, under caps for topics and boards.

    Where nothing was weighed, the order stands but for the caps.
    """

    name: str = "diversity"

    async def run(self, feed: Feed, engines: Engines) -> None:
        if len(feed.candidates) == 0:
            return
        config, worth = feed.diversity, feed.candidates.scores
        if feed.ordered_by != RANKED:
            config = config.model_copy(update={"theta": 1.0})
            worth = -np.arange(len(feed.candidates), dtype=np.float32)
        try:
            feed.candidates = feed.candidates.take(page(feed, worth, config))
        except Exception as error:
            # The best pins in their order are a page, if a monotonous one.
            fail_open(feed, self.name, error)


def page(feed: Feed, worth: Floats, config: DiversityConfig) -> Ints:
    """Places of the page's pins among the candidates, whose worth is (n,)."""
    rows = feed.pins.rows(feed.candidates.pin_ids)
    return diversify(
        worth,
        feed.pins.vectors[rows],
        feed.limit,
        config,
        topics=feed.pins.primary_topics[rows],
        boards=np.where(feed.candidates.kind_codes == KINDS.code("board"), feed.candidates.anchors, 0),
    )
