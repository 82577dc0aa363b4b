"""Training on planted groups: the right answer is found, the same again, and after any interruption."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.pinnerformer.planted import DAY, GROUPS, PINS, START, planted_content, timelines
from training.models.pinnerformer import Negatives, Objective, PinnerFormerConfig
from training.pinnerformer import trainer
from training.pinnerformer.batches import BatchPlan, Sampling
from training.pinnerformer.retriever import Retriever
from training.pinnerformer.timelines import Timelines
from training.pinnerformer.trainer import NothingToPredict, PinnerFormerTraining, Trained, train_network

CONFIG = PinnerFormerConfig(dim=16, hidden=32, layers=1, heads=2, length=32, dropout=0.1)
TRAINING = PinnerFormerTraining(
    epochs=3,
    learning_rate=1e-2,
    sampling=Sampling(users=16, positions=8, in_batch=64, random=64),
    sketch_width=1024,
)
USERS = [40] * 50


def train(training: PinnerFormerTraining = TRAINING, lines: Timelines | None = None, **more: object) -> Trained:
    return train_network(
        CONFIG, timelines(USERS) if lines is None else lines, planted_content(), training, **more
    )


def same(a: Trained, b: Trained) -> bool:
    first, second = a.network.state_dict(), b.network.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def found_in_group(trained: Trained, lines: Timelines) -> float:
    """Share of each user's ten recommended pins that are of the user's group; chance is 1 / GROUPS."""
    ids = np.arange(1, PINS + 1)
    retriever = Retriever(trained.network, planted_content(), ids, np.arange(PINS), lines, START + 1000 * DAY)
    top = retriever.recommend(lines.users, 10)
    known = [
        set(lines.arrays.pin_rows[a:b] + 1) for a, b in zip(lines.offsets, lines.offsets[1:], strict=False)
    ]
    assert all(not set(row) & seen for row, seen in zip(top.tolist(), known, strict=True))
    groups = np.arange(len(lines)) % GROUPS
    return float(((top - 1) % GROUPS == groups[:, None]).mean())


@pytest.mark.parametrize("objective", list(Objective))
def test_every_objective_finds_the_group(objective: Objective) -> None:
    sampling = TRAINING.sampling.model_copy(update={"objective": objective})
    few = 12 if objective in (Objective.DENSE_ALL_ACTION, Objective.SASREC) else 40
    trained = train(TRAINING.model_copy(update={"sampling": sampling, "epochs": few}))
    assert trained.losses[-1] < trained.losses[0]
    unseen = timelines([12] * 20, seed=99)
    assert found_in_group(trained, unseen) > 0.8


@pytest.mark.parametrize("negatives", list(Negatives))
def test_every_pool_of_negatives_learns(negatives: Negatives) -> None:
    sampling = TRAINING.sampling.model_copy(update={"negatives": negatives})
    trained = train(TRAINING.model_copy(update={"sampling": sampling, "epochs": 10}))
    assert found_in_group(trained, timelines([12] * 20, seed=99)) > 0.7


def test_equal_seeds_give_equal_weights() -> None:
    first, again = train(), train()
    assert first.losses == again.losses and same(first, again)
    assert train(TRAINING.model_copy(update={"seed": 8})).losses != first.losses


@pytest.mark.parametrize("cut_after", [1, 3, 4, 6, 10])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    cut_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut within the first epoch, at its end, and later; the sketch and dropout go on as well."""
    whole = train()
    steps = 0
    step = trainer.train_step

    def dies(*arguments: object) -> float:
        nonlocal steps
        if steps == cut_after:
            raise KeyboardInterrupt
        steps += 1
        return step(*arguments)

    monkeypatch.setattr(trainer, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(checkpoints=tmp_path, checkpoint_steps=1)
    monkeypatch.setattr(trainer, "train_step", step)
    resumed = train(checkpoints=tmp_path, checkpoint_steps=1)
    assert resumed.losses == whole.losses and same(resumed, whole)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train(checkpoints=tmp_path)
    with pytest.raises(ValueError, match="another run"):
        train(TRAINING.model_copy(update={"learning_rate": 0.5}), checkpoints=tmp_path)


def test_nothing_to_predict_is_said() -> None:
    for lines in (timelines([0, 1]), timelines([9] * 3, hides=1.0), timelines([9], step=0)):
        with pytest.raises(NothingToPredict, match="bring more actions"):
            train(lines=lines)


def test_users_of_every_size_are_taken() -> None:
    trained = train(lines=timelines([0, 1, 2, 10_000, 3, 20]))
    assert np.isfinite(trained.losses).all()


def test_unknown_pins_are_tokens_without_vectors() -> None:
    lines = timelines(USERS)
    lines.arrays.pin_rows[::3] = -1
    lines.label[::3] = False
    assert np.isfinite(train(lines=lines).losses).all()


def test_content_that_is_not_finite_is_refused() -> None:
    content = planted_content()
    content[5, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        train_network(CONFIG, timelines(USERS), content, TRAINING)


def test_ids_alone_are_enough() -> None:
    """Without content each pin is learned by itself, from far more steps than one with content needs."""
    config = CONFIG.model_copy(update={"id_dim": 16, "dropout": 0.0})
    nothing, lines = np.empty((PINS, 0), np.float32), timelines([40] * 150)
    training = TRAINING.model_copy(update={"epochs": 24, "learning_rate": 3e-3})
    trained = train_network(config, lines, nothing, training)
    unseen = timelines([12] * 20, seed=99)
    ids, everything = np.arange(1, PINS + 1), np.arange(PINS)
    top = Retriever(trained.network, nothing, ids, everything, unseen, START + 1000 * DAY).recommend(
        unseen.users, 10
    )
    assert ((top - 1) % GROUPS == (np.arange(20) % GROUPS)[:, None]).mean() > 1.8 / GROUPS


@pytest.mark.parametrize("objective", list(Objective))
def test_pairs_find_their_tokens(objective: Objective) -> None:
    sampling = TRAINING.sampling.model_copy(update={"objective": objective})
    rows = np.arange(PINS, dtype=np.int32)
    plan = BatchPlan(timelines([40, 3, 17]), planted_content(), rows, sampling, CONFIG.length, CONFIG.days, 7)
    batch = plan.batch(0, 0, plan.order(0)[0])
    places, columns = trainer.by_sequence(batch)
    assert torch.equal(places[batch.owners, columns], batch.positions)
    distinct = {(int(o), int(p)) for o, p in zip(batch.owners, batch.positions, strict=True)}
    most = max(sum(owner == o for owner, _ in distinct) for o in range(len(batch.tokens.lengths)))
    assert places.shape == (len(batch.tokens.lengths), most)


def test_rates_rise_and_fall() -> None:
    rates = [TRAINING.rate(step, 100) for step in range(100)]
    assert rates[9] == pytest.approx(TRAINING.learning_rate) and max(rates) == pytest.approx(rates[9])
    assert rates[0] == pytest.approx(TRAINING.learning_rate / 10)
    assert rates[-1] == pytest.approx(TRAINING.learning_rate / 10, rel=0.05)
    assert all(a > b for a, b in pairwise(rates[10:]))
