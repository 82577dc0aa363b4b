"""Truth and log agree: interests tile time, affinity explains the answers, and content can find it."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from tests.training.data.worlds import World, tiny_world
from training.data.world_behaviour import answer, examination, match, open_probability, strength
from training.data.world_config import Behaviour
from training.evaluation.metrics import auc
from training.evaluation.planted import interest_share, mean_affinity
from training.evaluation.retrieval import evaluate, hold_out, popularity


@pytest.fixture(scope="module")
def world() -> World:
    return tiny_world()


def test_affinity_by_hand() -> None:
    law = Behaviour(same_root=0.1, style_share=0.4, off_intent=0.5)
    leaf_root = np.array([0, 0, 1])
    interest, styles = np.array([[0, 2, -1]]), np.array([[3, 5, -1]])
    pins = {"leaf": np.array([0]), "second": np.array([2]), "mix": np.array([0.75]), "style": np.array([3])}
    got = match(interest, styles, **pins, leaf_root=leaf_root, law=law)
    # leaf 0: 0.75 of the topic, right style; leaf 2: 0.25 of the topic, wrong style; no third interest
    np.testing.assert_allclose(got, [[0.75, 0.25 * 0.6, 0.0]], rtol=1e-6)
    sibling = match(np.array([[1]]), np.array([[3]]), **pins, leaf_root=leaf_root, law=law)
    np.testing.assert_allclose(sibling, [[0.1]], rtol=1e-6)
    weight = np.array([[0.64, 0.16, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(strength(weight, None, law), [[1.0, 0.5, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(strength(weight, np.array([1]), law), [[0.5, 1.0, 0.0]], rtol=1e-6)


def test_answers_come_at_their_stated_rates() -> None:
    law, n = Behaviour(), 200_000
    ones = np.ones(n)
    got = answer(0.7 * ones, 0.5 * ones, 0 * ones, 3 * ones, law, np.random.default_rng(0))
    opens = open_probability(np.array([0.7]), np.array([0.5]), np.array([0.0]), law)[0]
    expected = examination(np.array([3]), law)[0] * opens
    assert got.closeup.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / n))
    assert (got.click <= got.closeup).all()
    assert (got.long_click <= got.click).all()
    assert (got.save <= got.closeup).all()
    assert not (got.hide & got.closeup).any()
    cold = 0.2 * ones
    for disliked, rate in ((None, law.hide), (ones > 0, law.hide + law.hide_disliked)):
        got = answer(cold, 0.5 * ones, 0 * ones, 3 * ones, law, np.random.default_rng(0), disliked)
        opens = open_probability(np.array([0.2]), np.array([0.5]), np.array([0.0]), law)[0]
        expected = examination(np.array([3]), law)[0] * (1 - opens) * rate * 0.8**2
        assert got.hide.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / n))


def test_users_hide_what_they_dislike(world: World) -> None:
    shown, actions, truth = world.frames["impressions"], world.frames["actions"], world.truth
    hides = actions.loc[actions["action"] == world.contract.vocabulary.code("hide")]
    rows = shown.merge(hides[["request_id", "pin_id", "event_id"]], how="left")
    topic = truth.pins.loc[rows["pin_id"], "topic_id"].to_numpy()
    own = truth.users["disliked"].loc[rows["user_id"]]
    disliked = np.array([t in topics for t, topics in zip(topic, own, strict=True)])
    hidden = rows["event_id"].notna().to_numpy()
    assert 0.01 < disliked.mean() < 0.2
    assert hidden[disliked].mean() > 4 * hidden[~disliked].mean()
    last = (
        truth.interests[truth.interests["end"] == world.config.end_time].groupby("user_id")["topic_id"].agg(set)
    )
    assert all(not set(topics) & last[user] for user, topics in truth.users["disliked"].items())


def test_interests_tile_each_users_time_and_sum_to_one(world: World) -> None:
    rows = world.truth.interests
    assert (rows["start"] < rows["end"]).all()
    spans = rows.drop_duplicates(["user_id", "start", "end"]).sort_values(["user_id", "start"])
    bounds = spans.groupby("user_id").agg(start=("start", "min"), end=("end", "max"), lasts=("start", "count"))
    assert (bounds["start"] == world.config.start_time).all()
    assert (bounds["end"] == world.config.end_time).all()
    follows = spans["user_id"].eq(spans["user_id"].shift())
    assert (spans["start"] == spans["end"].shift())[follows].all()
    assert len(bounds) == world.config.users
    sums = rows.groupby(["user_id", "start"])["weight"].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    assert not rows.duplicated(["user_id", "start", "topic_id"]).any()
    counts = rows.groupby(["user_id", "start"]).size()
    assert counts.between(2, world.config.max_interests).all()


def test_interests_drift(world: World) -> None:
    first = world.truth.interests_at(world.config.start_time)
    last = world.truth.interests_at(world.config.end_time)
    topics = [f.groupby("user_id")["topic_id"].agg(set) for f in (first, last)]
    changed = (topics[0] != topics[1]).mean()
    assert 0.1 < changed < 0.5
    with pytest.raises(ValueError, match="outside the world"):
        world.truth.interests_at(world.config.end_time + timedelta(days=1))


def test_planted_engagement_explains_the_log(world: World) -> None:
    shown = world.frames["impressions"]
    opened = set(zip(*(world.frames["actions"][c] for c in ("request_id", "pin_id")), strict=True))
    late = shown[shown["timestamp"] >= world.config.end_time - timedelta(days=2)]
    label = [pair in opened for pair in zip(late["request_id"], late["pin_id"], strict=True)]
    users, pins, positions = (late[c].to_numpy() for c in ("user_id", "pin_id", "position"))
    truth = world.truth.engagement(users, pins, positions, world.config.end_time)
    assert auc(label, truth) > 0.72
    assert auc(label, world.truth.affinity(users, pins, world.config.end_time)) > 0.65
    assert auc(label, -positions) > 0.54
    assert truth.mean() == pytest.approx(np.mean(label), rel=0.25)


def test_chances_add_up_to_what_was_done(world: World) -> None:
    shown, actions = world.frames["impressions"], world.frames["actions"]
    shown, parts = shown[shown["surface"].isin(["homefeed", "search"])], []
    for day, rows in shown.groupby(shown["timestamp"].dt.floor("D")):
        columns = (rows[c].to_numpy() for c in ("user_id", "pin_id", "request_id"))
        parts.append(pd.DataFrame(world.truth.chances(*columns, day), index=rows.index))
    planted = pd.concat(parts).loc[shown.index]
    planted = planted.mul(examination(shown["position"].to_numpy(), world.config.behaviour), axis=0)
    own = actions[actions["request_id"].isin(shown["request_id"])]
    done = own["action"].value_counts()
    code = world.contract.vocabulary.code
    for name, chance in planted.items():
        deviation = float(np.sqrt((chance * (1 - chance)).sum()))
        assert done[code(name)] == pytest.approx(chance.sum(), abs=4 * deviation), name
    kept = set(zip(*(own.loc[own["action"] == code("save"), c] for c in ("request_id", "pin_id")), strict=True))
    saved = [pair in kept for pair in zip(shown["request_id"], shown["pin_id"], strict=True)]
    users, pins, end = shown["user_id"].to_numpy(), shown["pin_id"].to_numpy(), world.config.end_time
    assert auc(saved, planted["save"]) > auc(saved, world.truth.affinity(users, pins, end)) + 0.03


def test_content_finds_planted_interests_far_better_than_popularity(world: World) -> None:
    cut = world.config.end_time - timedelta(days=3)
    held = hold_out(world.lake, cut, world.config.end_time)
    past = world.frames["actions"].query("timestamp < @cut and action != 5")
    vectors = np.stack(world.frames["pins"]["visual_embedding"].to_list())
    recommended = np.zeros((len(held), 50), dtype=np.int64)
    for row, user in enumerate(held.users):
        own = past.loc[past["user_id"] == user, "pin_id"].drop_duplicates().to_numpy() - 1
        if len(own):
            scores = np.sort(vectors @ vectors[own].T, axis=1)[:, -5:].mean(axis=1)
            scores[own] = -1
            recommended[row] = np.argsort(-scores)[:50] + 1
    baseline = popularity(world.lake, cut, 50)
    found, popular = (evaluate(r, held, ks=(50,)) for r in (recommended, baseline))
    assert found["recall@50"] > 1.5 * popular["recall@50"]
    mine = interest_share(recommended, held.users, world.truth, cut)
    everyones = interest_share(baseline, held.users, world.truth, cut)
    assert mine > 0.6
    assert mine > 3 * everyones
    assert mean_affinity(recommended, held.users, world.truth, cut) > 2 * mean_affinity(
        baseline, held.users, world.truth, cut
    )


def test_pins_say_what_they_are(world: World) -> None:
    pins, truth = world.frames["pins"], world.truth.pins
    first = pins["topics"].map(lambda t: t[0] if len(t) else 0)
    assert (first.to_numpy() == truth["topic_id"].to_numpy()).mean() > 0.9
    assert (first == 0).mean() == pytest.approx(0.05, abs=0.02)
    vectors = np.stack(pins["visual_embedding"].to_list())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -1)
    nearest = truth["topic_id"].to_numpy()[scores.argmax(axis=1)]
    assert 0.7 < (nearest == truth["topic_id"].to_numpy()).mean() < 0.99  # a signal, not an answer
