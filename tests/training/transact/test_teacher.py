"""Heads learn what trees say of a row beside the answer it got."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.transact.planted import ACTIONS, pin_table, world
from training.models.pinnability import FeatureSpec
from training.models.transact import Head, SequenceConfig, TransActConfig
from training.transact.examples import Examples, Known
from training.transact.fitting import TransActRecipe, fit_transact
from training.transact.teacher import Teacher, taught
from training.transact.trainer import TransActTraining, predict, run_digest, train_network

SPEC = FeatureSpec(user=(), pin=("actions_7d",), interactions=("cos_recent_max",))
SEQUENCE = SequenceConfig(length=6, k=2, action_dim=8, pin_dim=8, actions=3, ffn=16)
HEADS = (Head(action="save"), Head(action="hide"))
CONFIG = TransActConfig(heads=HEADS, spec=SPEC, sequence=SEQUENCE, cross_layers=1, deep=(32,))
TRAINING = TransActTraining(epochs=4, batch_rows=64, learning_rate=1e-2, bfloat16=False)
COSINE = SPEC.names.index("cos_recent_max")


def examples(rows: int = 2000) -> Examples:
    """Saved with a chance of 0.6 where the cosine is above 0, else of 0.1; hidden as often whatever it is."""
    block, log = world(rows)
    made, rng = Examples.of(block, log, pin_table(), SPEC), np.random.default_rng(0)
    labels = np.zeros_like(made.labels)
    labels[:, 1] = rng.random(rows) < np.where(made.features[:, COSINE] > 0, 0.6, 0.1)
    labels[:, 2] = rng.random(rows) < 0.2
    return replace(made, labels=labels)


def test_a_target_is_the_label_and_what_trees_answer_in_their_shares() -> None:
    rows = examples()
    trees = taught(Teacher(share=1.0), CONFIG, rows, ACTIONS, seed=0)
    above = rows.features[:, COSINE] > 0
    assert trees.shape == (2000, 2) and trees.dtype == np.float32
    assert abs(trees[above, 0].mean() - 0.6) < 0.05 and abs(trees[~above, 0].mean() - 0.1) < 0.05
    assert trees[:, 1].std() < 0.05
    half = taught(Teacher(share=0.25), CONFIG, rows, ACTIONS, seed=0)
    np.testing.assert_allclose(half, 0.75 * rows.labels[:, 1:] + 0.25 * trees, atol=1e-6)


@pytest.mark.parametrize("part", [slice(0, 1800), slice(1800, 2000)])
def test_a_head_without_both_outcomes_among_older_and_newest_rows_keeps_its_labels(part: slice) -> None:
    rows = examples()
    rows.labels[part, 2] = 0
    targets = taught(Teacher(), CONFIG, rows, ACTIONS, seed=0)
    np.testing.assert_array_equal(targets[:, 1], rows.labels[:, 2])
    assert not np.isin(targets[:, 0], (0, 1)).any()


def test_a_network_answers_what_it_was_taught_and_not_the_labels() -> None:
    rows = examples(300)
    targets = np.column_stack([np.full(300, 0.9), np.full(300, 0.3)]).astype(np.float32)
    told = replace(rows, targets=targets)
    made = predict(train_network(CONFIG, told, ACTIONS, TRAINING).network, rows)
    np.testing.assert_allclose(made.mean(axis=0), [0.9, 0.3], atol=0.05)
    np.testing.assert_array_equal(told.take(np.array([5, 3])).targets, targets[[5, 3]])


def test_a_recipe_with_a_teacher_learns_from_other_targets_than_one_without() -> None:
    block, log = world(400)
    found = []
    for teacher in (Teacher(), None):
        recipe = TransActRecipe(
            sequence=SEQUENCE, deep=(16,), training=TRAINING, teacher=teacher, min_positives=20, max_epochs=1
        )
        fitted = fit_transact(block, Known(log, pin_table()), ACTIONS, SPEC, recipe, seed=0)
        found.append(predict(fitted.ranker.network, Examples.of(block, log, pin_table(), SPEC)))
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_a_checkpoint_knows_its_targets() -> None:
    rows = examples(100)
    network = train_network(CONFIG, rows, ACTIONS, TRAINING.model_copy(update={"epochs": 1})).network
    told = replace(rows, targets=np.full((100, 2), 0.5, np.float32))
    assert run_digest(network, rows, ACTIONS, TRAINING) != run_digest(network, told, ACTIONS, TRAINING)
