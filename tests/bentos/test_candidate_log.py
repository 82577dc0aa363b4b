"""The candidate log: what was fetched, how far it came, and with which chance it was logged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bentos.candidate_log import STREAM, CandidateLog, CandidateSample, fates, lines_of
from bentos.candidates import Candidates
from bentos.event_log import EventLog
from bentos.feed import Feed, Surface
from bentos.feed_service import run_blocking
from bentos.funnel import HOMEFEED
from bentos.log_segments import read
from bentos.messages import FeedAnswer, FeedRequest, RelatedRequest
from bentos.sampled_log import drawn
from tests.bentos.fakes import COOK, GARDENER, NOW_MS, PINS, Stack
from validation.events import CandidateRecord, Reached, to_line
from validation.ingest import ingest
from validation.ingest_events import ingest_events
from validation.lake import Lake
from validation.tables import TIME


def logging_stack(stack: Stack, **sample: float) -> tuple[Stack, CandidateLog]:
    log = CandidateLog(EventLog.open(stack.events, STREAM), CandidateSample(**sample))
    return replace(stack, service=replace(stack.service, candidates=log)), log


def logged(stack: Stack) -> list[CandidateRecord]:
    return [r for r in read(stack.events, STREAM) if isinstance(r, CandidateRecord)]


def ask(stack: Stack, user: int = COOK, limit: int = 20) -> FeedAnswer:
    return asyncio.run(stack.service.homefeed(FeedRequest(user_id=user, limit=limit)))


def test_a_request_of_the_sample_logs_what_came_of_its_candidates(stack: Stack) -> None:
    stack, log = logging_stack(stack, requests=1.0, cut=15)
    answer = ask(stack)
    log.close()
    found = logged(stack)
    shown = {r.pin_id for r in found if r.stage is Reached.SHOWN}
    assert shown == {pin.pin_id for pin in answer.pins}
    assert {r.logged for r in found if r.stage is Reached.SHOWN} == {1.0}
    cut = {r.pin_id: r for r in found if r.stage is not Reached.SHOWN}
    assert len(cut) == 15
    fetched = len({r.pin_id for r in everything(stack)})
    assert [r.logged for r in cut.values()] == pytest.approx([15 / (fetched - len(shown))] * 15)
    assert {r.request_id for r in found} == {answer.request_id} and {r.release for r in found} == {1}
    assert {(r.user_id, r.timestamp_ms, r.surface) for r in found} == {(COOK, NOW_MS, "homefeed")}


def everything(stack: Stack) -> list[CandidateRecord]:
    """The records of a feed of COOK's of which all pins are logged."""
    return records_of(finished(stack))


def records_of(feed: Feed) -> list[CandidateRecord]:
    """What is logged of a feed of which all pins are."""
    event_ids, lines = lines_of(feed, 10_000)
    records = [CandidateRecord.model_validate_json(line) for line in lines]
    assert tuple(map(to_line, records)) == lines and tuple(r.event_id for r in records) == event_ids
    return records


def finished(stack: Stack, user: int = COOK) -> Feed:
    feed = Feed(Surface.HOMEFEED, stack.release, NOW_MS, 20, request_id=9, seed=9, user_id=user)
    return run_blocking(feed, stack.service.engines, HOMEFEED)


def test_every_source_of_a_pin_has_its_rank_and_score(stack: Stack) -> None:
    feed = finished(stack)
    records = records_of(feed)
    assert len(records) == sum(map(len, feed.parts)) > len({r.pin_id for r in records}), "some come twice"
    for part in feed.parts:
        mine = sorted((r.rank, r.pin_id, r.score) for r in records if len(part) and r.source == part.sources[0])
        assert [pin for _, pin, _ in mine] == part.pin_ids.tolist()
        np.testing.assert_allclose([score for _, _, score in mine], part.scores)
    assert len({r.event_id for r in records}) == len(records)


def test_each_pin_has_the_last_stage_it_reached(stack: Stack) -> None:
    feed = finished(stack, GARDENER)
    merged, stood = feed.reached[Reached.MERGED], feed.reached[Reached.LIGHT]
    pins = np.unique(np.append(merged, 9_999))
    reached = fates(feed, pins)
    by_stage = {stage: set(pins[reached == place].tolist()) for place, stage in enumerate(Reached)}
    assert by_stage[Reached.FETCHED] == {9_999}
    assert by_stage[Reached.MERGED] == set(merged.tolist()) - set(stood.tolist()), "what filters took"
    assert by_stage[Reached.SHOWN] == set(feed.candidates.pin_ids.tolist())
    assert by_stage[Reached.RANKED] == set(stood.tolist()) - by_stage[Reached.SHOWN], "all fit the shortlist"


def test_what_the_shortlist_left_out_stood_in_line(stack: Stack) -> None:
    feed = Feed(Surface.HOMEFEED, stack.release, NOW_MS, 2)
    for stage, ids in ((Reached.MERGED, [1, 2, 3, 4]), (Reached.LIGHT, [2, 3, 4]), (Reached.RANKED, [3, 4])):
        feed.reached[stage] = np.array(ids)
    feed.candidates = Candidates.of("a", [4], [0.0], 0, "taste")
    assert fates(feed, np.arange(6)).tolist() == [0, 1, 2, 3, 4, 0]


def test_a_share_of_the_requests_is_logged(stack: Stack) -> None:
    feeds = [Feed(Surface.HOMEFEED, stack.release, NOW_MS, 5, seed=seed) for seed in range(2_000)]
    assert 60 <= sum(drawn(feed, 0.05, 11) for feed in feeds) <= 140
    assert not any(drawn(feed, 0.0, 11) for feed in feeds) and all(drawn(feed, 1.0, 11) for feed in feeds)
    assert drawn(feeds[0], 0.05, 11) == drawn(feeds[0], 0.05, 11)


def test_nobody_and_related_pins_are_not_logged(stack_of: Callable[..., Stack]) -> None:
    stack, log = logging_stack(stack_of(), requests=1.0)
    log.record(finished(stack, 0))
    asyncio.run(stack.service.related(RelatedRequest(pin_id=1, user_id=COOK)))
    log.close()
    assert len(ask(stack).pins) == 20
    assert logged(stack) == []


def test_a_log_that_is_closed_costs_no_feed(stack: Stack) -> None:
    stack, log = logging_stack(stack, requests=1.0)
    log._log.close()
    assert len(ask(stack).pins) == 20
    log.close()
    assert logged(stack) == []


def test_what_was_logged_becomes_the_candidates_table(stack: Stack, tmp_path: Path) -> None:
    """The whole way: a request, its log, an ingest, the lake; and the same again changes nothing."""
    stack, log = logging_stack(stack, requests=1.0, cut=30)
    ask(stack)
    log.close()
    stack.service.impressions.close()
    now, places = datetime.fromtimestamp(NOW_MS / 1000, UTC), [tmp_path / p for p in ("lake", "bad", "reports")]
    source = tmp_path / "tables"
    source.mkdir()
    made = pa.array([now - timedelta(days=9)] * PINS, TIME)
    pq.write_table(pa.table({"pin_id": range(1, PINS + 1), "created_at": made}), source / "pins.parquet")
    act = {"user_id": [COOK], "pin_id": [1], "action": ["save"], "timestamp": made[:1]}
    pq.write_table(pa.table(act), source / "actions.parquet")
    ingest(source, *places, now=now, checkpoint=False)
    report = ingest_events(stack.events, *places, now=now, checkpoint=True)
    found = logged(stack)
    assert report is not None and report.tables["candidates"].new == len(found) > 50
    rows = Lake(places[0]).read("candidates").set_index(["pin_id", "source"])
    for record in found:
        row = rows.loc[(record.pin_id, record.source)]
        assert (row["rank"], row["stage"], row["release"]) == (record.rank, record.stage.value, 1)
        assert row["score"] == pytest.approx(record.score) and row["logged"] == pytest.approx(record.logged)
    assert ingest_events(stack.events, *places, now=now, checkpoint=False) is None
