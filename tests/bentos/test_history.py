"""A user's history: read for rankers that select from it alone, and done without where it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from bentos.breaker import Breakers
from bentos.candidates import Candidates
from bentos.engines import Engines, LocalRanking, LocalRetrieval
from bentos.features import User
from bentos.feed import Feed, Surface
from bentos.feed_service import run_blocking
from bentos.pool import Pool
from bentos.ranking_log import record_of
from bentos.ranking_stages import Rank
from bentos.rehearsal import check_history, probe, rehearse
from bentos.release import ServingRelease
from bentos.serving import ReleaseRejected
from bentos.stages import ReadPins, ReadUser
from feature_repo.history import History
from feature_repo.schema import TRANSACT_LIFELONG_SERVICE
from feature_repo.store import FeatureStoreError
from tests.bentos.fakes import COOK, DIM, NOW_MS, SAVE, FakeFeatures, pin_of, planted_features, planted_release
from training.models.pinnability import FeatureSpec
from training.models.ranker import ENGAGE, Past, Request
from training.models.ranker import Candidates as Ranked
from training.models.transact import Head, Lifelong, SequenceConfig, TransActConfig
from training.models.transact.network import seeded
from training.models.transact.ranker import TransActRanker
from validation.manifest import Part

SPEC = FeatureSpec()
MIDNIGHT_MS = NOW_MS - NOW_MS % 86_400_000
LIFELONG = Lifelong(recent=4, nearest_lifelong=4, nearest_realtime=2, nearest_impressions=2)
UNKNOWN = 9_999


class Watched(TransActRanker):
    """Notes what it is asked."""

    asked: ClassVar[list[Request]] = []

    def score_heads(self, request: Request, candidates: Ranked) -> np.ndarray:
        self.asked.append(request)
        return super().score_heads(request, candidates)


def past_of(pins: list[int], shown: list[int]) -> History:
    """Saves an hour apart, half a year before the midnight; pins shown a day before it."""
    codes = np.full(len(pins), SAVE)
    then = MIDNIGHT_MS - 86_400_000 * 180 - 3_600_000 * np.arange(len(pins))
    seen = MIDNIGHT_MS - 86_400_000 - 1000 * np.arange(len(shown))
    return History(MIDNIGHT_MS, np.array(pins), codes, 0 * codes, then, np.array(shown), seen)


@pytest.fixture
def release(tmp_path: Path) -> ServingRelease:
    """A release by TransAct V2 over the planted world; the cook has a history, nobody else."""
    features = planted_features()
    features.users[0] = replace(User.unknown(0, DIM), history=past_of([], []))
    features.users[COOK] = replace(
        features.users[COOK], history=past_of([pin_of(2, 3), UNKNOWN, pin_of(3, 1)], [pin_of(4, 2), UNKNOWN])
    )
    sequence = {
        "length": 12,
        "tokens": "add",
        "surface_dim": 1,
        "positions": True,
        "causal": True,
        "pin_dim": 8,
    }
    config = TransActConfig(
        spec=SPEC,
        sequence=SequenceConfig.model_validate(sequence | {"causal": True}),
        heads=(Head(action="save"), Head(action=ENGAGE)),
        lifelong=LIFELONG,
        deep=(8,),
    )
    Watched.asked.clear()
    return planted_release(tmp_path, features, ranker=Watched(seeded(config, DIM, 1)), ranker_name="transact@7")


def answered(release: ServingRelease, user: int = COOK) -> Feed:
    pool = Pool(2, Breakers())
    try:
        feed = Feed(Surface.HOMEFEED, release, NOW_MS, 20, request_id=5, user_id=user)
        feed.candidates = Candidates.of("test", [pin_of(t, 1) for t in (1, 2, 3, 4)], np.zeros(4), 0, "")
        stages = (ReadUser(deadline_ms=9_000), ReadPins(deadline_ms=9_000), Rank(deadline_ms=60_000))
        run_blocking(feed, Engines(pool, LocalRetrieval(pool), LocalRanking(pool)), stages)
        return feed
    finally:
        pool.close()


def test_the_ranker_gets_the_history_with_vectors(release: ServingRelease) -> None:
    feed = answered(release)
    assert feed.heads is not None and not feed.missing
    past, features = Watched.asked[-1].past, release.features
    assert past is not None and isinstance(features, FakeFeatures)
    own = features.users[COOK].history
    np.testing.assert_array_equal(past.history[0], features.matrix[pin_of(2, 3) - 1])
    np.testing.assert_array_equal(past.shown[0], features.matrix[pin_of(4, 2) - 1])
    assert not past.history[1].any() and not past.shown[1].any(), "unknown pins have none"
    np.testing.assert_array_equal(past.times_ms, own.times_ms)
    record = record_of(feed)
    assert (record.history_as_of_ms, record.history_length, record.history_shown) == (MIDNIGHT_MS, 3, 2)


def test_somebody_without_a_history_is_ranked_by_the_sequence(release: ServingRelease) -> None:
    users = {u: replace(user, history=History.none()) for u, user in release.features.users.items()}
    release.features.users.update(users)
    feed = answered(release)
    assert feed.heads is not None and not feed.missing
    assert Watched.asked[-1].past is not None and len(Watched.asked[-1].past.history) == 0
    assert record_of(feed).history_as_of_ms == 0


def test_other_rankers_cost_no_read(release: ServingRelease, tmp_path: Path) -> None:
    class Counted(FakeFeatures):
        def user(self, user_id: int, space: str | None, embedded=(), **more: bool) -> User:  # type: ignore[no-untyped-def]
            assert not more, "nothing else is asked of the store"
            return super().user(user_id, space, embedded)

    plain = planted_release(tmp_path, Counted(**vars(planted_features())))
    assert not plain.reads_history
    feed = answered(plain)
    assert feed.heads is not None and feed.past is None and feed.user.history is History.none()


def test_vectors_that_cannot_be_read_cost_the_history_alone(
    release: ServingRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = release.indexes["content@1"]
    fetch = type(index).fetch

    def broken(self: object, ids: np.ndarray) -> object:
        if UNKNOWN in ids:
            raise RuntimeError("the disk is gone")
        return fetch(self, ids)  # type: ignore[arg-type]

    monkeypatch.setattr(type(index), "fetch", broken)
    feed = answered(release)
    assert feed.heads is not None and Watched.asked[-1].past is None
    assert [said.split(":")[0] for said in feed.missing] == ["past"]


def test_vectors_that_are_no_numbers_are_none(release: ServingRelease) -> None:
    bare = replace(release, indexes={})
    bare.features.matrix[pin_of(2, 3) - 1] = np.nan
    feed = answered(bare)
    past = Watched.asked[-1].past
    assert past is not None and not past.history[0].any() and "past: 1 unfit rows" in feed.missing


def test_a_store_without_histories_is_named_before_it_serves(
    release: ServingRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearse(release)
    assert isinstance(probe(release)[0].past, Past) and len(probe(release)[0].past.history) == 3
    mend = "transact@7 selects from users' histories.*run `corkboard train --model features`"
    del release.features.users[0]
    with pytest.raises(ReleaseRejected, match=f"{mend}".replace(".*", r".* is empty\); ")):
        check_history(release)

    def unregistered(*_: object, **__: object) -> User:
        raise FeatureStoreError("feature view user_history is not registered; run `feast apply`")

    monkeypatch.setattr(release.features, "user", unregistered)
    with pytest.raises(ReleaseRejected, match="user_history is not registered"):
        check_history(release)
    release.features.users[0] = replace(User.unknown(0, DIM), stale=("user_history",))
    monkeypatch.undo()
    check_history(release)  # one that is too old is done without, as every view is
    release.features.broken.add("user")
    check_history(release)  # a store that is down is the trial's to find


def test_a_home_feed_whose_ranker_is_elsewhere_reads_what_its_log_says(release: ServingRelease) -> None:
    part = Part(model="transact", version=7, feature_service=TRANSACT_LIFELONG_SERVICE)
    manifest = release.manifest.model_copy(update={"parts": {**release.manifest.parts, "ranker": part}})
    away = replace(release, ranker=None, manifest=manifest)
    assert away.reads_history and away.user(COOK).history.as_of_ms == MIDNIGHT_MS
    feed = answered(away)
    assert feed.past is None and [said.split(":")[0] for said in feed.missing] == ["rank"]
    plain = {**release.manifest.parts, "ranker": part.model_copy(update={"feature_service": "pinnability_v1"})}
    other = replace(away, manifest=release.manifest.model_copy(update={"parts": plain}))
    assert not other.reads_history and other.user(COOK).history is History.none()
