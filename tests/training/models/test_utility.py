"""Utility by hand, and weights that must not pass."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from training.models.utility import UtilityError, UtilityWeights, utility
from validation.tables import DEFAULT_VOCABULARY, Polarity, Vocabulary

SHOP = Vocabulary(
    actions={
        "view": Polarity.NEUTRAL,
        "buy": Polarity.POSITIVE,
        "return": Polarity.NEGATIVE,
        "click": Polarity.NEUTRAL,
    }
)


def test_utility_by_hand():
    weights = UtilityWeights(weights={"save": 1.0, "hide": -4.0, "click": 0.5})
    p = np.array([[0.2, 0.1, 0.0, 0.9], [0.4, 0.0, 0.2, 0.9]], np.float32)  # save, click, hide, closeup
    got = utility(p, weights.vector(("save", "click", "hide", "closeup")))
    np.testing.assert_allclose(got, [0.2 + 0.05, 0.4 - 0.8], rtol=1e-6)
    assert got.dtype == np.float32
    assert utility(p[:0], weights.vector(("save", "click", "hide", "closeup"))).shape == (0,)


def test_other_weights_turn_the_order_round_without_a_model():
    p = np.array([[0.30, 0.05], [0.20, 0.00]], np.float32)
    heads = ("save", "hide")
    bold = utility(p, UtilityWeights(weights={"save": 1.0, "hide": -1.0}).vector(heads))
    careful = utility(p, UtilityWeights(weights={"save": 1.0, "hide": -10.0}).vector(heads))
    assert bold.argmax() == 0 and careful.argmax() == 1


@pytest.mark.parametrize("vocabulary", [DEFAULT_VOCABULARY, SHOP])
def test_defaults_fit_every_vocabulary(vocabulary: Vocabulary):
    weights = UtilityWeights.default(vocabulary).check(vocabulary)
    for name, polarity in vocabulary.actions.items():
        weight = weights.weights.get(name, 0.0)
        assert {Polarity.POSITIVE: weight > 0, Polarity.NEGATIVE: weight < 0, Polarity.NEUTRAL: weight == 0}[
            polarity
        ]
    assert UtilityWeights.default(SHOP).weights == {"buy": 1.0, "return": -5.0}


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ({"repinn": 1.0, "buy": 1.0}, "repinn; the data set's actions are view, buy, return, click"),
        ({"buy": 1.0, "return": 2.0}, "return with 2; it is a negative action, give a weight below 0"),
        ({"buy": -1.0}, "buy with -1; it is a positive action, give a weight above 0"),
        ({"buy": 0.0}, "every utility weight is 0"),
        ({}, "every utility weight is 0"),
    ],
)
def test_weights_that_do_not_fit_are_named(weights: dict[str, float], match: str):
    with pytest.raises(UtilityError, match=match):
        UtilityWeights(weights=weights).check(SHOP)


def test_a_neutral_action_may_weigh_either_way():
    for weight in (0.2, -0.2):
        assert UtilityWeights(weights={"view": weight}).check(SHOP).weights["view"] == weight


def test_a_ranker_that_has_no_weighed_head_is_refused():
    weights = UtilityWeights(weights={"save": 1.0, "hide": -1.0, "click": 0.0})
    with pytest.raises(UtilityError, match="heads closeup; utility weighs none of them but save, hide"):
        weights.vector(("closeup",))
    assert weights.without_head(("save", "closeup")) == ("hide",)
    np.testing.assert_array_equal(weights.vector(("save", "closeup")), [1, 0])


def test_a_ranker_of_engagement_alone_is_ordered_by_it():
    weights = UtilityWeights(weights={"save": 3.0, "hide": -1.0})
    np.testing.assert_array_equal(weights.vector(("engage",)), [1])
    np.testing.assert_array_equal(weights.vector(("engage", "save")), [0, 3])


def test_weights_cannot_be_changed_in_place():
    with pytest.raises(ValidationError):
        UtilityWeights(weights={"buy": 1.0}).weights = {}
