"""Heads learn what trees say of a row beside the answer it got."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.training.transact.planted import ACTIONS, pin_table, world
from training.models.pinnability import FeatureSpec
from training.models.ranker import ENGAGE
from training.models.transact import Head, SequenceConfig, TransAct, TransActConfig
from training.transact.examples import Examples, Known
from training.transact.fitting import Fitted, TransActRecipe, fit_transact
from training.transact.teacher import Teacher, taught
from training.transact.trainer import TransActTraining, predict, run_digest, train_network

SPEC = FeatureSpec(user=(), pin=("actions_7d",), interactions=("cos_recent_max",))
SEQUENCE = SequenceConfig(length=6, k=2, action_dim=8, pin_dim=8, actions=3, ffn=16)
HEADS = (Head(action="save"), Head(action="hide"))
CONFIG = TransActConfig(heads=HEADS, spec=SPEC, sequence=SEQUENCE, cross_layers=1, deep=(32,))
TRAINING = TransActTraining(epochs=4, batch_rows=64, learning_rate=1e-2, bfloat16=False)
TEACHER = Teacher(min_positives=10)
COSINE = SPEC.names.index("cos_recent_max")


def examples(rows: int = 2000) -> Examples:
    """Saved with a chance of 0.6 where the cosine is above 0, else of 0.1; hidden as often whatever it is."""
    block, log = world(rows)
    made, rng = Examples.of(block, log, pin_table(), SPEC), np.random.default_rng(0)
    labels = np.zeros_like(made.labels)
    labels[:, 1] = rng.random(rows) < np.where(made.features[:, COSINE] > 0, 0.6, 0.1)
    labels[:, 2] = rng.random(rows) < 0.2
    return replace(made, labels=labels)


def fitted(teacher: Teacher | None, start: TransAct | None = None) -> Fitted:
    block, log = world(400)
    recipe = TransActRecipe(
        sequence=SEQUENCE, deep=(16,), training=TRAINING, teacher=teacher, min_positives=20, max_epochs=1
    )
    return fit_transact(block, Known(log, pin_table()), ACTIONS, SPEC, recipe, seed=0, start=start)


def answers(made: Fitted) -> np.ndarray:
    block, log = world(400)
    return predict(made.ranker.network, Examples.of(block, log, pin_table(), SPEC))


def test_a_target_is_the_label_and_what_trees_answer_in_their_shares() -> None:
    rows = examples()
    trees, untaught = taught(TEACHER.model_copy(update={"share": 1.0}), CONFIG, rows, ACTIONS, seed=0)
    assert not untaught
    above = rows.features[:, COSINE] > 0
    assert trees.shape == (2000, 2) and trees.dtype == np.float32
    assert abs(trees[above, 0].mean() - 0.6) < 0.05 and abs(trees[~above, 0].mean() - 0.1) < 0.05
    assert trees[:, 1].std() < 0.05
    half, _ = taught(TEACHER.model_copy(update={"share": 0.25}), CONFIG, rows, ACTIONS, seed=0)
    np.testing.assert_allclose(half, 0.75 * rows.labels[:, 1:] + 0.25 * trees, atol=1e-6)


@pytest.mark.parametrize(
    ("part", "few"),
    [(slice(0, 1800), r"\d older and \d\d newest"), (slice(1800, 2000), r"\d\d\d older and \d newest")],
)
def test_a_head_with_few_older_or_newest_positives_keeps_its_labels_and_is_named(part: slice, few: str) -> None:
    rows = examples()
    rows.labels[part, 2][np.cumsum(rows.labels[part, 2]) > 9] = 0
    targets, untaught = taught(TEACHER, CONFIG, rows, ACTIONS, seed=0)
    np.testing.assert_array_equal(targets[:, 1], rows.labels[:, 2])
    assert not np.isin(targets[:, 0], (0, 1)).any()
    assert list(untaught) == ["hide"]
    assert re.match(few + " rows of the rarer outcome, 10 of each are needed", untaught["hide"])


@pytest.mark.parametrize("other", [0.0, 1.0])
def test_rows_without_weight_are_no_positives_and_no_negatives(other: float) -> None:
    hide = Head(action="hide", weights={"hide": other}, other=0, base=0)
    config = CONFIG.model_copy(update={"heads": (HEADS[0], hide)})
    targets, untaught = taught(TEACHER, config, rows := examples(), ACTIONS, seed=0)
    np.testing.assert_array_equal(targets[:, 1], rows.labels[:, 2])
    assert untaught == {"hide": "0 older and 0 newest rows of the rarer outcome, 10 of each are needed"}


def test_a_network_answers_what_it_was_taught_and_not_the_labels() -> None:
    rows = examples(300)
    targets = np.column_stack([np.full(300, 0.9), np.full(300, 0.3)]).astype(np.float32)
    told = replace(rows, targets=targets)
    made = predict(train_network(CONFIG, told, ACTIONS, TRAINING).network, rows)
    np.testing.assert_allclose(made.mean(axis=0), [0.9, 0.3], atol=0.05)
    np.testing.assert_array_equal(told.take(np.array([5, 3])).targets, targets[[5, 3]])


def test_a_recipe_with_a_teacher_learns_from_other_targets_than_one_without() -> None:
    taught_by, plain = fitted(TEACHER), fitted(None)
    assert np.abs(answers(taught_by) - answers(plain)).max() > 0.01
    assert not taught_by.untaught and not plain.untaught
    assert set(fitted(Teacher()).untaught) == {"save", "hide", ENGAGE}


def test_weights_that_are_gone_on_from_are_not_taught() -> None:
    start = fitted(TEACHER).ranker.network
    np.testing.assert_array_equal(answers(fitted(TEACHER, start)), answers(fitted(None, start)))


def test_a_checkpoint_knows_its_targets() -> None:
    rows = examples(100)
    network = train_network(CONFIG, rows, ACTIONS, TRAINING.model_copy(update={"epochs": 1})).network
    told = replace(rows, targets=np.full((100, 2), 0.5, np.float32))
    assert run_digest(network, rows, ACTIONS, TRAINING) != run_digest(network, told, ACTIONS, TRAINING)
