"""The table's protocol against a plain reading of it, on a small world whose interests are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.benchmarks import pinnersage_rewards
from tests.benchmarks.pinnersage_clusters import WAYS, Trees, at_equal_counts, nearness
from training.evaluation.pinnersage_alpha import AlphaConfig
from training.evaluation.pinnersage_protocol import METRICS, TableConfig, days_to_predict
from training.evaluation.pinnersage_table import (
    DIRECTIONS,
    LAST_PIN,
    SAMPLE_1,
    WARD,
    Table,
    pinnersage_table,
)
from training.evaluation.user_embeddings import (
    complete_clusters,
    decay_average,
    interests_of,
    kmeans_clusters,
    points_of,
)
from training.models.interactions import Pins
from training.models.interest_clusters import ward_labels
from training.models.pinnersage import MS_PER_DAY, History, PinnerSageConfig, user_interests
from training.models.query_rewards import Record
from training.pipelines.user_actions import UserActions

END = 20_000 * MS_PER_DAY
TOPICS = 20
CONFIG = TableConfig(
    days=2,
    users=40,
    draws=2,
    recommended=40,
    tuned=AlphaConfig(days=3, users=15, recommended=40),
    resamples=200,
)


def world(seed: int = 0, users: int = 40, per_topic: int = 50) -> tuple[Pins, UserActions, UserActions]:
    """Users with three far-apart topics each, acting in one of them at a time; impressions are of any topic."""
    rng = np.random.default_rng(seed)
    topic = np.repeat(np.arange(TOPICS), per_topic)
    centres = np.eye(TOPICS)
    vectors = centres[topic] + 0.05 * rng.standard_normal((len(topic), TOPICS))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    pins = Pins(
        np.arange(1, len(topic) + 1),
        vectors,
        np.zeros((len(topic), 4), np.int64),
        np.ones(len(topic), np.int64),
    )
    acts, shows = [], []
    for user in range(1, users + 1):
        mine = rng.choice(TOPICS, 3, replace=False)
        for day in range(1, 25):
            for _ in range(3):
                pin = int(rng.choice(np.flatnonzero(topic == rng.choice(mine)))) + 1
                acts.append((user, pin, END - day * MS_PER_DAY + int(rng.integers(MS_PER_DAY))))
            shows += [(user, int(p), END - day * MS_PER_DAY + 5) for p in rng.integers(1, len(topic), 30)]
    return pins, log(acts, pins), log(shows, pins)


def log(rows: list[tuple[int, int, int]], pins: Pins) -> UserActions:
    frame = pd.DataFrame(rows, columns=["user_id", "pin_id", "at"])
    frame["timestamp"] = pd.to_datetime(frame.pop("at"), unit="ms", utc=True)
    return UserActions.of(frame, pins)


@pytest.fixture(scope="module")
def table() -> Table:
    return pinnersage_table(*world(), END, CONFIG)


def test_several_far_interests_need_several_embeddings(table: Table):
    value = dict(zip(table.methods, table.values(), strict=True))
    relevance, recall = METRICS.index("relevance"), METRICS.index("recall")
    assert value[WARD][relevance] > 0.8  # three embeddings, three topics
    assert value[LAST_PIN][relevance] == pytest.approx(1 / 3, abs=0.1)
    assert value[SAMPLE_1][relevance] == pytest.approx(1 / 3, abs=0.1)
    # 13 of the 50 pins of each of three topics, against 40 of the 50 of one
    assert value[WARD][recall] == pytest.approx(13 / 50, abs=0.06)
    assert value[LAST_PIN][recall] == pytest.approx(40 / 50 / 3, abs=0.06)
    assert value[WARD][METRICS.index("r_precision")] > value[LAST_PIN][METRICS.index("r_precision")] + 0.05
    assert table.interests == pytest.approx(3, abs=0.6)
    difference, low, high = table.difference({WARD: 1, LAST_PIN: -1}, "relevance")
    assert 0 < low < difference < high


def test_last_pins_recall_is_what_a_plain_reading_gives():
    pins, actions, _ = world(seed=3, users=12)
    config = CONFIG.model_copy(update={"days": 2})
    table = pinnersage_table(pins, actions, None, END, config)
    found = held = near = 0
    for user in range(len(actions)):
        for back in (2, 1):
            midnight = END - back * MS_PER_DAY
            part = slice(actions.offsets[user], actions.offsets[user + 1])
            rows, times = actions.pin_rows[part], actions.times_ms[part]
            last = rows[times < midnight][-1]
            day = np.unique(rows[(times >= midnight) & (times < midnight + MS_PER_DAY)])
            top = np.argsort(-(pins.vectors @ pins.vectors[last]), kind="stable")[:40]
            found += np.isin(day, top).sum()
            near += (pins.vectors[day] @ pins.vectors[top].T >= 0.8).any(axis=1).sum()
            held += len(day)
    got = table.values()[table.methods.index(LAST_PIN)]
    assert got[1] == pytest.approx(found / held)
    assert got[0] == pytest.approx(near / held)
    assert np.isnan(got[2:]).all()  # no impressions, no ranking


def test_what_happens_after_the_days_or_later_in_them_changes_nothing():
    pins, actions, shown = world(seed=1, users=10)
    rows = [
        (int(user), int(pins.ids[row]), int(time))
        for user, start, stop in zip(actions.users, actions.offsets[:-1], actions.offsets[1:], strict=True)
        for row, time in zip(actions.pin_rows[start:stop], actions.times_ms[start:stop], strict=True)
    ]
    later = [(user, 1 + (pin + 500) % len(pins.ids), time + 30 * MS_PER_DAY) for user, pin, time in rows]
    before = pinnersage_table(pins, actions, shown, END, CONFIG)
    after = pinnersage_table(pins, log(rows + later, pins), shown, END, CONFIG)
    np.testing.assert_array_equal(before.hits, after.hits)
    assert before.alpha == after.alpha


def test_pins_made_on_the_day_are_neither_fetched_nor_held_out():
    pins, actions, shown = world(seed=2, users=10)
    young = Pins(pins.ids, pins.vectors, pins.topics, np.full(len(pins.ids), END - MS_PER_DAY))
    with pytest.raises(ValueError, match="older than the day"):
        pinnersage_table(young, actions, shown, END, CONFIG.model_copy(update={"days": 1}))


def test_novel_leaves_out_what_was_known():
    pins, actions, shown = world(seed=4, users=20, per_topic=14)
    everything = pinnersage_table(pins, actions, shown, END, CONFIG)
    novel = pinnersage_table(pins, actions, shown, END, CONFIG.model_copy(update={"novel": True}))
    assert novel.counts[0].sum() < 0.5 * everything.counts[0].sum()


def test_runs_repeat_and_intervals_hold_the_value(table: Table):
    again = pinnersage_table(*world(), END, CONFIG)
    np.testing.assert_array_equal(table.hits, again.hits)
    lift, low, high = table.lifts()
    assert (low <= lift).all()
    assert (lift <= high).all()
    assert {m for _, weights in DIRECTIONS for m in weights} <= set(table.methods)
    assert all(sum(weights.values()) == 0 for _, weights in DIRECTIONS)


def history(m: int = 60) -> History:
    rng = np.random.default_rng(5)
    vectors = np.eye(8)[rng.integers(0, 3, m)] + 0.1 * rng.standard_normal((m, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    ids = rng.integers(1, m, m)
    return History(ids, vectors[ids], END - rng.integers(1, 100 * MS_PER_DAY, m))


def test_the_tables_ward_row_is_pinnersage_itself():
    config = PinnerSageConfig(alpha=1.0, max_pins=25)
    product = user_interests(history(), END, config)
    points = points_of(history(), END, config)
    table = interests_of(points, ward_labels(points.vectors, 1.0), 0.01)
    np.testing.assert_array_equal(table.medoid_pin_ids, product.medoid_pin_ids)
    np.testing.assert_allclose(table.importances, product.importances, rtol=1e-6)
    np.testing.assert_array_equal(table.sizes, product.sizes)


def test_other_clusterings_and_the_average():
    points = points_of(history(), END, PinnerSageConfig())
    assert kmeans_clusters(5)(points.vectors, 1).max() + 1 == 5
    np.testing.assert_array_equal(kmeans_clusters(5)(points.vectors[:3], 1), [0, 1, 2])
    labels = complete_clusters(0.5)(points.vectors, 0)
    for cluster in np.unique(labels):
        inside = points.vectors[labels == cluster]
        assert ((inside[:, None] - inside[None]) ** 2).sum(-1).max() <= 0.5 + 1e-6
    assert complete_clusters(0.5)(points.vectors[:1], 0).tolist() == [0]
    mean = (points.weights(0.01)[:, None] * points.vectors[points.owner]).sum(0)
    np.testing.assert_allclose(decay_average(points, 0.01)[0], mean / np.linalg.norm(mean), rtol=1e-5)
    centroids = interests_of(points, labels, 0.01, centroid=True).vectors
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-5)


def test_one_cluster_and_a_cluster_a_pin_are_the_same_by_every_clustering():
    pins, actions, _ = world(seed=5, users=12)
    days = list(days_to_predict(pins, actions, None, END, CONFIG))
    trees = [Trees(points_of(day.past, day.midnight_ms, PinnerSageConfig())) for day in days]
    sums = at_equal_counts(pins, days, trees, actions.users, (1, 3, 1000), CONFIG)
    value = dict(zip(sums.methods, sums.values().tolist(), strict=True))
    for count in (1, 1000):
        assert len({tuple(value[f"{way} {count}"]) for way in WAYS if way != "Ward, centroids"}) == 1
    assert value["Ward 3"][0] > 0.8 > 0.5 > value["Ward 1"][0], "three topics"
    near = np.array([nearness(pins, day, of, (1, 3)) for day, of in zip(days, trees, strict=True)]).mean(axis=0)
    assert near[0, 2] == 1 and 1 < near[1, 2] < 3, "a day's pins are of one to three topics"
    assert near[1, 1] > near[1, 0] > 0.9, "the mean of noisy pins is nearer than any of them"


def test_rewards_draw_the_clusters_whose_pins_are_engaged_with():
    """Users act on three topics alike, and answer what they are shown of those they act on next."""
    pins, actions, _ = world(seed=6, users=10)
    days = list(days_to_predict(pins, actions, None, END, CONFIG.model_copy(update={"days": 1})))
    interests = [user_interests(day.past, day.midnight_ms, PinnerSageConfig(alpha=1.0)) for day in days]
    users, rows, answered = [], [], []
    for day in days:
        alike = pins.vectors @ pins.vectors[day.held].T
        for row in np.random.default_rng(day.user).choice(len(pins.ids), 400, replace=False):
            users.append(int(actions.users[day.user]))
            rows.append(row)
            answered.append(END - 2 * MS_PER_DAY if alike[row].max() > 0.8 else np.iinfo(np.int64).max)
    times = np.full(len(rows), END - 3 * MS_PER_DAY)
    shown = pinnersage_rewards.Shown(np.array(users), np.array(rows), times, np.array(answered))

    def records(midnight_ms: int) -> list[Record]:
        pairs = zip(days, interests, strict=True)
        return [shown.record(int(actions.users[day.user]), of, pins, midnight_ms) for day, of in pairs]

    told = records(END - MS_PER_DAY)
    assert all(0 < record.engagements.sum() <= record.impressions.sum() for record in told)
    assert all(record.engagements.sum() == 0 for record in records(END - 2 * MS_PER_DAY)), "not yet answered"
    assert all(record.impressions.sum() == 0 for record in records(times[0])), "not yet shown"
    config = CONFIG.model_copy(update={"draws": 8})
    sums = pinnersage_rewards.measure(pins, days, interests, told, actions.users, config, 1)
    relevance = dict(zip(sums.methods, sums.values()[:, 0].tolist(), strict=True))
    assert relevance[pinnersage_rewards.REWARDED] > relevance[pinnersage_rewards.IMPORTANCE] + 0.02
    assert relevance[pinnersage_rewards.BOUND] > relevance[pinnersage_rewards.REWARDED]
