"""What services read: equal to Feast's own answer, padded, fresh or said to be stale."""

from __future__ import annotations

import time
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from feature_repo.history import History, whole_seconds
from feature_repo.online.features import Freshness
from feature_repo.online.reader import OnlineFeatures
from feature_repo.schema import HISTORY_LENGTH, PIN_SCALARS, USER_SCALARS
from feature_repo.sequence import SequenceLog
from tests.feature_repo.conftest import END, SPACE, World

NOW = END.timestamp() + 3_600


@pytest.fixture(scope="module")
def reader(store) -> OnlineFeatures:
    return OnlineFeatures(store, clock=lambda: NOW)


def test_a_user_is_read_whole(reader: OnlineFeatures, store, world: World) -> None:
    log = SequenceLog.from_actions(world.tables["actions"])
    latest = pd.read_parquet(world.features / "user_profile").sort_values("event_timestamp", kind="stable")
    for user in (1, 2, 3, 4):
        row = latest[latest["user_id"] == user].iloc[-1]
        found = reader.user(user, [SPACE, "content@9"])
        assert found.known and not found.stale
        assert found.sequence == log.sequence(user, int(END.timestamp() * 1000))
        assert found.scalars.dtype == np.float32
        assert found.scalars.tolist() == [row[name] for name in USER_SCALARS]
        assert found.country == row["country"]
        assert found.followed_topics.tolist() == row["followed_topics"].tolist()
        assert found.followed_boards.tolist() == row["followed_boards"].tolist()
        assert found.created_at_ms == row["created_at_ms"]
        assert set(found.interests) == ({SPACE} if user <= 3 else set()), "content@9 does not exist"
    interests = reader.user(1, [SPACE]).interests[SPACE]
    np.testing.assert_array_equal(interests.vectors, world.vectors[1:4])
    np.testing.assert_allclose(interests.importances, [1, 2 / 3, 1 / 3])
    assert interests.medoid_pin_ids.tolist() == [2, 3, 4] and interests.cluster_sizes.tolist() == [2, 2, 2]
    assert len(reader.user(3, [SPACE]).interests[SPACE].medoid_pin_ids) == 0


def test_an_unknown_user_is_empty(reader: OnlineFeatures) -> None:
    found = reader.user(10**15, [SPACE])
    assert not found.known and len(found.sequence) == 0 and not found.interests
    assert found.scalars.shape == (len(USER_SCALARS),) and not found.scalars.any()
    assert len(found.followed_topics) == 0 and found.country is None


def test_pins_equal_feasts_own_answer(reader: OnlineFeatures, store, world: World) -> None:
    ids = [5, 3, 5, 0, 10**12, 60]
    found = reader.pins(ids)
    assert found.present.tolist() == [True, True, True, False, False, True]
    assert found.scalars.shape == (6, len(PIN_SCALARS)) and found.scalars.dtype == np.float32
    assert not found.scalars[3:5].any() and not found.topics[3:5].any() and not found.created_at_ms[3:5].any()
    names = [*PIN_SCALARS, "topics", "created_at_ms"]
    rows = store.get_online_features(
        features=[f"pin_stats:{n}" for n in names], entity_rows=[{"pin_id": i} for i in ids]
    ).to_dict()
    for i in (0, 1, 2, 5):
        assert found.scalars[i].tolist() == [rows[n][i] for n in PIN_SCALARS]
        assert found.topics[i].tolist() == rows["topics"][i]
        assert found.created_at_ms[i] == rows["created_at_ms"][i]
    assert found.age_s == 3_600 and not found.stale


def test_no_pins_are_no_rows(reader: OnlineFeatures) -> None:
    assert reader.pins([]).scalars.shape == (0, len(PIN_SCALARS))
    assert reader.embeddings([], SPACE)[0].shape == (0, 0)
    assert reader.cards([]) == [] and reader.popular([]) == {} and reader.boards([]) == {}


def test_cards_say_what_the_pin_says(reader: OnlineFeatures, world: World) -> None:
    pins = world.tables["pins"].set_index("pin_id")
    cards = reader.cards([2, 1, 999])
    assert [c.pin_id for c in cards] == [2, 1, 999] and [c.present for c in cards] == [True, True, False]
    assert cards[0].title == pins.loc[2, "title"] and cards[1].title == ""
    assert cards[0].description == pins.loc[2, "description"], "text in UTF-8"
    assert cards[0].topics == tuple(pins.loc[2, "topics"])


def test_popular_and_boards(reader: OnlineFeatures, world: World) -> None:
    rows = pd.read_parquet(world.features / "topic_features").set_index("topic_id")
    found = reader.popular([0, 3, 3, 999])
    assert set(found) == {0, 3}
    for topic, (ids, scores) in found.items():
        assert ids.tolist() == rows.loc[topic, "popular_pin_ids"].tolist()
        assert scores.tolist() == rows.loc[topic, "popular_scores"].tolist()
    boards = pd.read_parquet(world.features / "board_features").set_index("board_id")
    assert reader.boards([1, 999]).keys() == {1}
    assert reader.boards([1])[1].tolist() == boards.loc[1, "recent_pin_ids"].tolist()


def test_age_is_that_of_the_daily_run_not_of_a_quiet_row(store, world: World) -> None:
    """A pin whose counters last changed weeks ago is as fresh as last night's run."""
    rows = pd.read_parquet(world.features / "pin_stats").sort_values("event_timestamp")
    last = rows[rows["pin_id"] != 0].drop_duplicates("pin_id", keep="last")
    quiet = last.loc[last["event_timestamp"] < END - timedelta(days=2), "pin_id"].to_numpy()
    assert len(quiet), "the fixture has quiet pins"
    day = 86_400
    reader = OnlineFeatures(store, Freshness(pin_stats=day), clock=lambda: END.timestamp() + day - 1)
    assert reader.pins(quiet).present.all()


def test_stale_features_count_as_missing_and_are_named(store) -> None:
    limits = Freshness(pin_stats=60, user_profile=60, topic_features=60, board_features=60, user_interests=60)
    reader = OnlineFeatures(store, limits, clock=lambda: NOW)
    pins = reader.pins([1, 2])
    assert pins.stale and not pins.present.any() and not pins.scalars.any() and pins.age_s == 3_600
    user = reader.user(1, [SPACE])
    assert set(user.stale) == {"user_profile", f"user_interests/{SPACE}"}
    assert not user.scalars.any() and not user.interests and len(user.followed_topics) == 0
    assert len(user.sequence) and user.known, "the sequence has no limit"
    assert reader.popular([0]) == {} and reader.boards([1]) == {}
    assert set(reader.ages().values()) == {3_600}
    old = OnlineFeatures(store, Freshness(pin_embedding=60, user_sequence=60), clock=lambda: NOW)
    assert not old.embeddings([1], SPACE)[1].any()
    assert old.user(1).stale == ("user_sequence",)
    assert OnlineFeatures(store, Freshness.unbounded(), clock=lambda: NOW * 2).pins([1]).present.all()


def test_a_month_is_the_default_limit_of_daily_views(store) -> None:
    reader = OnlineFeatures(store, clock=lambda: END.timestamp() + 31 * 86_400)
    assert reader.pins([1]).stale and reader.user(1).stale == ("user_profile",)
    assert OnlineFeatures(store).clock is time.time


def test_unknown_views_cannot_be_limited() -> None:
    with pytest.raises(ValidationError):
        Freshness(pin_stat=60)


def test_the_on_demand_view_uses_the_requests_time(store, world: World) -> None:
    created = world.tables["pins"].set_index("pin_id").loc[1, "created_at"]
    rows = [{"pin_id": 1, "request_time_ms": int((created.timestamp() + 86_400 * 2.5) * 1000)}]
    rows += [{"pin_id": 10**9, "request_time_ms": 1}]
    found = store.get_online_features(features=["pin_age:pin_age_days"], entity_rows=rows).to_dict()
    assert found["pin_age_days"] == [pytest.approx(2.5, abs=1e-6), -1.0]


def test_feature_services_read_online(store) -> None:
    from feature_repo import schema

    service = store.get_feature_service(schema.PINNABILITY_SERVICE)
    rows = [{"user_id": 1, "pin_id": 1, "space": SPACE, "request_time_ms": int(NOW * 1000)}]
    found = store.get_online_features(features=service, entity_rows=rows, full_feature_names=True).to_dict()
    assert found["pin_stats__topic_count"][0] is not None and len(found["pin_embedding__vector"][0]) == 8


def test_one_read_brings_a_users_vectors_beside_their_interests(
    store, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the spaces asked for, each as of its own run; a space or a user without a row is left out."""
    space, at = "pinnerformer@3", pd.Timestamp(END) - pd.Timedelta(hours=5)
    rows = pd.DataFrame({"user_id": [1, 2], "space": space, "vector": [[0.5, -0.5], [1.0, 0.0]]})
    rows = rows.assign(event_timestamp=at, created=at)
    store.write_to_online_store("user_embedding", rows)
    reader = OnlineFeatures(store, clock=lambda: NOW)
    reads: list[int] = []
    read = reader._read
    monkeypatch.setattr(reader, "_read", lambda asked: reads.append(len(asked)) or read(asked))
    found = reader.user(1, [SPACE], [space, "pinnerformer@9"])
    assert reads == [5], "sequence, profile, interests and both spaces in one round trip"
    assert found.embeddings.keys() == {space} and found.interests.keys() == {SPACE}
    assert found.embeddings[space].tolist() == [0.5, -0.5] and found.embeddings[space].dtype == np.float32
    assert found.event_times_ms[f"user_embedding/{space}"] == int(at.timestamp() * 1000)
    assert not reader.user(3, [SPACE], [space]).embeddings and not reader.user(1, [SPACE]).embeddings
    old = OnlineFeatures(store, Freshness(user_embedding=60), clock=lambda: NOW).user(1, (), [space])
    assert not old.embeddings and old.stale == (f"user_embedding/{space}",)


def test_the_history_is_read_where_it_is_asked_for(store, world: World) -> None:
    log, end_ms = SequenceLog.from_actions(world.tables["actions"]), int(END.timestamp() * 1000)
    reader = OnlineFeatures(store, clock=lambda: NOW)
    for user in (1, 3, 24):
        found = reader.user(user, history=True)
        start, end = (int(at[0]) for at in log.slice(np.array([user]), np.array([end_ms]), HISTORY_LENGTH))
        assert end > start and found.history.as_of_ms == end_ms
        np.testing.assert_array_equal(found.history.pin_ids, log.pin_ids[start:end][::-1])
        np.testing.assert_array_equal(found.history.actions, log.actions[start:end][::-1])
        np.testing.assert_array_equal(found.history.surfaces, log.surfaces[start:end][::-1])
        np.testing.assert_array_equal(found.history.times_ms, whole_seconds(log.timestamps_ms[start:end][::-1]))
        assert found.history.shown_ms.max(initial=0) < end_ms and reader.user(user).history is History.none()
        assert found.sequence == reader.user(user).sequence
    stranger = reader.user(10**15, history=True)
    assert stranger.history.as_of_ms == end_ms and len(stranger.history.pin_ids) == 0 and not stranger.known
    old = OnlineFeatures(store, Freshness(user_history=60), clock=lambda: NOW).user(1, history=True)
    assert old.history is History.none() and old.stale == ("user_history",)
