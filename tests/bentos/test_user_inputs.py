"""Training and serving read a user alike: one history, off the action log and off the live sequence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bentos import light_scores
from bentos.feed import Feed, Surface
from bentos.networks import Learned
from bentos.release import ServingRelease
from bentos.sources import conditional, dcm, pinnerformer
from bentos.user_inputs import acts_of, as_of_ms, histories
from feature_repo.sequence import Event, Sequence, SequenceLog
from tests.bentos.fakes import (
    HIDE,
    NOW_MS,
    PINS,
    SAVE,
    FakeFeatures,
    pin_of,
    planted_features,
    planted_release,
    topic_of,
)
from tests.bentos.planted_networks import KNOWN_TOPICS, item_vectors
from training.interests.engagements import ActionLog, Catalogue
from training.models.interactions import Pins
from training.models.interests import profile_codes, topic_places
from training.models.interests.inference import embed_users
from training.models.pinnerformer import ActionArrays, Precision
from training.models.pinnerformer import embed_users as embed_timelines
from training.models.two_tower import user_vectors

USER, FIRST_MS = 1, 60_000
NO_VECTOR, NOT_IN_THE_LAKE = pin_of(2, 5), 9_999
SIGNS = {SAVE: 1, HIDE: -1}


def acted(count: int, seed: int) -> list[Event]:
    """Actions on pins of every kind: liked, hidden, without a vector, and of no catalogue."""
    rng = np.random.default_rng(seed)
    pins = rng.integers(1, PINS + 1, count)
    pins[rng.random(count) < 0.1] = NO_VECTOR
    pins[rng.random(count) < 0.1] = NOT_IN_THE_LAKE
    actions = np.where(rng.random(count) < 0.2, HIDE, SAVE)
    times = NOW_MS - rng.integers(0, 90 * 24, count) * 3_600_000 - 1  # some share their hour
    return [
        Event(100 + i, int(p), int(a), int(rng.integers(0, 9)), int(t), float(rng.integers(0, 60)))
        for i, (p, a, t) in enumerate(zip(pins, actions, times, strict=True))
    ]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> ServingRelease:
    features = planted_features()
    features.matrix[NO_VECTOR - 1] = 0
    folder: Path = tmp_path_factory.mktemp("parity")
    return planted_release(folder, features, learned=True)


def online(release: ServingRelease, events: list[Event]) -> Feed:
    features = release.features
    assert isinstance(features, FakeFeatures)
    feed = Feed(Surface.HOMEFEED, release, NOW_MS, 20, user_id=USER, seed=5)
    user = replace(features.user(USER, None), sequence=Sequence.of(events), country="NO", language="nb")
    feed.user = replace(user, known=True, followed_topics=np.array([2, 3, 6]))
    return feed


def offline(release: ServingRelease, events: list[Event]) -> tuple[Catalogue, ActionLog]:
    features = release.features
    assert isinstance(features, FakeFeatures)
    ids = np.arange(1, PINS + 1)
    topics = np.array([[0 if i == NO_VECTOR else topic_of(i)] for i in ids.tolist()], np.int64)
    catalogue = Catalogue.of(Pins(ids, features.matrix, topics, np.full(PINS, FIRST_MS)), KNOWN_TOPICS)
    columns = {
        "user_ids": np.full(len(events), USER),
        "event_ids": np.array([e.event_id for e in events], np.int64),
        "pin_ids": np.array([e.pin_id for e in events], np.int64),
        "actions": np.array([e.action for e in events], np.int64),
        "surfaces": np.array([e.surface for e in events], np.int64),
        "timestamps_ms": np.array([e.timestamp_ms for e in events], np.int64),
        "durations_s": np.array([e.duration_s for e in events], np.float32),
    }
    log = SequenceLog.from_columns([columns])
    rows = catalogue.rows(log.pin_ids)
    known = (rows >= 0) & catalogue.features.known()[rows]
    signs = np.where(known, [SIGNS[a] for a in log.actions.tolist()], 0).astype(np.int8)
    return catalogue, ActionLog(log.users, log, rows, signs, np.array([profile_codes(["NO", "nb"])]))


SIZES = [1, 2, 20, 100, 160]


@pytest.mark.parametrize("count", SIZES)
def test_interests_are_those_of_training(release: ServingRelease, count: int) -> None:
    events = acted(count, seed=count)
    network = release.networks.dcm
    assert network is not None
    catalogue, actions = offline(release, events)
    items = item_vectors(release.networks, catalogue.features.content)[Learned.DCM]
    seen = actions.histories(np.array([USER]), np.array([NOW_MS]), items, network.config.length)
    wanted = embed_users(network, seen)
    found = dcm.user_interests(online(release, events))
    assert found is not None
    alive = wanted.mask[0]
    order = np.argsort(-wanted.weights[0, alive].numpy(), kind="stable")
    np.testing.assert_allclose(found.vectors, wanted.vectors[0, alive].numpy()[order], atol=1e-5)
    np.testing.assert_allclose(found.weights, wanted.weights[0, alive].numpy()[order], atol=1e-5)


@pytest.mark.parametrize("count", SIZES)
def test_the_user_under_a_topic_is_that_of_training(release: ServingRelease, count: int) -> None:
    events = acted(count, seed=50 + count)
    network = release.networks.conditional
    assert network is not None
    catalogue, actions = offline(release, events)
    items = item_vectors(release.networks, catalogue.features.content)[Learned.CONDITIONAL]
    seen = actions.histories(np.array([USER]), np.array([NOW_MS]), items, network.config.length)
    places = torch.from_numpy(topic_places(np.array([2, 3]), network.topics))[None]
    with torch.inference_mode():
        wanted = network.users_given_topics(network.user.fields(seen), places).vectors[0].numpy()
    found = conditional.under_topics(online(release, events))
    assert found is not None and found.topics.tolist() == [2, 3], "topic 6 is not known to the model"
    np.testing.assert_allclose(found.vectors, wanted, atol=1e-5)


@pytest.mark.parametrize("count", SIZES)
def test_the_two_towers_user_is_that_of_training(release: ServingRelease, count: int) -> None:
    events = acted(count, seed=90 + count)
    network = release.networks.two_tower
    assert network is not None
    catalogue, actions = offline(release, events)
    content = catalogue.features.tensors()[0].numpy()
    seen = actions.histories(np.array([USER]), np.array([NOW_MS]), content, network.config.length)
    found = light_scores.user_vector(online(release, events))
    np.testing.assert_allclose(found, user_vectors(network, seen)[0], atol=1e-5)


@pytest.mark.parametrize("count", SIZES)
def test_pinnerformers_user_is_that_of_the_nightly_run(release: ServingRelease, count: int) -> None:
    """Of the last hundred actions, which is what the sequence keeps."""
    events = acted(count, seed=130 + count)
    network = release.networks.pinnerformer
    assert network is not None
    catalogue, actions = offline(release, events)
    log, kept = actions.log, slice(max(0, len(actions.log) - 100), None)
    known = catalogue.features.content.any(axis=1)
    arrays = ActionArrays(
        np.where(
            known[actions.pin_rows[kept]] & (actions.pin_rows[kept] >= 0), actions.pin_rows[kept], -1
        ).astype(np.int32),
        log.actions[kept],
        log.surfaces[kept],
        log.durations_s[kept],
        log.timestamps_ms[kept],
    )
    ends = np.array([len(arrays)])
    content = catalogue.features.content
    wanted = embed_timelines(
        network, arrays, np.zeros(1, np.int64), ends, content, precision=Precision.FLOAT32
    )[0]
    found = pinnerformer.user_vector(online(release, events))
    assert found is not None
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_user_without_actions_is_their_profile(release: ServingRelease) -> None:
    feed = online(release, [])
    found = dcm.user_interests(feed)
    assert found is not None and len(found) == 1 and np.isfinite(found.vectors).all()
    elsewhere = online(release, [])
    elsewhere.user = replace(elsewhere.user, country="PT", language="pt")
    other = dcm.user_interests(elsewhere)
    assert other is not None and not np.allclose(other.vectors, found.vectors)
    assert pinnerformer.user_vector(feed) is None


def test_an_action_of_this_very_millisecond_counts(release: ServingRelease) -> None:
    """And so does one that a fast clock dated ahead."""
    for late in (0, 90_000):
        feed = online(release, [Event(1, pin_of(1), SAVE, 1, NOW_MS + late)])
        assert as_of_ms(feed) == NOW_MS + late + 1
        assert histories(feed, "dcm@2", 64).valid.sum() == 1
    assert as_of_ms(online(release, [])) == NOW_MS


def test_what_a_user_did_is_made_once_and_anew_for_another(release: ServingRelease) -> None:
    feed = online(release, [Event(1, pin_of(1), SAVE, 1, NOW_MS - 1)])
    made = acts_of(feed)
    assert acts_of(feed) is made and histories(feed, "dcm@2", 64).valid.sum() == 1
    feed.user = replace(feed.user, sequence=Sequence.empty())
    assert len(acts_of(feed).signs) == 0
