"""Training on a planted world: pins of one group are saved together and engaged with one after another."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.models.pinsage import Neighbourhoods, PinSageConfig, Pooling, Rung, embed_catalogue, pin_inputs
from training.pinsage import trainer
from training.pinsage.batches import BatchPlan, Snapshot, epoch_batches
from training.pinsage.checkpoint import FILE
from training.pinsage.evaluation import evaluate_pairs
from training.pinsage.ladder import Stage, World, climb, rung_vectors
from training.pinsage.negatives import hard_negatives
from training.pinsage.pairs import Pairs
from training.pinsage.trainer import PinSageTraining, train_network

PINS, GROUPS = 240, 24
CONFIG = PinSageConfig(dim=16, hidden=24, neighbours=8)
TRAINING = PinSageTraining(epochs=3, batch=64, uniform_negatives=60, in_batch_negatives=8, learning_rate=0.01)


def group_pairs(count: int, seed: int) -> Pairs:
    rng = np.random.default_rng(seed)
    queries = rng.integers(0, PINS, count)
    step = rng.integers(1, PINS // GROUPS, count) * GROUPS
    return Pairs(queries.astype(np.int32), ((queries + step) % PINS).astype(np.int32), np.arange(count))


def planted(hard: bool = False) -> tuple[np.ndarray, Neighbourhoods, Pairs]:
    """Pin p is of group p % GROUPS; content says next to nothing of the group, the graph says it whole."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((GROUPS, 10))
    content = (0.5 * centres[np.arange(PINS) % GROUPS] + rng.standard_normal((PINS, 10))).astype(np.float32)
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    members = np.arange(PINS)[:, None] + GROUPS * np.arange(1, PINS // GROUPS)
    neighbourhoods = Neighbourhoods.from_padded((members % PINS)[:, :8].astype(np.int32), np.ones((PINS, 8)))
    return content, neighbourhoods, group_pairs(1500, 1)


def snapshot(hard: bool = False) -> Snapshot:
    content, neighbourhoods, pairs = planted()
    negatives = None
    if hard:
        negatives = hard_negatives(
            lambda rows: (rows[:, None] + np.arange(1, 60)) % PINS, pairs.queries, PINS, low=1, high=20
        )
    return Snapshot(pin_inputs(content, np.full(PINS, 3), CONFIG), neighbourhoods, pairs, negatives)


def same(a: trainer.Trained, b: trainer.Trained) -> bool:
    """Whether two networks have the same weights, bit for bit."""
    first, second = a.network.state_dict(), b.network.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


NO_PAIRS = Pairs(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int64))


def test_the_loss_falls_and_the_graph_is_learned() -> None:
    content, neighbourhoods, _ = planted()
    given = snapshot()
    trained = train_network(CONFIG, [given], TRAINING)
    assert trained.losses[-1] < 0.7 * trained.losses[0]
    vectors = embed_catalogue(trained.network, given.inputs, neighbourhoods)
    held_out = group_pairs(400, 2)
    assert evaluate_pairs(vectors, held_out).hit_rate[10] > 2 * evaluate_pairs(content, held_out).hit_rate[10]


@pytest.mark.parametrize("length_power", [0.0, 0.25, 1.0])
def test_served_rows_have_mean_length_one(length_power: float) -> None:
    given = snapshot()
    config = CONFIG.model_copy(update={"length_power": length_power})
    trained = train_network(config, [given], TRAINING.model_copy(update={"epochs": 1}))
    vectors = embed_catalogue(trained.network, given.inputs, given.neighbourhoods)
    lengths = np.linalg.norm(vectors, axis=1)
    assert lengths.mean() == pytest.approx(1, abs=1e-5)
    assert (lengths.std() > 0.01) == (length_power > 0.1)


def test_equal_seeds_give_equal_weights() -> None:
    first, again = (train_network(CONFIG, [snapshot(hard=True)], TRAINING) for _ in range(2))
    assert first.losses == again.losses
    assert same(first, again)
    other = train_network(CONFIG, [snapshot(hard=True)], TRAINING.model_copy(update={"seed": 8}))
    assert first.losses != other.losses


@pytest.mark.parametrize("cut_after", [1, 7, 24, 30, 50])
def test_an_interrupted_run_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_after: int
) -> None:
    given = [snapshot(hard=True), snapshot()]
    whole = train_network(CONFIG, given, TRAINING)
    real, done = trainer.train_step, 0

    def dies(*arguments):
        nonlocal done
        if done == cut_after:
            raise KeyboardInterrupt
        done += 1
        return real(*arguments)

    monkeypatch.setattr(trainer, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train_network(CONFIG, given, TRAINING, checkpoints=tmp_path, checkpoint_steps=5)
    monkeypatch.setattr(trainer, "train_step", real)
    resumed = train_network(CONFIG, given, TRAINING, checkpoints=tmp_path, checkpoint_steps=5)
    assert resumed.losses == whole.losses
    assert same(resumed, whole)
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train_network(CONFIG, [snapshot()], TRAINING, checkpoints=tmp_path)
    with pytest.raises(ValueError, match="another run"):
        train_network(CONFIG, [snapshot()], TRAINING.model_copy(update={"margin": 0.2}), checkpoints=tmp_path)


def test_schedule_warms_up_over_the_first_epoch_and_then_decays() -> None:
    training = PinSageTraining(learning_rate=1.0, decay_per_epoch=0.5)
    assert [training.rate(0, step, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert training.rate(1, 3, 4) == 0.5 and training.rate(2, 3, 4) == 0.25
    rates = [training.rate(e, s, 4) for e in range(1, 4) for s in range(4)]
    assert rates == sorted(rates, reverse=True)


def test_curriculum_adds_one_hard_negative_an_epoch() -> None:
    assert [PinSageTraining().hard_each(epoch) for epoch in range(8)] == [0, 1, 2, 3, 4, 5, 6, 6]


def test_batches_hold_each_pair_once_an_epoch_and_mask_what_is_right() -> None:
    given = snapshot(hard=True)
    plan = BatchPlan((given, given), 100, 50, 20, 7, 2)
    seen = []
    for batch in epoch_batches(plan, [given.neighbourhoods] * 2, 1, 3):
        pins = torch.from_numpy(batch.block.nodes.astype(np.int64))
        queries, positives, shared = pins[batch.queries], pins[batch.positives], pins[batch.negatives]
        seen += list(zip(queries.tolist(), positives.tolist(), strict=True))
        clash = (shared[None] == queries[:, None]) | (shared[None] == positives[:, None])
        assert torch.equal(batch.allowed, ~clash)
        assert len(shared) == min(20, len(queries)) + 50 and batch.hard.shape == (len(queries), 3)
        torch.testing.assert_close(batch.inputs, torch.from_numpy(given.inputs)[pins])
    pairs = list(zip(given.pairs.queries.tolist(), given.pairs.positives.tolist(), strict=True))
    assert sorted(seen) == sorted(pairs * 2)
    assert plan.order(1)[0][1].tolist() != plan.order(2)[0][1].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": NO_PAIRS}, "no training pairs"),
        ({"inputs": np.full((PINS, 11), np.nan, np.float32)}, "not finite"),
        ({"neighbourhoods": Neighbourhoods.none(3)}, "one a pin"),
        ({"inputs": np.zeros((PINS, 1), np.float32)}, "width 1"),
    ],
)
def test_bad_data_is_refused_before_training(change: dict, message: str) -> None:
    given = snapshot()
    bad = replace(given, **change)
    with pytest.raises(ValueError, match=message):
        train_network(CONFIG, [bad], TRAINING)


def test_the_ladder_finds_that_the_graph_helps() -> None:
    content, neighbourhoods, pairs = planted()
    degrees = np.full(PINS, 3)
    stage = Stage(degrees, neighbourhoods, pairs, snapshot(hard=True).hard)
    world = World(content, (stage,), Stage(degrees, neighbourhoods, group_pairs(400, 2)))
    kept = {}
    ladder = climb(
        world,
        CONFIG,
        TRAINING,
        rungs=(Rung.CONTENT, Rung.MAX, Rung.PINSAGE),
        seeds=(1, 2),
        keep=lambda rung, seed, vectors: kept.update({(rung, seed): vectors}),
    )
    assert len(kept) == 6 and kept[Rung.PINSAGE, 1].shape == (PINS, CONFIG.dim)
    assert [row.name for row in ladder.rows] == ["popularity", "content vectors", "content", "max", "pinsage"]
    margin, spread = ladder.margin("hit_rate_at_10")
    assert margin > spread > 0
    assert ladder.markdown().count("\n") == 6
    assert ladder.named()["rung.pinsage.hit_rate_at_10"] == ladder.row("pinsage").mean("hit_rate_at_10")


def test_graphsage_reads_neighbours_of_its_own() -> None:
    content, neighbourhoods, pairs = planted()
    stage = Stage(np.full(PINS, 3), neighbourhoods, pairs)
    with pytest.raises(ValueError, match="no uniform neighbours"):
        stage.snapshot(content, Rung.GRAPHSAGE, Rung.GRAPHSAGE.network(CONFIG))
    drawn = neighbourhoods.top(3).even()
    stage = replace(stage, uniform=drawn)
    assert stage.snapshot(content, Rung.GRAPHSAGE, Rung.GRAPHSAGE.network(CONFIG)).neighbourhoods is drawn
    assert stage.snapshot(content, Rung.MEAN, Rung.MEAN.network(CONFIG)).neighbourhoods is neighbourhoods
    trained, vectors = rung_vectors(World(content, (stage,), stage), Rung.GRAPHSAGE, CONFIG, TRAINING)
    assert trained.network.config.pooling is Pooling.MEAN
    expected = embed_catalogue(trained.network, pin_inputs(content, np.full(PINS, 3), CONFIG), drawn)
    np.testing.assert_array_equal(vectors, expected)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(None)])
def test_content_that_is_not_finite_trains_as_none(rows: slice) -> None:
    content, neighbourhoods, pairs = planted()
    content[rows] = np.nan
    given = Snapshot(pin_inputs(content, np.full(PINS, 3), CONFIG), neighbourhoods, pairs)
    trained = train_network(CONFIG, [given], TRAINING)
    assert np.isfinite(trained.losses).all()
    assert np.isfinite(embed_catalogue(trained.network, given.inputs, neighbourhoods)).all()
