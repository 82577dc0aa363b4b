"""Training finds what is planted in the sequences, the same again, and after any interruption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tests.training.transact.planted import ACTIONS, pin_table, world
from training.models.pinnability import FeatureSpec
from training.models.transact import Fusion, Head, Lifelong, SequenceConfig, TransActConfig
from training.transact import trainer
from training.transact.examples import Examples
from training.transact.trainer import NothingToLearn, Trained, TransActTraining, predict, train_network

SPEC = FeatureSpec(user=(), pin=("actions_7d",), interactions=("cos_recent_max",))
HEADS = (Head(action="save"), Head(action="hide"))
SEQUENCE = SequenceConfig(length=6, k=2, action_dim=8, pin_dim=8, actions=3, ffn=16)
CONFIG = TransActConfig(heads=HEADS, spec=SPEC, sequence=SEQUENCE, cross_layers=1, deep=(32,))
TRAINING = TransActTraining(epochs=2, batch_rows=64, learning_rate=5e-3, bfloat16=False)


def examples(rows: int, seed: int = 1) -> Examples:
    block, log = world(rows, seed)
    return Examples.of(block, log, pin_table(), SPEC)


def aucs(trained: Trained) -> list[float]:
    unseen = examples(600, seed=99)
    made = predict(trained.network, unseen)
    return [float(roc_auc_score(unseen.labels[:, c], made[:, h])) for h, c in enumerate((1, 2))]


def same(a: Trained, b: Trained) -> bool:
    first, second = a.network.state_dict(), b.network.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_the_sequence_says_what_is_saved_and_what_is_hidden() -> None:
    more = TRAINING.model_copy(update={"epochs": 10})
    trained = train_network(CONFIG, examples(2000), ACTIONS, more)
    assert trained.losses[-1] < trained.losses[0] and min(aucs(trained)) > 0.9
    blind = CONFIG.model_copy(update={"sequence": SEQUENCE.model_copy(update={"fusion": Fusion.NONE})})
    assert max(aucs(train_network(blind, examples(2000), ACTIONS, more))) < 0.65
    # without action types a save cannot be told from a hide
    untyped = CONFIG.model_copy(update={"sequence": SEQUENCE.model_copy(update={"action_dim": 0})})
    assert min(aucs(train_network(untyped, examples(2000), ACTIONS, more))) < min(aucs(trained)) - 0.05


def test_bfloat16_products_learn_the_same() -> None:
    exact, low = (
        train_network(CONFIG, examples(600), ACTIONS, TRAINING.model_copy(update={"bfloat16": on}))
        for on in (False, True)
    )
    assert not same(exact, low)
    np.testing.assert_allclose(low.losses, exact.losses, rtol=0.05)
    assert all(p.dtype == torch.float32 for p in low.network.parameters())


def test_equal_seeds_give_equal_weights() -> None:
    first, again = (train_network(CONFIG, examples(300), ACTIONS, TRAINING) for _ in range(2))
    assert first.losses == again.losses and same(first, again)
    other = TRAINING.model_copy(update={"seed": 8})
    assert train_network(CONFIG, examples(300), ACTIONS, other).losses != first.losses


@pytest.mark.parametrize(("cut_after", "average"), [(1, 0), (4, 0), (5, 0.5), (7, 0.5)])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    cut_after: int, average: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five steps an epoch: cut within the first, at its end, and later."""
    training = TRAINING.model_copy(update={"average": average})
    whole = train_network(CONFIG, examples(300), ACTIONS, training)
    steps, step = 0, trainer.train_step

    def dies(*arguments: object) -> float:
        nonlocal steps
        if steps == cut_after:
            raise KeyboardInterrupt
        steps += 1
        return step(*arguments)

    monkeypatch.setattr(trainer, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train_network(CONFIG, examples(300), ACTIONS, training, checkpoints=tmp_path, checkpoint_steps=1)
    monkeypatch.setattr(trainer, "train_step", step)
    resumed = train_network(CONFIG, examples(300), ACTIONS, training, checkpoints=tmp_path, checkpoint_steps=1)
    assert resumed.losses == whole.losses and same(resumed, whole)


def test_the_average_of_every_steps_weights_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, step = [], trainer.train_step

    def watched(network: torch.nn.Module, *arguments: object) -> float:
        loss = step(network, *arguments)
        seen.append(network.heads[0][0].weight.detach().clone())
        return loss

    monkeypatch.setattr(trainer, "train_step", watched)
    training = TRAINING.model_copy(update={"average": 0.5})  # over five of ten steps
    made = train_network(CONFIG, examples(300), ACTIONS, training).network.heads[0][0].weight
    shares = torch.tensor([0.8**9, *(0.2 * 0.8 ** (8 - i) for i in range(9))])
    torch.testing.assert_close(made, (torch.stack(seen) * shares[:, None, None]).sum(dim=0))


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train_network(CONFIG, examples(100), ACTIONS, TRAINING, checkpoints=tmp_path)
    with pytest.raises(ValueError, match="another run"):
        train_network(CONFIG, examples(101), ACTIONS, TRAINING, checkpoints=tmp_path)


def test_a_warm_start_goes_on_from_its_weights() -> None:
    first = train_network(CONFIG, examples(600), ACTIONS, TRAINING.model_copy(update={"epochs": 6}))
    once = TRAINING.model_copy(update={"epochs": 1})
    warm = train_network(CONFIG, examples(600, seed=2), ACTIONS, once, start=first.network)
    cold = train_network(CONFIG, examples(600, seed=2), ACTIONS, once)
    assert warm.losses[0] < cold.losses[0]
    assert torch.equal(warm.network.mean, first.network.mean)
    other = CONFIG.model_copy(update={"deep": (16,)})
    with pytest.raises(ValueError, match="another configuration"):
        train_network(other, examples(100), ACTIONS, once, start=first.network)


def test_a_head_without_positives_and_rows_without_actions_are_no_error() -> None:
    heads = (*HEADS, Head(action="click"))
    trained = train_network(CONFIG.model_copy(update={"heads": heads}), examples(300), ACTIONS, TRAINING)
    made = predict(trained.network, examples(300))
    assert np.isfinite(made).all() and made[:, 2].mean() < made[:, :2].mean()


def test_nothing_to_learn_and_unknown_heads_are_said() -> None:
    with pytest.raises(NothingToLearn, match="no row"):
        train_network(CONFIG, examples(0), ACTIONS, TRAINING)
    with pytest.raises(ValueError, match="labels hold: click, save"):
        train_network(CONFIG, examples(10), ("click", "save"), TRAINING)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_v2_trains_with_both_losses(bfloat16: bool) -> None:
    lifelong = Lifelong(
        realtime=2, recent=2, nearest_realtime=0, nearest_lifelong=2, nearest_impressions=1, length=50
    )
    config = TransActConfig.v2(HEADS, (2,), lifelong=lifelong, spec=SPEC, cross_layers=1, deep=(32,))
    config = config.model_copy(update={"sequence": config.sequence.model_copy(update={"actions": 3})})
    longer = TRAINING.model_copy(update={"epochs": 8, "bfloat16": bfloat16})
    trained = train_network(config, examples(1000), ACTIONS, longer)
    assert min(aucs(trained)) > 0.8
