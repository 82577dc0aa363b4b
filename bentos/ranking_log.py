"""What the ranking of an answer saw: features and scores of the pins shown, for a sample of answers.

`corkboard replay` makes the same features anew from history and holds the two against each other. Answers that
were ranked without the user's or the pins' features say so themselves, and are no part of the sample; what a
retrieval service lacked is no matter here.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from bentos.digests import record_id
from bentos.event_log import RecordLog
from bentos.failing import READ
from bentos.feed import Feed, Surface
from bentos.ranking_features import seen
from bentos.sampled_log import SampledLog, drawn
from validation.events import RankingRecord, to_line
from validation.queries import logged

STREAM = "rankings"

_DRAW = 21
"""Which draw decides whether a request is logged."""


class RankingLog(SampledLog):
    """The sample of ranked answers, on every surface but that of ads."""

    def __init__(self, log: RecordLog, share: float) -> None:
        super().__init__(log, share, _DRAW)

    def _fits(self, feed: Feed) -> bool:
        return (
            feed.heads is not None
            and feed.surface is not Surface.RELATED_ADS
            and not any(said.startswith(READ) for said in feed.missing)
        )

    def _lines(self, feed: Feed) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
        if len(feed.candidates) == 0:
            return (), ()
        record = record_of(feed)
        return (record.event_id,), (to_line(record),)


def is_drawn(feed: Feed, share: float) -> bool:
    """Whether the ranking of a feed may be logged where `share` of them are, known before it is ranked."""
    return bool(feed.user_id) and drawn(feed, share, _DRAW)


def record_of(feed: Feed) -> RankingRecord:
    """The record of a ranked feed: what was read where it was ranked."""
    heads, pin_ids = feed.heads, feed.candidates.pin_ids
    assert heads is not None
    read = heads.seen or seen(feed)
    return RankingRecord(
        event_id=ranking_id(feed.request_id),
        user_id=feed.user_id,
        timestamp_ms=feed.now_ms,
        surface=feed.surface.value,
        release=feed.release.version,
        request_id=feed.request_id,
        query=logged(feed.query) or None,
        ranker=heads.ranker,
        pin_ids=tuple(pin_ids.tolist()),
        features=read.features,
        values=read.of(pin_ids).astype("<f4").tobytes(),
        heads=heads.names,
        scores=np.asarray(heads.of(pin_ids), "<f4").tobytes(),
        calibrated=heads.calibrated,
        **asdict(read.depth),
    )


def ranking_id(request_id: int) -> int:
    """A 63-bit id that the ranking of the same request always has."""
    return record_id(b"ranking:%d" % request_id)
