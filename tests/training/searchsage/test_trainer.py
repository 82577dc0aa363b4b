"""SearchSage learns a planted world, resumes to the same weights, and its loss is the formula's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="the text extra is not installed")

from tests.training.searchsage.planted import NETWORK, PINS_EACH, TOPICS, TRAINING, Planted, planted
from training.models.searchsage import Pooling, QueryEncoder
from training.models.searchsage.network import start
from training.searchsage.batches import Batch, BatchPlan
from training.searchsage.evaluation import nearest_pins
from training.searchsage.pairs import TooFewQueries
from training.searchsage.trainer import SearchSageTraining, Trained, train


@pytest.fixture(scope="module")
def world() -> Planted:
    return planted()


def fit(
    world: Planted, training: SearchSageTraining = TRAINING, pooling: Pooling = Pooling.MEAN, **how: object
) -> tuple[QueryEncoder, Trained]:
    config = NETWORK.model_copy(update={"pooling": pooling})
    tower, tokens, origin = start(config, world.pins.vectors.shape[1], TOPICS * 5, training.seed)
    trained = train(tower, tokens, world.train, world.pins, training, **how)  # type: ignore[arg-type]
    return QueryEncoder(tower, tokens, "planted@1", longest=32, origin=origin), trained


def right(world: Planted, encoder: QueryEncoder) -> float:
    """Share of the ten pins nearest to the held-out queries that are of their topic."""
    found = nearest_pins(encoder.encode(world.held.queries), world.pins, 10)
    return float((world.topic[found - 1] == np.arange(len(TOPICS))[:, None]).mean())


@pytest.mark.parametrize("negatives", [0, 50])
def test_new_queries_find_their_topic(world: Planted, negatives: int) -> None:
    update = {"random_negatives": negatives, "log_q": negatives > 0}
    encoder, trained = fit(world, TRAINING.model_copy(update=update))
    assert right(world, encoder) > 0.9  # chance is a fifth
    assert trained.losses[-1] < trained.losses[0]


@pytest.mark.parametrize("pooling", list(Pooling))
def test_the_readout_alone_already_knows_the_words(world: Planted, pooling: Pooling) -> None:
    encoder, trained = fit(world, TRAINING.model_copy(update={"epochs": 0}), pooling)
    assert trained.losses == ()
    assert right(world, encoder) > 0.6


def test_equal_seeds_give_equal_weights_interrupted_or_not(
    world: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, said = fit(world, TRAINING.model_copy(update={"epochs": 2}))
    made = BatchPlan.batch

    def cut_short(plan: BatchPlan, epoch: int, step: int, pairs: np.ndarray) -> Batch:
        if (epoch, step) == (1, 1):
            raise KeyboardInterrupt
        return made(plan, epoch, step, pairs)

    short = TRAINING.model_copy(update={"epochs": 2})
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(BatchPlan, "batch", cut_short)
        fit(world, short, checkpoints=tmp_path, checkpoint_steps=1)
    resumed, trained = fit(world, short, checkpoints=tmp_path)
    assert trained.losses == said.losses and len(trained.losses) == 2
    assert np.array_equal(whole.encode(["bread"]), resumed.encode(["bread"]))
    with pytest.raises(ValueError, match="another run"):
        fit(world, short, checkpoints=tmp_path, identity="other data")


def test_pins_without_a_vector_teach_nothing(world: Planted) -> None:
    nothing = world.train.where(np.zeros(len(world.train), bool))
    tower, tokens, _ = start(NETWORK, 16, TOPICS, 1)
    with pytest.raises(TooFewQueries, match="has a vector"):
        train(tower, tokens, nothing, world.pins, TRAINING)


def test_the_temperature_is_learned_where_asked(world: Planted) -> None:
    learned = TRAINING.model_copy(update={"learn_temperature": True, "temperature": 0.5})
    encoder, trained = fit(world, learned)
    fixed, stuck = fit(world, learned.model_copy(update={"learn_temperature": False}))
    assert trained.losses[-1] < stuck.losses[-1]  # it sharpened
    assert not np.array_equal(encoder.encode(["bread"]), fixed.encode(["bread"]))


def plan(**how: object) -> BatchPlan:
    query = np.array([0, 0, 1, 1, 1, 2])
    rows = np.array([4, 5, 4, 6, 6, 7])
    settings = {"size": 3, "random": 0, "candidates": np.arange(10), "seed": 1} | how
    return BatchPlan(query, rows, **settings)  # type: ignore[arg-type]


def test_batches_hold_every_pair_once_and_a_query_together() -> None:
    query = np.repeat([0, 1, 2, 3], [2, 2, 2, 40])
    made = BatchPlan(query, np.arange(len(query)), 16, 0, np.arange(50), 1)
    order = made.order(0)
    assert sorted(np.concatenate(order).tolist()) == list(range(len(query)))
    assert all(len(pairs) <= 16 for pairs in order)
    assert all(sum(small in query[pairs] for pairs in order) == 1 for small in (0, 1, 2))
    assert [p.tolist() for p in made.order(0)] == [p.tolist() for p in order]
    assert [p.tolist() for p in made.order(1)] != [p.tolist() for p in order]


def test_no_query_fills_a_batch_while_there_are_others() -> None:
    query = np.concatenate([np.zeros(100, np.int64), np.arange(1, 101)])
    made = BatchPlan(query, np.arange(200), 16, 0, np.arange(200), 1)
    shares = [np.mean(query[pairs] == 0) for pairs in made.order(0)]
    assert max(shares) < 1 and np.mean(shares) == pytest.approx(0.5, abs=0.1)


def test_other_answers_of_a_query_are_no_negatives() -> None:
    made = plan(size=6)
    batch = made.batch(0, 0, np.arange(6))
    assert batch.pool.tolist() == [4, 5, 6, 7]
    scores = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    expected = []
    for query, row in zip(made.query.tolist(), made.rows.tolist(), strict=True):
        answers = set(made.rows[made.query == query].tolist())
        against = [i for i, pin in enumerate(batch.pool.tolist()) if pin == row or pin not in answers]
        at = batch.pool.tolist().index(row)
        expected.append(float(torch.logsumexp(scores[query, against], 0) - scores[query, at]))
    assert batch.softmax(scores).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_random_pins_are_drawn_beside_the_batch_own_and_never_twice() -> None:
    batch = plan(random=5).batch(0, 0, np.array([0, 1]))
    assert batch.pool[:2].tolist() == [4, 5]
    assert len(np.unique(batch.pool)) == len(batch.pool) <= 7
    assert np.array_equal(batch.pool, plan(random=5).batch(0, 0, np.array([0, 1])).pool)
    assert len(plan(random=50).batch(0, 0, np.array([0])).pool) == 10


def test_log_q_is_the_chance_to_be_in_the_pool() -> None:
    rng = np.random.default_rng(0)
    rows = rng.choice(20, 400, p=np.arange(1, 21) / 210)
    made = BatchPlan(np.arange(400), rows, 16, 4, np.arange(20), 0)
    batches = [made.batch(e, s, p).pool for e in range(60) for s, p in enumerate(made.order(e))]
    seen = np.bincount(np.concatenate(batches), minlength=20) / len(batches)
    assert np.exp(made.log_q(20)) == pytest.approx(seen, abs=0.06)


def test_a_popular_pin_is_capped(world: Planted) -> None:
    pairs = world.train
    capped = pairs.capped(3, seed=1)
    counts = np.bincount(capped.pins, minlength=len(world.pins.ids) + 1)
    before = np.bincount(pairs.pins, minlength=len(counts))
    assert np.array_equal(counts, np.minimum(before, 3))
    assert PINS_EACH * len(TOPICS) + 1 == len(counts)
    assert np.array_equal(capped.pins, pairs.capped(3, seed=1).pins)
    assert not np.array_equal(capped.times_ms, pairs.capped(3, seed=2).times_ms)
    assert [capped.queries[q] for q in capped.query] == [
        pairs.queries[q] for q in pairs.query[np.isin(pairs.times_ms, capped.times_ms)]
    ]
