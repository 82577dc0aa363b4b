"""A ranking service with a reading of its own: what it read is what is logged, and what it lacked is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from bentos import ranking, retrieval
from bentos.engines import Engines, LocalRetrieval, RemoteRanking, RemoteRetrieval
from bentos.event_log import EventLog
from bentos.feed import Feed
from bentos.heads import Heads
from bentos.hop_messages import RankAnswer, RankRequest, RetrieveAnswer
from bentos.log_segments import read
from bentos.messages import FeedAnswer, FeedRequest
from bentos.ranking_features import FEATURES, seen
from bentos.ranking_log import STREAM, RankingLog, is_drawn
from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from feature_repo.sequence import merge
from tests.bentos.conftest import run
from tests.bentos.fakes import COOK, NOW_MS, FakeFeatures, Stack, history, pin_of, planted_features
from tests.bentos.preview import FixedHolder
from validation.events import RankingRecord

OTHERS = (*FEATURES[:-1], "what another version reads")

LATER_MS = NOW_MS - 1_000
"""Of an action that reached the ranking service's store alone."""


class Ahead(FakeFeatures):
    """A store in which pins were acted on since the home feed read it."""

    def pins(self, ids: np.ndarray):  # type: ignore[no-untyped-def]
        stats = super().pins(ids)
        stats.scalars[:, PIN_SCALARS.index("actions_7d")] = 41
        stats.scalars[:, PIN_SCALARS.index("title_words")] = ids
        return stats


@pytest.fixture
def elsewhere() -> FakeFeatures:
    """The store as the ranking service reads it: ahead of the home feed's in pin, user and sequence."""
    features = Ahead(**vars(planted_features()))
    user = features.users[COOK]
    newer = history([pin_of(2, 4)], before_ms=LATER_MS, first_event=900).events()
    scalars = np.full(len(USER_SCALARS), 7, np.float32)
    features.users[COOK] = replace(user, sequence=merge(user.sequence, newer), scalars=scalars)
    return features


Ask = Callable[[], tuple[FeedAnswer, list[RankingRecord]]]


@pytest.fixture
def ask(stack: Stack, elsewhere: FakeFeatures) -> Ask:
    """A feed of COOK that is ranked by a service over the store `elsewhere`, and what is logged of it."""
    holder = FixedHolder(replace(stack.release, features=elsewhere))
    there = ranking.RankingParts(stack.pool, holder)  # type: ignore[arg-type]

    async def rank(request: RankRequest) -> RankAnswer:
        given = RankRequest.model_validate_json(request.model_dump_json())
        return RankAnswer.model_validate_json((await ranking.rank(there, given)).model_dump_json())

    async def never(_: object) -> RankAnswer:
        raise AssertionError("nothing else is asked")

    remote = RemoteRanking(never, rank, never, logged=partial(is_drawn, share=1.0))  # type: ignore[arg-type]
    log = RankingLog(EventLog.open(stack.events, STREAM), 1.0)
    engines = Engines(stack.pool, LocalRetrieval(stack.pool), remote)
    service = replace(stack.service, engines=engines, rankings=log)

    def asked() -> tuple[FeedAnswer, list[RankingRecord]]:
        answer = run(service.homefeed(FeedRequest(user_id=COOK, limit=10)))
        log.close()
        return answer, [r for r in read(stack.events, STREAM) if isinstance(r, RankingRecord)]

    return asked


def test_what_the_ranking_service_read_is_logged(ask: Ask) -> None:
    answer, (record,) = ask()
    assert answer.missing == [] and list(record.pin_ids) == [pin.pin_id for pin in answer.pins]
    values = np.frombuffer(record.values, "<f4").reshape(len(answer.pins), len(FEATURES))
    told = dict(zip(FEATURES, values.T, strict=True))
    assert (told["pin_actions_7d"] == 41).all() and (told[f"user_{USER_SCALARS[0]}"] == 7).all()
    assert (told["hours_since_action"] < 2).all()
    assert record.sequence_length == 7 and record.sequence_newest_ms == LATER_MS - 3_600_000
    scores = np.frombuffer(record.scores, "<f4")
    np.testing.assert_allclose(scores, [pin.heads["engage"] for pin in answer.pins], atol=1e-6)


def test_what_is_logged_stays_beside_its_pin_when_the_order_changes_after_ranking(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked: list[int] = []
    heads_of = ranking.heads_of

    def keeps_order(feed: Feed) -> Heads:
        ranked.extend(feed.candidates.pin_ids.tolist())
        return heads_of(feed)

    monkeypatch.setattr(ranking, "heads_of", keeps_order)
    answer, (record,) = ask()
    shown = [pin.pin_id for pin in answer.pins]
    assert list(record.pin_ids) == shown and len(shown) == 10
    assert shown != [pin for pin in ranked if pin in shown], "the order of the ranking request is another"
    values = np.frombuffer(record.values, "<f4").reshape(len(shown), len(FEATURES))
    assert values[:, FEATURES.index("pin_title_words")].tolist() == shown


def test_what_the_ranking_service_lacked_is_told_and_not_logged(ask: Ask, elsewhere: FakeFeatures) -> None:
    elsewhere.broken.add("user")
    answer, records = ask()
    assert answer.missing == ["user: ConnectionError"] and len(answer.pins) == 10
    assert answer.fallback is None and records == []


def test_a_ranking_service_of_another_version_ranks_and_its_own_features_are_logged(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bentos.ranking.seen", lambda feed: replace(seen(feed), features=OTHERS))
    answer, (record,) = ask()
    assert answer.missing == [] and "engage" in answer.pins[0].heads
    assert record.features == OTHERS


def test_only_what_is_logged_is_sent(stack: Stack) -> None:
    there = ranking.RankingParts(stack.pool, FixedHolder(stack.release))  # type: ignore[arg-type]
    assert run(ranking.rank(there, RankRequest(user_id=COOK, pin_ids=[1, 2]))).seen is None
    told = run(ranking.rank(there, RankRequest(user_id=COOK, pin_ids=[1, 2], seen=True))).seen
    assert told is not None and np.shape(told.values) == (2, len(FEATURES))


def test_what_the_retrieval_service_lacked_is_told_and_the_ranking_logged(
    stack: Stack, elsewhere: FakeFeatures
) -> None:
    elsewhere.broken.add("user")
    holder = FixedHolder(replace(stack.release, features=elsewhere))
    there = retrieval.RetrievalParts(stack.pool, holder)  # type: ignore[arg-type]

    async def retrieve(request: object) -> RetrieveAnswer:
        answer = await retrieval.retrieve(there, request)  # type: ignore[arg-type]
        return RetrieveAnswer.model_validate_json(answer.model_dump_json())

    engines = replace(stack.service.engines, retrieval=RemoteRetrieval(retrieve))
    log = RankingLog(EventLog.open(stack.events, STREAM), 1.0)
    service = replace(stack.service, engines=engines, rankings=log)
    answer = run(service.homefeed(FeedRequest(user_id=COOK, limit=10)))
    log.close()
    assert answer.missing == ["retrieval's user: ConnectionError"] and len(answer.pins) == 10
    assert len(list(read(stack.events, STREAM))) == 1, "what ranked it read the user"
