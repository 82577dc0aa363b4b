"""User-days of a lake against loops over its rows: first engagements, histories before midnight, sources."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from tests.training.data.worlds import World, tiny_world
from training.interests.engagements import (
    ActionLog,
    Engagements,
    followed_topics,
    ms,
    read_engagements,
    read_profiles,
)
from training.models.content import ContentConfig, ContentEncoder
from training.models.interactions import Pins
from training.models.interests import history, profile_codes
from training.pipelines.content import catalogue, pin_frames
from validation.tables import Polarity

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def world() -> World:
    return tiny_world()


@pytest.fixture(scope="module")
def pins(world: World) -> Pins:
    config = ContentConfig(dim=16, hash_bits=10, text_encoder="ngrams")
    encoder = ContentEncoder.fit(pin_frames(world.lake), config)
    return catalogue(world.lake, encoder)


@pytest.fixture(scope="module")
def data(world: World, pins: Pins) -> Engagements:
    end = world.lake.interval()[1]
    return read_engagements(world.lake, pins, end - 5 * DAY, end)


@pytest.fixture(scope="module")
def positives(world: World) -> pd.DataFrame:
    rows = world.lake.read("actions", ["user_id", "pin_id", "action", "timestamp", "request_id"])
    return rows[rows["action"].isin(world.lake.contract().vocabulary.codes(Polarity.POSITIVE))]


def test_an_engagement_is_the_first_of_its_user_and_pin(
    world: World, data: Engagements, positives: pd.DataFrame
) -> None:
    start = world.lake.interval()[1] - 5 * DAY
    known: set[tuple[int, int]] = set()
    expected: set[tuple[int, int, int]] = set()
    for row in positives.itertuples():
        pair = (row.user_id, row.pin_id)
        if pair not in known and row.timestamp >= start:
            expected.add((ms(row.timestamp.floor("D")), *pair))
        known.add(pair)
    days = data.days
    owner = days.owner
    found = zip(days.times_ms[owner], days.users[owner], data.catalogue.ids[days.pins], strict=True)
    assert {(int(t), int(u), int(p)) for t, u, p in found} == expected
    assert len(days.pins) == len(expected) and (np.diff(days.offsets) > 0).all()
    assert (np.diff(days.times_ms) >= 0).all()


def test_sources_are_the_topics_of_the_impressions(
    world: World, data: Engagements, positives: pd.DataFrame
) -> None:
    shown = world.lake.read("impressions", ["request_id", "pin_id", "source_topic"])
    topics = {(r, p): t for r, p, t in shown.itertuples(index=False)}
    first = positives.drop_duplicates(["user_id", "pin_id"])
    expected = {
        (u, p): topics.get((r, p), 0)
        for u, p, r in first[["user_id", "pin_id", "request_id"]].itertuples(index=False)
    }
    days, vocabulary = data.days, np.array([0, *data.catalogue.topics])
    pairs = zip(days.users[days.owner].tolist(), data.catalogue.ids[days.pins].tolist(), strict=True)
    np.testing.assert_array_equal(vocabulary[days.sources], [expected[pair] for pair in pairs])
    assert (days.sources > 0).mean() > 0.3


def test_histories_lie_before_midnight_and_equal_the_online_ones(
    world: World, pins: Pins, data: Engagements
) -> None:
    rows = np.arange(0, len(data.days), 9)
    part = data.days.take(rows)
    vectors = np.where(data.catalogue.features.known()[:, None], pins.vectors, 0).astype(np.float32)
    offline = data.actions.histories(part.users, part.times_ms, vectors, 20)
    assert (offline.hours[offline.signs != 0] > 0).all()
    vocabulary = world.lake.contract().vocabulary
    polarity = dict.fromkeys(vocabulary.codes(Polarity.POSITIVE), 1)
    polarity |= dict.fromkeys(vocabulary.codes(Polarity.NEGATIVE), -1)
    for row in range(len(part)):
        sequence = data.actions.log.sequence(int(part.users[row]), int(part.times_ms[row]))
        at = data.catalogue.rows(sequence.pin_ids)
        online = history(
            np.where(at[:, None] >= 0, vectors[at], 0),
            np.array([polarity.get(int(a), 0) for a in sequence.actions], np.int64),
            sequence.timestamps_ms,
            int(part.times_ms[row]),
            length=20,
        )
        count = online.items.shape[1]
        np.testing.assert_array_equal(offline.items[row, :count], online.items[0])
        np.testing.assert_array_equal(offline.signs[row, :count], online.signs[0])
        np.testing.assert_array_equal(offline.hours[row, :count], online.hours[0])
        assert not offline.signs[row, count:].any() and not offline.items[row, count:].any()


def test_performance_counts_whole_days_before(world: World, data: Engagements, positives: pd.DataFrame) -> None:
    now = int(data.days.times_ms[-1])
    found = data.performance(np.array([now]))[now]
    stamps = positives["timestamp"].map(ms).to_numpy()
    for days, column in ((1, 0), (7, 1)):
        inside = (stamps < now) & (stamps >= now - days * 86_400_000)
        counts = positives["pin_id"][inside].value_counts().reindex(data.catalogue.ids, fill_value=0)
        np.testing.assert_allclose(found[:, column], 0.3 * np.log1p(counts.to_numpy()), rtol=1e-5)


def test_users_nobody_knows_have_empty_histories(data: Engagements, pins: Pins) -> None:
    found = data.actions.histories(np.array([10**9]), np.array([ms(data_end(data))]), pins.vectors, 20)
    assert found.items.shape == (1, 0, pins.vectors.shape[1]) and not found.profile.any()


def data_end(data: Engagements) -> pd.Timestamp:
    return pd.Timestamp(int(data.days.times_ms[-1]), unit="ms", tz="UTC") + DAY


def test_taking_rows_and_engagements(data: Engagements) -> None:
    days = data.days
    part = days.take(np.array([4, 1]))
    assert part.users.tolist() == days.users[[4, 1]].tolist()
    np.testing.assert_array_equal(part.pins[: part.offsets[1]], days.pins[days.offsets[4] : days.offsets[5]])
    kept = days.sources > 0
    some = days.where(kept)
    assert len(some.pins) == kept.sum() and (np.diff(some.offsets) > 0).all()
    np.testing.assert_array_equal(some.users[some.owner], days.users[days.owner][kept])


def test_profiles_and_follows(world: World, data: Engagements) -> None:
    users = world.lake.read("users", ["user_id", "country", "language"]).set_index("user_id")
    codes = read_profiles(world.lake, data.actions.users)
    for user, code in list(zip(data.actions.users.tolist(), codes.tolist(), strict=True))[:20]:
        assert code == profile_codes(users.loc[user].tolist())
    end = world.lake.interval()[1]
    follows = world.lake.read("follows", ["user_id", "topic_id", "timestamp"])
    early = end - 8 * DAY
    found = followed_topics(world.lake, early)
    rows = follows[(follows["topic_id"] != 0) & (follows["timestamp"] < early)]
    assert {u: set(t.tolist()) for u, t in found.items()} == rows.groupby("user_id")["topic_id"].apply(
        set
    ).to_dict()


def test_only_actions_before_the_end_are_read(world: World, data: Engagements) -> None:
    middle = world.lake.interval()[1] - 3 * DAY
    early = ActionLog.read(world.lake, data.catalogue, middle)
    assert early.log.timestamps_ms.max() < ms(middle)
