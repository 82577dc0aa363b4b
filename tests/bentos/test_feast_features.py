"""The funnel on a real Feast store: the same port as the fakes, and the loop from an event to the next feed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from bentos.engines import Engines, LocalRanking, LocalRetrieval
from bentos.event_log import EventLog
from bentos.feast_features import FeastFeatures
from bentos.features import PinStats
from bentos.feed_service import FeedService
from bentos.ids import Ids
from bentos.impressions import Impressions, ServedPins
from bentos.intake import STREAM, EventIntake
from bentos.messages import Event, EventsRequest, FeedRequest, RelatedRequest
from bentos.pool import Pool
from bentos.ranking_features import FEATURES
from bentos.ranking_log import RankingLog
from bentos.sequences import SequenceWriter
from feature_repo.jobs.history import read_shown
from feature_repo.jobs.replay import logged_columns
from feature_repo.schema import PIN_SCALARS
from feature_repo.sequence import SequenceLog
from feature_repo.vectors.replica import Replica
from feature_repo.vectors.rows import PinRows
from tests.bentos.conftest import run
from tests.bentos.fakes import likes_the_near, manifest
from tests.feature_repo import conftest as features_world
from training.data.feature_join import Catalogue, FeatureJoin
from training.data.point_in_time import FeastPointInTime, PointInTime, Profiles
from training.data.training_set_facts import PinVectors
from training.evaluation.ranking_records import HISTORY, SEQUENCE, logged
from training.models.calibration import Calibrator
from training.models.pinnability import FeatureSpec
from training.models.pinnersage import PinnerSageConfig
from training.models.ranker import ENGAGE
from training.models.transact import Head, Lifelong, SequenceConfig, TransActConfig
from training.models.transact.network import seeded
from training.models.transact.ranker import TransActRanker
from training.replay import ReplayConfig, Replayed, Scorer, both, compared
from training.transact.examples import Known, PinTable
from validation.events import RankingRecord
from validation.ids import IdMap
from validation.manifest import CollectionCheck
from validation.tables import Contract

if TYPE_CHECKING:
    from feast import FeatureStore

    from bentos.release import ServingRelease

pytestmark = pytest.mark.slow

DIM = 8
NOW_MS = int(features_world.END.timestamp() * 1000) + 9 * 3_600_000
"""Nine o'clock of the day after the lake's last."""

DAY_MS = 86_400_000

world = features_world.world
"""The small lake of the feature repository's tests, built once more for this module."""


@dataclass(frozen=True)
class Real:
    features: FeastFeatures
    service: FeedService
    intake: EventIntake
    store: FeatureStore
    events: Path


@pytest.fixture(scope="module")
def real(world: features_world.World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    from bentos.release import ServingRelease, TopicName
    from feature_repo.online.features import Freshness
    from feature_repo.online.reader import OnlineFeatures
    from feature_repo.store import apply, materialize, open_store

    store = open_store(world.home)
    apply(store)
    materialize(store)
    features = FeastFeatures(OnlineFeatures(store, Freshness.unbounded(), clock=lambda: NOW_MS / 1000))
    folder: Path = tmp_path_factory.mktemp("real")
    vectors = world.vectors / np.linalg.norm(world.vectors, axis=1, keepdims=True)
    count = len(vectors)
    rows = PinRows.of(world.pin_ids, vectors, [[]] * count, np.zeros(count), np.ones(count))
    check = CollectionCheck(
        collection="pins__content__1",
        space=features_world.SPACE,
        dim=DIM,
        rows=count,
        recall_at_100=1,
        filtered_fill=1,
    )
    contract = Contract()
    release = ServingRelease(
        version=3,
        manifest=manifest(3, collections=(check,), data_end=features_world.END),
        contract=contract,
        ids=Ids(IdMap(folder / "ids.sqlite"), frozenset()),
        features=features,
        topics={t: TopicName(t, f"t{t}", p or 0) for t, p in features_world.TOPICS.items()},
        space=features_world.SPACE,
        pin_space=features_world.SPACE,
        indexes={features_world.SPACE: Replica.of("pins__content__1", rows)},
        pinnersage=PinnerSageConfig(alpha=1.0),
        ranker=likes_the_near(),
    )
    pool = Pool(8)
    engines = Engines(pool, LocalRetrieval(pool), LocalRanking(pool))
    shown = Impressions(EventLog.open(folder / "events", "impressions"), ServedPins())
    rankings = RankingLog(EventLog.open(folder / "events", "rankings"), 1.0)
    service = FeedService(lambda: release, engines, shown, rankings=rankings, clock_ms=lambda: NOW_MS)
    intake = EventIntake(
        EventLog.open(folder / "events", STREAM),
        SequenceWriter(features).start(),
        features,
        release.ids,
        contract.vocabulary,
        pool,
        clock_ms=lambda: NOW_MS,
    )
    from bentos.loader import check_release

    check_release(release)
    yield Real(features, service, intake, store, folder / "events")
    intake.close()
    shown.close()
    rankings.close()
    pool.close()


def test_users_come_with_their_interests(real: Real, world: features_world.World) -> None:
    user = real.features.user(1, features_world.SPACE)
    assert user.known and len(user.sequence) > 0 and user.stale == ()
    assert user.interests.medoid_pin_ids.tolist() == world.pin_ids[1:4].tolist()
    np.testing.assert_allclose(user.interests.vectors, world.vectors[1:4], rtol=1e-6)
    assert user.interests_ms == int(features_world.END.timestamp() * 1000)
    country = world.tables["users"].set_index("user_id").loc[1, "country"]
    assert user.country == country and user.vectors == {}
    stranger = real.features.user(9_999, features_world.SPACE)
    assert not stranger.known and len(stranger.interests) == 0 and not stranger.scalars.any()


def test_users_come_with_last_nights_vectors(real: Real, world: features_world.World) -> None:
    space, end = "pinnerformer@1", pd.Timestamp(features_world.END)
    row = pd.DataFrame({"user_id": [1], "space": space, "vector": [[0.6, 0.8]]})
    store = real.features.reader.store
    store.write_to_online_store("user_embedding", row.assign(event_timestamp=end, created=end))
    user = real.features.user(1, features_world.SPACE, (space,))
    np.testing.assert_allclose(user.vectors[space].vector, [0.6, 0.8])
    assert user.vectors[space].as_of_ms == int(features_world.END.timestamp() * 1000)
    assert user.sequence.newest_ms < user.vectors[space].as_of_ms, "what was done before the run is in it"
    assert real.features.user(2, None, (space,)).vectors == {}


def test_pins_vectors_and_cards(real: Real, world: features_world.World) -> None:
    ids = np.array([5, 999, 1])
    vectors, present = real.features.vectors(ids, features_world.SPACE)
    assert present.tolist() == [True, False, True] and vectors.shape == (3, DIM)
    np.testing.assert_array_equal(vectors[0], world.vectors[4])
    assert real.features.pins(ids).scalars.shape[0] == 3
    cards = real.features.cards(ids)
    assert set(cards) == {1, 5} and cards[5].title == "pin number 4"


def test_a_feed_from_the_real_store(real: Real) -> None:
    answer = run(real.service.homefeed(FeedRequest(user_id=1, limit=20)))
    assert answer.missing == [] and answer.release == 3 and len(answer.pins) == 20
    assert "pinnersage" in {p.source for p in answer.pins}
    assert any(p.why.text.startswith("Inspired by") for p in answer.pins)


def test_related_pins_from_the_real_store(real: Real) -> None:
    answer = run(real.service.related(RelatedRequest(pin_id=7, limit=5)))
    assert answer.missing == [] and len(answer.pins) == 5 and 7 not in [p.pin_id for p in answer.pins]


def test_an_event_is_in_the_next_feed(real: Real) -> None:
    """A user whom nobody knows saves two pins and is known, with interests of today."""
    user = 777
    before = run(real.service.homefeed(FeedRequest(user_id=user, limit=20)))
    assert before.fallback is not None
    events = [Event(user_id=user, pin_id=p, action="save", event_id=f"new{p}") for p in (11, 12)]
    answer = run(real.intake.accept(EventsRequest(events=events)))
    assert (answer.accepted, answer.applied) == (2, True)
    sequence = real.features.user(user, None).sequence
    assert sorted(sequence.pin_ids.tolist()) == [11, 12] and set(sequence.timestamps_ms.tolist()) == {NOW_MS}
    after = run(real.service.homefeed(FeedRequest(user_id=user, limit=20)))
    assert after.fallback is None and after.missing == []
    assert any(p.why.kind == "recent" for p in after.pins)
    assert not {11, 12} & {p.pin_id for p in after.pins}
    again = run(real.intake.accept(EventsRequest(events=events)))
    assert again.duplicates == 2 and len(real.features.user(user, None).sequence) == 2


# Replay ------------------------------------------------------------------------------------------------------


def served(real: Real, service: FeedService, users: range) -> list[RankingRecord]:
    """What the rankings of a feed for each user logged."""
    answers = {run(service.homefeed(FeedRequest(user_id=user, limit=30))).request_id for user in users}
    found: list[RankingRecord] = []
    for _ in range(200):  # records are made behind the answer
        found = [record for record in logged(real.events) if record.request_id in answers]
        if len(found) == len(answers):
            break
        time.sleep(0.02)
    return found


def made_anew(
    real: Real,
    world: features_world.World,
    records: list[RankingRecord],
    known: PointInTime | None = None,
    release: ServingRelease | None = None,
) -> Replayed:
    """The records' rows from Feast's history, the lake and the log, scored by the release's ranker."""
    release = release or real.service.release()
    history = SequenceLog.from_columns(logged_columns(world.lake, real.events))
    vectors = release.vectors(world.pin_ids, release.space)[0]
    catalogue = Catalogue.of(world.lake, PinVectors(features_world.SPACE, world.pin_ids, vectors))
    join = FeatureJoin(known or FeastPointInTime(real.store), catalogue, history, release.signs, lambda: None)
    assert release.ranker is not None
    calibrator = Calibrator.identity(release.ranker_name, release.ranker.heads)
    shown = read_shown(world.lake, history, features_world.START, features_world.END)
    read = Known(history, PinTable(world.pin_ids, vectors), shown=shown if release.reads_history else None)
    scorer = Scorer(release.ranker, calibrator, read)
    return compared([both(records, join, scorer)], ReplayConfig())


@pytest.fixture(scope="module")
def rankings(real: Real) -> list[RankingRecord]:
    """Feeds of users of every kind, one of whom acted a moment ago and is not in the lake with it."""
    event = Event(user_id=4, pin_id=9, action="save", timestamp_ms=NOW_MS - 60_000)
    run(real.intake.accept(EventsRequest(events=[event])))
    return served(real, real.service, range(1, 28))


def test_training_sees_what_serving_saw(
    real: Real, world: features_world.World, rankings: list[RankingRecord]
) -> None:
    found = made_anew(real, world, rankings)
    assert found.requests == len(rankings) >= 20 and found.rows > 200 and found.releases == (3,)
    names = {one.name for one in found.agreements}
    assert names == {*FEATURES, *SEQUENCE, "score_engage"}
    assert found.below(0.999) == () and found.share >= 0.999
    acted = next(record for record in rankings if record.user_id == 4)
    assert acted.sequence_newest_ms == NOW_MS - 60_000, "an event of the log counts"


def by_v2(real: Real) -> ServingRelease:
    """The release, ranked by a TransAct V2 that selects from histories."""
    lifelong = Lifelong(recent=5, nearest_lifelong=5, nearest_realtime=5, nearest_impressions=5)
    sequence = SequenceConfig(length=20, tokens="add", surface_dim=1, positions=True, causal=True, pin_dim=6)
    config = TransActConfig(
        spec=FeatureSpec(), sequence=sequence, heads=(Head(action=ENGAGE),), lifelong=lifelong
    )
    ranker = TransActRanker(seeded(config, DIM, 0))
    return replace(real.service.release(), ranker=ranker, ranker_name="transact@2")


def test_training_selects_from_the_history_that_serving_selected_from(
    real: Real, world: features_world.World
) -> None:
    release = by_v2(real)
    records = served(real, replace(real.service, release=lambda: release), range(1, 28))
    assert sum(record.history_length > 100 for record in records) > 1, "some know more than the sequence"
    assert sum(record.history_shown > 5 for record in records) > 5
    found = made_anew(real, world, records, release=release)
    assert {one.name for one in found.agreements} == {*FEATURES, *SEQUENCE, *HISTORY, "score_engage"}
    assert found.below(0.999) == () and found.rows > 200


def test_a_history_of_the_day_before_is_named(real: Real, world: features_world.World) -> None:
    """Its scores are made anew as of the midnight that was served, so that it alone is told of."""
    release = by_v2(real)
    records = served(
        real, replace(real.service, release=lambda: release, clock_ms=lambda: NOW_MS + DAY_MS), range(1, 9)
    )
    found = made_anew(real, world, records, release=release)
    assert {one.name for one in found.below(0.999)} == {"history_age_s"}


def test_who_came_after_the_last_batch_has_no_history_in_either(
    real: Real, world: features_world.World
) -> None:
    release, user = by_v2(real), 778
    events = [Event(user_id=user, pin_id=p, action="save", event_id=f"late{p}") for p in (13, 14)]
    assert run(real.intake.accept(EventsRequest(events=events))).accepted == 2
    service = replace(real.service, release=lambda: release, clock_ms=lambda: NOW_MS + DAY_MS)
    records = served(real, service, range(user, user + 1))
    assert len(records) == 1 and records[0].history_length == 0 < records[0].sequence_length
    found = made_anew(real, world, records, release=release)
    assert found.below(0.999) == ()


@dataclass(frozen=True)
class Wrong:
    """History with one counter of pins that is not what it was."""

    real: PointInTime

    def profiles(self, user_ids: np.ndarray, times: pd.Series) -> Profiles:
        return self.real.profiles(user_ids, times)

    def pin_scalars(self, pin_ids: np.ndarray, times: pd.Series) -> np.ndarray:
        return corrupted(self.real.pin_scalars(pin_ids, times))


def corrupted(scalars: np.ndarray) -> np.ndarray:
    scalars = scalars.copy()
    scalars[:, PIN_SCALARS.index("positives_7d")] += 1
    return scalars


@dataclass(frozen=True)
class WrongOnline(FeastFeatures):
    """A store with the same counter wrong."""

    def pins(self, ids: np.ndarray) -> PinStats:
        found = super().pins(ids)
        return replace(found, scalars=corrupted(found.scalars))


def test_a_feature_that_history_has_otherwise_is_named(
    real: Real, world: features_world.World, rankings: list[RankingRecord]
) -> None:
    found = made_anew(real, world, rankings, Wrong(FeastPointInTime(real.store)))
    assert {one.name for one in found.below(0.999)} == {"pin_positives_7d", "score_engage"}
    assert "pin" in found.examples["pin_positives_7d"] and found.share < 0.999


def test_a_feature_that_is_served_wrong_is_named(real: Real, world: features_world.World) -> None:
    release = replace(real.service.release(), features=WrongOnline(real.features.reader))
    records = served(real, replace(real.service, release=lambda: release), range(1, 6))
    found = made_anew(real, world, records)
    below = {one.name: one for one in found.below(0.999)}
    assert set(below) == {"pin_positives_7d", "score_engage"}
    assert below["pin_positives_7d"].largest == pytest.approx(1)
