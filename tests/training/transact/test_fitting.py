"""From rows to a ranker: heads that can be taught, rows that are kept, rates that calibration undoes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.transact.planted import ACTIONS, pin_table, world
from training.evaluation.metrics import auc, calibration_error
from training.evaluation.served_scores import served_scores
from training.models.calibration import CalibrationConfig, fit
from training.models.pinnability import FeatureSpec
from training.models.ranker import ENGAGE, NotARanker, Ranker, load_calibrator, load_ranker
from training.models.transact import Lifelong, NextAction, SequenceConfig
from training.models.transact.ranker import TransActRanker
from training.transact.examples import Examples, Known, UserVectors
from training.transact.fitting import (
    LabelWeights,
    TransActRecipe,
    fit_transact,
    heads_of,
    in_space,
    misfit,
    plan_reads,
    thinned,
    with_engage,
)
from training.transact.teacher import Teacher
from training.transact.trainer import NothingToLearn, TransActTraining

SPEC = FeatureSpec(user=(), pin=("actions_7d",), interactions=("cos_recent_max",), space="content@1")
RECIPE = TransActRecipe(
    sequence=SequenceConfig(length=6, k=2, action_dim=8, pin_dim=8, actions=3, ffn=16, mask_hours=0),
    cross_layers=1,
    deep=(32,),
    training=TransActTraining(batch_rows=64, learning_rate=5e-3, bfloat16=False),
    teacher=Teacher(min_positives=10),
    min_positives=20,
)


def known(rows: int, seed: int = 1) -> Known:
    return Known(world(rows, seed)[1], pin_table())


def test_an_action_without_positives_has_no_head_and_is_named() -> None:
    labels = world(400)[0].labels
    heads, left_out = heads_of(labels, ACTIONS, RECIPE)
    assert [head.action for head in heads] == ["save", "hide", ENGAGE]
    assert left_out == {"click": "0 positives, 20 are needed"}
    with pytest.raises(NothingToLearn, match=r"no action has enough positives: click: 0 .*; hide: \d+ "):
        heads_of(labels, ACTIONS, RECIPE.model_copy(update={"min_positives": 1000}))
    weighed = RECIPE.model_copy(
        update={"label_weights": {"hide": LabelWeights(weights={"save": 5.0}, base=0.5)}}
    )
    hide = heads_of(labels, ACTIONS, weighed)[0][1]
    assert hide.weights == {"save": 5.0, ENGAGE: 0.0} and hide.base == 0.5
    with pytest.raises(ValueError, match="label weights name share"):
        heads_of(labels, ACTIONS, RECIPE.model_copy(update={"label_weights": {"share": LabelWeights()}}))


def test_rows_without_an_action_are_thinned_to_the_budget_and_no_others() -> None:
    labels = np.zeros((10_000, 3), np.int8)
    labels[::20, 1] = 1
    epochs, rate = plan_reads(labels, RECIPE.model_copy(update={"max_reads": 5_000}))
    kept = thinned(labels, rate, seed=0)
    assert epochs == 2 and abs(len(kept) - 2_500) < 100
    assert np.isin(np.arange(0, 10_000, 20), kept).all()
    np.testing.assert_array_equal(thinned(labels, rate, seed=0), kept)
    assert plan_reads(labels, RECIPE.model_copy(update={"max_reads": 35_000})) == (2, 1.0)
    once = RECIPE.model_copy(update={"max_reads": 2_000})
    assert plan_reads(labels, once) == (1, 0.1579), "a second read would leave too few of the others"
    assert plan_reads(labels, RECIPE.model_copy(update={"max_reads": 10})) == (1, 0.1)


def test_a_row_counts_once_however_many_actions_answered_it() -> None:
    block, log = world(40)
    both = replace(block, labels=np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]] + [[0, 0, 0]] * 37, np.int8))
    made = with_engage(Examples.of(both, log, pin_table(), SPEC), both.label)
    np.testing.assert_allclose(made.weights[:3], [0.5, 1, 1])
    assert made.labels.shape == (40, 4) and (made.labels[:, 3] == (both.label > 0)).all()


def test_the_ranker_finds_what_is_planted() -> None:
    rows = 2400
    block = world(rows)[0]
    recipe = RECIPE.model_copy(update={"max_reads": 14_000, "max_epochs": 6})
    made = fit_transact(block, known(rows), ACTIONS, SPEC, recipe, seed=0)
    unseen, beside = world(1500, 99)[0], known(1500, 99)
    assert isinstance(made.ranker, Ranker) and made.ranker.heads == ("save", "hide", ENGAGE)
    raw = served_scores(made.ranker, unseen, beside)
    for column, label in ((0, unseen.labels[:, 1]), (1, unseen.labels[:, 2]), (2, unseen.label)):
        assert auc(label, raw[:, column]) > 0.85


def test_the_calibrator_undoes_the_thinning_and_stands_beside_the_ranker(tmp_path: Path) -> None:
    rows, rng = 3000, np.random.default_rng(5)
    saved = (rng.random((rows, 3)) < [0.0, 0.1, 0.05]).astype(np.int8)  # by chance, whatever the pin
    block = replace(world(rows)[0], labels=saved, label=saved[:, 1])
    beside = known(rows)
    recipe = RECIPE.model_copy(update={"max_reads": 1000})
    few = fit_transact(block, beside, ACTIONS, SPEC, recipe, seed=0)
    assert few.negative_rate < 0.3
    heads, raw = few.ranker.heads, served_scores(few.ranker, block, beside)
    labels = np.column_stack([saved[:, 1], saved[:, 2], saved[:, 1]])
    calibrator = fit(
        raw,
        labels,
        heads,
        ranker="transact@1",
        negative_rate=few.negative_rate,
        config=CalibrationConfig(method="sampling"),
    )
    assert calibration_error(saved[:, 1], raw[:, 0]) > 1
    assert abs(calibration_error(saved[:, 1], calibrator.calibrate(raw)[:, 0])) < 0.3

    few.ranker.save(tmp_path)
    with pytest.raises(NotARanker, match="no calibrator beside its files"):
        load_calibrator(tmp_path, "transact@1", few.ranker.heads)
    calibrator.save(tmp_path)
    loaded = load_ranker(tmp_path)
    np.testing.assert_array_equal(served_scores(loaded, block, beside), raw)
    assert load_calibrator(tmp_path, "transact@1", loaded.heads) == calibrator
    with pytest.raises(ValueError, match="for transact@1, not transact@2"):
        load_calibrator(tmp_path, "transact@2", loaded.heads)


def test_a_warm_start_goes_on_from_the_weights_where_they_fit() -> None:
    rows = 600
    block, beside = world(rows)[0], known(rows)
    recipe = RECIPE.model_copy(update={"max_reads": 2 * rows})
    first = fit_transact(block, beside, ACTIONS, SPEC, recipe, seed=0)
    later = SPEC.model_copy(update={"space": "content@2"})
    network = in_space(first.ranker.network, "content@2")
    assert misfit(network, later, recipe, beside) is None
    warm = fit_transact(block, beside, ACTIONS, later, recipe, seed=1, start=network)
    cold = fit_transact(block, beside, ACTIONS, later, recipe, seed=1)
    assert warm.loss < cold.loss and warm.ranker.spec.space == "content@2"
    assert "sequence" in (misfit(network, later, TransActRecipe(), beside) or "")
    wider = replace(beside, users=UserVectors(np.array([1]), np.array([0]), np.ones((1, 4), np.float32)))
    assert misfit(network, later, recipe, wider) == "it differs in user_dim"
    more = recipe.model_copy(update={"wide": True, "pieces": 3})
    without = more.model_copy(update={"pieces": 0})
    plain = fit_transact(block, beside, ACTIONS, SPEC, without, seed=0).ranker.network
    assert misfit(plain, SPEC, more, beside) is None
    on = fit_transact(block, beside, ACTIONS, SPEC, more, seed=0, start=plain).ranker.network
    assert on.config.pieces == 0, "it goes on as it is"


def test_a_recipe_may_ask_for_the_next_action_too(tmp_path: Path) -> None:
    block, beside = world(400)[0], known(400)
    causal = RECIPE.model_copy(update={"sequence": RECIPE.sequence.model_copy(update={"causal": True})})
    asked = causal.model_copy(update={"next_action": NextAction(positives=(2,), recent=4, negatives=4)})
    fitted = fit_transact(block, beside, ACTIONS, SPEC, asked, seed=0)
    fitted.ranker.save(tmp_path)
    made = load_ranker(tmp_path)
    assert isinstance(made, TransActRanker) and made.network.config.next_action == asked.next_action
    assert made.network.next_action is not None
    assert misfit(made.network, SPEC, asked, beside) is None
    assert misfit(made.network, SPEC, causal, beside) == "it differs in next_action"


def test_vectors_of_users_are_those_of_the_night_before() -> None:
    vectors = UserVectors(
        np.array([2, 2, 5]), np.array([100, 200, 150]), np.array([[1, 0], [2, 0], [0, 3]], np.float32)
    )
    users, times = np.array([2, 2, 2, 2, 5, 5, 1, 9]), np.array([99, 100, 199, 200, 149, 1000, 500, 500])
    assert vectors.of(users, times).tolist() == [
        [0, 0],
        [1, 0],
        [1, 0],
        [2, 0],
        [0, 0],
        [0, 3],
        [0, 0],
        [0, 0],
    ]


def test_a_ranker_of_sequences_is_not_scored_without_what_it_reads() -> None:
    block = world(60)[0]
    fitted = fit_transact(
        block, known(60), ACTIONS, SPEC, RECIPE.model_copy(update={"min_positives": 1}), seed=0
    )
    with pytest.raises(ValueError, match="give what is known"):
        served_scores(fitted.ranker, block)
    elsewhere = TransActRanker(fitted.ranker.network, "pinnerformer@4")
    with pytest.raises(ValueError, match="pinnerformer@4, the rows have None"):
        served_scores(elsewhere, block, known(60))


def test_v2_is_learned_and_gone_on_from_where_its_selection_is_the_same() -> None:
    recipe = TransActRecipe.v2((2,))
    sequence = recipe.sequence.model_copy(update={"pin_dim": 8, "actions": 3, "ffn": 16})
    recipe = recipe.model_copy(
        update={
            "sequence": sequence,
            "teacher": None,
            "training": recipe.training.model_copy(update={"learning_rate": 2e-3}),
            "min_positives": 20,
            "max_reads": 800,
            "deep": (16,),
            "cross_layers": 1,
        }
    )
    block, log = world(400)
    fitted = fit_transact(block, Known(log, pin_table()), ACTIONS, SPEC, recipe, seed=1)
    network = fitted.ranker.network
    assert fitted.ranker.reads_history and network.config.lifelong == recipe.lifelong
    assert misfit(network, SPEC, recipe, Known(log, pin_table())) is None
    on = fit_transact(block, Known(log, pin_table()), ACTIONS, SPEC, recipe, seed=2, start=network)
    assert on.ranker.network.config == network.config and on.loss < fitted.loss
    plain = recipe.model_copy(update={"lifelong": None})
    assert misfit(network, SPEC, plain, Known(log, pin_table())) == "it differs in lifelong"
    with pytest.raises(ValueError, match="the feature store keeps 2000 actions of a history and 100"):
        TransActRecipe(lifelong=Lifelong(length=2_001))
