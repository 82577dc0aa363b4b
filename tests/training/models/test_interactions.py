"""Request-time features against their definition, written again in plain Python, and online against offline."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.schema import PIN_TOPICS, SEQUENCE_LENGTH
from training.models.interactions import (
    AGE_CAP_DAYS,
    HOURS_CAP,
    INTERACTION_FEATURES,
    ActionRows,
    Pins,
    RequestRows,
    interactions,
    polarity_signs,
    request_interactions,
)
from validation.tables import DEFAULT_VOCABULARY, Polarity, Vocabulary

NOW = 1_700_000_000_000
HOUR = 3_600_000
SIGNS = polarity_signs(DEFAULT_VOCABULARY)
COLUMN = {name: i for i, name in enumerate(INTERACTION_FEATURES)}


def random_pins(rng: np.random.Generator, count: int, dim: int = 12) -> Pins:
    vectors = rng.standard_normal((count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[rng.random(count) < 0.15] = 0
    topics = rng.integers(0, 6, (count, PIN_TOPICS))
    created = NOW - rng.integers(0, 400 * 24, count) * HOUR
    created[rng.random(count) < 0.1] = 0
    return Pins(np.arange(1, count + 1), vectors, topics, created)


def expected(pins: Pins, sequence: list[tuple[int, int, int]], pin: int, followed: set[int], now: int) -> dict:
    """The features of one candidate row from (pin row or -1, action, ms) newest first, by their definition."""
    sequence = sequence[:SEQUENCE_LENGTH]
    of_pin = {int(t) for t in pins.topics[pin] if t} if pin >= 0 else set()
    hours = [(now - t) / HOUR for _, _, t in sequence]
    vector = pins.vectors[pin].astype(np.float64) if pin >= 0 else np.zeros(pins.vectors.shape[1])
    comparable = vector.any()
    positives = [(p, h) for (p, a, _), h in zip(sequence, hours, strict=True) if SIGNS[a] > 0]
    negatives = [(p, h) for (p, a, _), h in zip(sequence, hours, strict=True) if SIGNS[a] < 0]

    def cosines(rows):
        return [(float(vector @ pins.vectors[p]), h) for p, h in rows if comparable and p >= 0]

    def best(pairs):
        return max((c for c, _ in pairs), default=0.0)

    def mean(values):
        return float(np.mean(values)) if len(values) else 0.0

    def share(rows):
        return mean([p >= 0 and bool(of_pin & {int(t) for t in pins.topics[p]}) for p, _ in rows])

    positive, recent = cosines(positives), cosines(positives[:10])
    weights = np.exp([-h / 24 for _, h in positive])
    on_topic = [h for p, h in positives if p >= 0 and of_pin & {int(t) for t in pins.topics[p]}]
    on_pin = [h for (p, _, _), h in zip(sequence, hours, strict=True) if p >= 0 and p == pin]
    created = pins.created_at_ms[pin] if pin >= 0 else 0
    return {
        "cos_positive_max": best(positive),
        "cos_positive_mean": mean([c for c, _ in positive]),
        "cos_positive_top3": mean(sorted((c for c, _ in positive), reverse=True)[:3]),
        "cos_recent_max": best(recent),
        "cos_recent_mean": mean([c for c, _ in recent]),
        "cos_day_max": best([(c, h) for c, h in positive if h <= 24]),
        "cos_decayed": float(weights @ [c for c, _ in positive] / weights.sum())
        if weights.sum() > 1e-6
        else 0.0,
        "cos_negative_max": best(cosines(negatives)),
        "topic_positive_share": share(positives),
        "topic_recent_share": share(positives[:10]),
        "topic_negative_share": share(negatives),
        "topic_followed": sum(int(t) in followed for t in (pins.topics[pin] if pin >= 0 else []) if t),
        "hours_since_topic": min([*on_topic, HOURS_CAP]),
        "pin_positive_count": sum(p >= 0 and p == pin for p, _ in positives),
        "pin_negative_count": sum(p >= 0 and p == pin for p, _ in negatives),
        "hours_since_pin": min([*on_pin, HOURS_CAP]),
        "sequence_positives": len(positives),
        "sequence_negatives": len(negatives),
        "hours_since_action": min([*hours[:1], HOURS_CAP]),
        "pin_age_days": min((now - created) / HOUR / 24, AGE_CAP_DAYS) if created else AGE_CAP_DAYS,
        "hour_sin": np.sin(2 * np.pi * (now % (24 * HOUR)) / (24 * HOUR)),
        "hour_cos": np.cos(2 * np.pi * (now % (24 * HOUR)) / (24 * HOUR)),
        "weekend": float(np.datetime64(now, "ms").item().weekday() >= 5),
        "has_vector": float(comparable),
    }


@given(seed=st.integers(0, 2**31), actions=st.integers(0, 140), offset_hours=st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_every_feature_has_its_defined_value(seed: int, actions: int, offset_hours: int):
    rng = np.random.default_rng(seed)
    pins = random_pins(rng, 40)
    now = NOW + offset_hours * HOUR
    times = np.sort(now - 1 - rng.integers(0, 60 * 24, actions) * HOUR)
    log = ActionRows(
        rng.integers(-1, 40, actions),
        rng.integers(1, len(SIGNS), actions).astype(np.int32),
        times,
    )
    candidates = np.array([-1, *range(12)])
    followed = np.array([2, 5, 77])
    n = len(candidates)
    rows = RequestRows(
        pin_rows=candidates,
        pin_ids=np.where(candidates < 0, 9999, candidates + 1),
        times_ms=np.full(n, now),
        starts=np.zeros(n, np.int64),
        ends=np.full(n, actions),
        followed_starts=np.zeros(n, np.int64),
        followed_ends=np.full(n, 3),
    )
    features = interactions(pins, log, rows, followed, SIGNS)
    newest_first = list(zip(log.pin_rows, log.actions, log.times_ms, strict=True))[::-1]
    for row, pin in enumerate(candidates):
        want = expected(pins, newest_first, pin, {2, 5, 77}, now)
        assert tuple(want) == INTERACTION_FEATURES
        np.testing.assert_allclose(features[row], list(want.values()), rtol=2e-5, atol=2e-6)


def test_online_and_offline_give_the_same_bits():
    rng = np.random.default_rng(4)
    pins = random_pins(rng, 300, dim=64)
    users, per_user, shown = 6, 150, 25
    log_pins = rng.integers(0, 300, users * per_user)
    log_actions = rng.integers(1, len(SIGNS), users * per_user).astype(np.int32)
    log_times = np.sort(NOW - rng.integers(1, 10**9, (users, per_user)), axis=1).ravel()
    user = np.repeat(np.arange(users), shown)
    candidates = rng.integers(0, 300, users * shown)
    followed = np.arange(1, users + 1)
    offline = interactions(
        pins,
        ActionRows(log_pins, log_actions, log_times),
        RequestRows(
            pin_rows=candidates,
            pin_ids=pins.ids[candidates],
            times_ms=np.full(len(user), NOW),
            starts=user * per_user,
            ends=(user + 1) * per_user,
            followed_starts=user,
            followed_ends=user + 1,
        ),
        followed,
        SIGNS,
    )

    def take(rows):
        return Pins(pins.ids[rows], pins.vectors[rows], pins.topics[rows], pins.created_at_ms[rows])

    for u in range(users):
        own = np.arange((u + 1) * per_user - 1, (u + 1) * per_user - 1 - SEQUENCE_LENGTH, -1)
        mine = user == u
        online = request_interactions(
            take(log_pins[own]),
            log_actions[own],
            log_times[own],
            take(candidates[mine]),
            followed[u : u + 1],
            NOW,
            SIGNS,
        )
        np.testing.assert_array_equal(online, offline[mine])
        one = request_interactions(
            take(log_pins[own]),
            log_actions[own],
            log_times[own],
            take(candidates[mine][7:8]),
            followed[u : u + 1],
            NOW,
            SIGNS,
        )
        np.testing.assert_array_equal(one[0], offline[mine][7])


def test_actions_at_or_after_the_request_are_left_out():
    pins = random_pins(np.random.default_rng(0), 3)
    times = np.array([NOW + HOUR, NOW, NOW - HOUR])
    features = request_interactions(pins, np.array([4, 4, 4]), times, pins, np.empty(0, np.int64), NOW, SIGNS)
    np.testing.assert_array_equal(features[:, COLUMN["sequence_positives"]], 1)
    np.testing.assert_allclose(features[:, COLUMN["hours_since_action"]], 1.0)


def test_a_user_without_a_sequence():
    pins = random_pins(np.random.default_rng(1), 5)
    nothing = Pins(pins.ids[:0], pins.vectors[:0], pins.topics[:0], pins.created_at_ms[:0])
    none = np.empty(0, np.int64)
    features = request_interactions(nothing, none, none, pins, none, NOW, SIGNS)
    assert features.shape == (5, len(INTERACTION_FEATURES)) and np.isfinite(features).all()
    assert (features[:, COLUMN["hours_since_action"]] == HOURS_CAP).all()
    assert (
        request_interactions(pins, np.full(5, 4), np.full(5, NOW - 1), nothing, none, NOW, SIGNS).shape[0] == 0
    )


def test_signs_follow_the_vocabulary():
    vocabulary = Vocabulary(
        actions={"view": Polarity.NEUTRAL, "like": Polarity.POSITIVE, "mute": Polarity.NEGATIVE}
    )
    assert polarity_signs(vocabulary).tolist() == [0, 0, 1, -1]


def test_arrays_of_the_wrong_shape_are_named():
    pins = random_pins(np.random.default_rng(1), 5)
    short = Pins(pins.ids, pins.vectors, pins.topics[:4], pins.created_at_ms)
    none = np.empty(0, np.int64)
    rows = RequestRows(none, none, none, none, none, none, none)
    log = ActionRows(none, none.astype(np.int32), none)
    with pytest.raises(ValueError, match=r"pins\.topics has 4 rows for 5 pins"):
        interactions(short, log, rows, none, SIGNS)
    narrow = Pins(pins.ids, pins.vectors, pins.topics[:, :2], pins.created_at_ms)
    with pytest.raises(ValueError, match=r"pins\.topics is \(5, 2\)"):
        interactions(narrow, log, rows, none, SIGNS)
