"""What was fetched and what became of it: a sample of requests, for training the light ranker.

An impression log holds what came through the funnel; a light ranker judges what never does. So a share of the
home feed's requests logs every pin shown and an even draw of those that were cut, with each source's rank and
score.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from bentos.candidates import SOURCES, concatenate
from bentos.digests import record_id
from bentos.event_log import RecordLog
from bentos.features import Floats, Ints
from bentos.feed import Feed, Surface
from bentos.sampled_log import SampledLog
from validation.events import Reached, to_lines

STREAM = "candidates"
_DRAWS = 11
"""Which draw decides what is logged; the pins that were cut are drawn from the request's stream after it."""


class CandidateSample(BaseModel):
    """How much is logged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: float = Field(0.05, ge=0, le=1)
    """Share of requests."""
    cut: int = Field(200, ge=0)
    """Pins a request of which nothing was shown; all of them where there are fewer."""


class CandidateLog(SampledLog):
    """The sample of home feeds."""

    def __init__(self, log: RecordLog, sample: CandidateSample | None = None) -> None:
        self._sample = sample or CandidateSample()
        super().__init__(log, self._sample.requests, _DRAWS)

    def _fits(self, feed: Feed) -> bool:
        return feed.surface is Surface.HOMEFEED

    def _lines(self, feed: Feed) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
        return lines_of(feed, self._sample.cut)


def lines_of(feed: Feed, cut: int) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    """Event ids and lines of a CandidateRecord for each source of every pin shown, and of `cut` pins drawn
    evenly from the others."""
    fetched = concatenate([part for part in feed.parts if len(part)])
    pins = np.unique(fetched.pin_ids)
    reached = fates(feed, pins)
    logged = _chances(feed, reached, cut)
    rank = np.concatenate([np.arange(len(part)) for part in feed.parts]) if len(pins) else pins
    row = np.searchsorted(pins, fetched.pin_ids)
    kept = np.flatnonzero(logged[row] > 0)
    columns = (fetched.pin_ids, fetched.source_codes, rank, fetched.scores, reached[row], logged[row])
    pin_ids, codes, *others = (column[kept] for column in columns)
    rows = [pin_ids.tolist(), SOURCES.names(codes), *(column.tolist() for column in others)]
    event_ids = tuple(candidate_id(feed.request_id, *pin) for pin in zip(*rows[:2], strict=True))
    alike, stages = feed.recorded("candidate"), [stage.value for stage in _STAGES]
    records = [
        alike
        | {
            "event_id": event_id,
            "pin_id": pin_id,
            "source": source,
            "rank": place,
            "score": score,
            "stage": stages[stage],
            "logged": chance,
        }
        for event_id, pin_id, source, place, score, stage, chance in zip(event_ids, *rows, strict=True)
    ]
    return event_ids, to_lines(records)


def fates(feed: Feed, pins: Ints) -> Ints:
    """The place in `_STAGES` of the last stage that each of `pins` reached, (n,)."""
    reached = np.zeros(len(pins), np.int64)
    for place, stage in enumerate(_STAGES):
        there = feed.candidates.pin_ids if stage is Reached.SHOWN else feed.reached.get(stage)
        if there is not None:
            reached[np.isin(pins, there)] = place
    return reached


def _chances(feed: Feed, reached: Ints, cut: int) -> Floats:
    """(n,) the chance with which each pin was logged; 0 for those that were not."""
    chance = np.where(reached == _STAGES.index(Reached.SHOWN), 1.0, 0.0)
    others = np.flatnonzero(chance == 0)
    some = np.array(feed.drawn(_DRAWS + 1, others, cut), np.int64)
    chance[some] = len(some) / max(len(others), 1)
    return chance


_STAGES = tuple(Reached)


def candidate_id(request_id: int, pin_id: int, source: str) -> int:
    """A 63-bit id that the same candidate of the same request always has."""
    return record_id(f"{request_id}:{pin_id}:{source}".encode())
