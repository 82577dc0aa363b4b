"""Batches that can be made again, runs that go on where they were cut, and a planted world that is learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.interests.planted import TOPICS, Planted, planted_world
from training.interests import trainer as trainer_module
from training.interests.batches import BatchPlan
from training.interests.evaluation import conditional_scores, implicit_scores, ranks, two_tower_scores
from training.interests.learners import ConditionalLearner, ImplicitLearner, TopicAssociation, TwoTowerLearner
from training.interests.trainer import InterestsTraining, train
from training.models.interests import Construction, InterestNetwork, InterestsConfig, Method, pin_vectors
from training.models.interests.network import seeded
from training.models.two_tower import TwoTowerConfig
from training.models.two_tower import seeded as seeded_towers

BASE = InterestsConfig(dim=16, interests=4, length=30)
TRAINING = InterestsTraining(epochs=6, batch=256, learning_rate=5e-3)


@pytest.fixture(scope="module")
def world() -> Planted:
    return planted_world()


def everything(world: Planted) -> np.ndarray:
    return np.arange(len(world.data.catalogue.ids))


def fitted(
    world: Planted, config: InterestsConfig, training: InterestsTraining = TRAINING, **options
) -> InterestNetwork:
    network = seeded(config, 16, TOPICS, training.seed)
    learner = ImplicitLearner(network, world.data)
    train(learner, world.days(1, 5), everything(world), training, name="test", **options)
    return network


def test_a_batch_is_a_function_of_its_place(world: Planted) -> None:
    plan = BatchPlan(world.days(1, 5), 100, 20, everything(world), False, 3)
    order = plan.order(1)
    rows = np.concatenate(order)
    assert np.array_equal(np.sort(rows), np.arange(len(plan.days)))
    first, again = plan.batch(1, 2, order[2]), plan.batch(1, 2, order[2])
    np.testing.assert_array_equal(first.pool, again.pool)
    assert len(first.days.pins) <= 100 and len(np.unique(first.pool)) == len(first.pool)
    np.testing.assert_array_equal(first.pool[first.positives], first.days.pins)
    assert len(first.pool) > first.own == len(np.unique(first.days.pins))
    assert [len(o) for o in plan.order(2)] != [] and not np.array_equal(plan.order(2)[0], order[0])


def test_a_users_own_engagements_are_no_negatives(world: Planted) -> None:
    plan = BatchPlan(world.days(1, 5), 200, 0, everything(world), True, 3)
    batch = plan.batch(0, 0, plan.order(0)[0])
    days = batch.days
    for n in range(0, len(days.pins), 7):
        user = days.users[batch.owner[n]]
        own = {
            int(p)
            for row in np.flatnonzero(days.users == user)
            for p in days.pins[days.offsets[row] : days.offsets[row + 1]]
        }
        assert set(batch.pool[batch.blocked[n]].tolist()) == own
    keys = set(zip(batch.pool.tolist(), batch.pool_ms.tolist(), strict=True))
    assert len(keys) == len(batch.pool)  # as of two days, an item is two items
    np.testing.assert_array_equal(batch.pool_ms[batch.positives], days.times_ms[batch.owner])


def test_the_stream_is_asked_for_every_item_of_the_pool(world: Planted) -> None:
    plan = BatchPlan(world.days(1, 5), 100, 30, everything(world), False, 3)
    batch = plan.batch(0, 0, plan.order(0)[0])
    frequency = trainer_module.StreamingFrequency(1 << 12)
    log_q = trainer_module.pool_log_q(
        frequency, batch, TRAINING.model_copy(update={"uniform_negatives": 30}), 320
    )
    assert len(log_q) == len(batch.pool) and (log_q <= 0).all() and int(frequency.step) == 1
    own, drawn = log_q[: batch.own].exp().min(), log_q[batch.own :].exp()
    assert float(own) > float(drawn.max()) and float(drawn.min()) >= 30 / 320
    off = trainer_module.pool_log_q(frequency, batch, TRAINING.model_copy(update={"log_q": False}), 320)
    assert not off.any()


def test_a_run_that_was_cut_short_ends_the_same(
    world: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, training = Method.DCM.config(BASE), TRAINING.model_copy(update={"epochs": 2})
    whole = fitted(world, config, training)
    made, step = trainer_module.train_step, [0]

    def cut(*args: object) -> float:
        step[0] += 1
        if step[0] == 8:
            raise KeyboardInterrupt
        return made(*args)

    monkeypatch.setattr(trainer_module, "train_step", cut)
    with pytest.raises(KeyboardInterrupt):
        fitted(world, config, training, checkpoints=tmp_path, checkpoint_steps=2)
    monkeypatch.setattr(trainer_module, "train_step", made)
    resumed = fitted(world, config, training, checkpoints=tmp_path, checkpoint_steps=2)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=0, atol=0)
    with pytest.raises(ValueError, match="another run"):
        fitted(world, config, training.model_copy(update={"seed": 8}), checkpoints=tmp_path)


def test_a_planted_world_is_learned_and_several_embeddings_hold_more_of_it(world: Planted) -> None:
    """120 of 320 pins are of a user's three topics, some seen before: the new ones lie within the first 120."""
    days, after = world.days(5, 6), {}
    for method in (Method.SINGLE, Method.DCM):
        untrained = seeded(method.config(BASE), 16, TOPICS, 7).eval()
        before = ranks(world.data, days, implicit_scores(untrained, world.data)).hit_rate(120)
        network = fitted(world, method.config(BASE))
        after[method] = ranks(world.data, days, implicit_scores(network, world.data)).hit_rate(120)
        assert after[method] > before + 0.1
    assert after[Method.DCM] > 0.95 > after[Method.SINGLE]


def test_a_topic_brings_its_own_pins(world: Planted) -> None:
    config = BASE.model_copy(update={"construction": Construction.TOPICS})
    days = world.days(5, 6)
    asked = {u: np.array(sorted(t)) for u, t in world.topics.items()}
    for association in TopicAssociation:
        network = seeded(config, 16, TOPICS, 7)
        train(
            ConditionalLearner(network, world.data, association),
            world.days(1, 5),
            everything(world),
            TRAINING,
            name="t",
        )
        filtered = ranks(world.data, days, conditional_scores(network, world.data, asked, filtered=True))
        unfiltered = ranks(world.data, days, conditional_scores(network, world.data, asked, filtered=False))
        assert filtered.hit_rate(120) == 1.0  # only pins of the user's topics are left
        assert unfiltered.hit_rate(120) > 0.85
    nobody = ranks(world.data, days, conditional_scores(network, world.data, {}, filtered=False))
    assert nobody.hit_rate(10**9) == 0.0


def test_performance_is_read_as_of_each_midnight(world: Planted) -> None:
    """Pins as of the day of each engagement, in histories and among negatives; scores as of each row's day."""
    tower = BASE.item_tower.model_copy(update={"performance": True})
    config = Method.DCM.config(BASE.model_copy(update={"item_tower": tower}))
    network = seeded(config, 16, TOPICS, 7)
    learner = ImplicitLearner(network, world.data)
    assert learner.by_day
    pins, when = np.array([5, -1, 5, 9]), world.data.days.times_ms[[0, 0, -1, -1]]
    vectors, at = learner._vectors(pins, when)
    features, seen = world.data.catalogue.features, world.data.performance(when)
    for place, (pin, now) in enumerate(zip(pins.tolist(), when.tolist(), strict=True)):
        alone = pin_vectors(network, features.performing(seen[now]))[pin] if pin >= 0 else np.zeros(16)
        np.testing.assert_allclose(vectors[at[place]].detach().numpy(), alone, atol=1e-6)
    with pytest.raises(ValueError, match="was given none"):
        pin_vectors(network, features)

    train(learner, world.days(1, 5), everything(world), TRAINING, name="test")
    days = world.days(4, 6)
    scores = implicit_scores(network, world.data)
    both, single = scores(days).scores, [scores(days.take(np.array([r]))).scores[0] for r in range(len(days))]
    np.testing.assert_allclose(both, np.stack(single), atol=1e-5)
    assert ranks(world.data, world.days(5, 6), scores).hit_rate(120) > 0.95


def test_a_pin_is_no_negative_before_it_was_made(world: Planted) -> None:
    batch = BatchPlan(world.days(1, 5), 100, 300, everything(world), True, 3).batch(0, 0, np.arange(6))
    late = replace(world.data.catalogue, created_at_ms=np.full(len(everything(world)), batch.pool_ms.max()))
    network = seeded(Method.DCM.config(BASE), 16, TOPICS, 7)
    blocked = ImplicitLearner(network, replace(world.data, catalogue=late))._blocked(batch).numpy()
    np.testing.assert_array_equal(ImplicitLearner(network, world.data)._blocked(batch).numpy(), batch.blocked)
    np.testing.assert_array_equal(blocked[:, : batch.own], batch.blocked[:, : batch.own])
    assert len(batch.pool) > batch.own and blocked[:, batch.own :].all()


def test_two_towers_learn_the_world(world: Planted) -> None:
    network = seeded_towers(TwoTowerConfig(dim=16, hidden=32), 16, TOPICS, 7)
    training = TRAINING.model_copy(update={"epochs": 20})
    train(TwoTowerLearner(network, world.data), world.days(1, 5), everything(world), training, name="t")
    found = ranks(world.data, world.days(5, 6), two_tower_scores(network, world.data))
    assert found.hit_rate(120) > 0.8  # 0.36 untrained


def test_no_engagements_say_what_to_bring(world: Planted) -> None:
    learner = ImplicitLearner(seeded(Method.DCM.config(BASE), 16, TOPICS, 7), world.data)
    with pytest.raises(ValueError, match="bring more days"):
        train(learner, world.days(50, 51), everything(world), TRAINING, name="test")
