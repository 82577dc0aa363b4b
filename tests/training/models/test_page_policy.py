"""One file of weights and diversity: what it may say, and what must not pass."""

from __future__ import annotations

import pytest

from tests.training.models.test_utility import SHOP
from training.models.diversity import DiversityConfig
from training.models.page_policy import PagePolicy, read_policy
from training.models.utility import UtilityError, UtilityWeights


def test_weights_are_read_from_a_file(tmp_path):
    file = tmp_path / "utility.yaml"
    file.write_text("weights:\n  buy: 2\n  return: -3.5\n")
    assert read_policy(file, SHOP).weights == {"buy": 2.0, "return": -3.5}
    assert read_policy(file, SHOP).diversity == DiversityConfig()
    file.write_text('{"weights": {"buy": 1}}')
    assert read_policy(file, SHOP).weights == {"buy": 1.0}


def test_diversity_alone_keeps_the_default_weights(tmp_path):
    file = tmp_path / "utility.yaml"
    file.write_text("diversity: {theta: 0.9, board_cap: 0}")
    policy = read_policy(file, SHOP)
    assert policy.weights == UtilityWeights.default(SHOP).weights
    assert policy.diversity == DiversityConfig(theta=0.9, board_cap=0)


def test_every_number_is_in_the_digest():
    one = PagePolicy(weights={"buy": 1.0, "view": 0.1})
    assert one.digest == PagePolicy(weights={"view": 0.1, "buy": 1.0}).digest and len(one.digest) == 8
    others = [
        PagePolicy(weights={"buy": 1.0, "view": 0.2}),
        PagePolicy(weights={"buy": 1.0, "view": 0.1}, diversity=DiversityConfig(theta=0.71)),
    ]
    assert len({policy.digest for policy in (one, *others)}) == 3


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("weights: {buy: much}", "weights.buy"),
        ("weights: {buy: .inf}", "weights.buy"),
        ("weights: {buy: 1}\nalpha: 2", "alpha"),
        ("weights: {buy: 1}\ndiversity: {theta: 2}", "diversity.theta"),
        ("", "valid dictionary"),
        ("[1, 2]", "valid dictionary"),
        ("weights: {buy: 1", "cannot be read"),
        ("weights: {buy: 2026-13-45}", "cannot be read"),
        ("[" * 3000, "cannot be read"),
        ("weights: {buy: 1e39}", "weights.buy"),
        ("weights: {buy: 1}\ndiversity: {topic_cap: 1000000000000}", "diversity.topic_cap"),
        ("weights: {bye: 1}", "bye; the data set's actions"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content: str, match: str):
    file = tmp_path / "utility.yaml"
    file.write_text(content)
    with pytest.raises(UtilityError, match=rf"utility\.yaml.*{match}"):
        read_policy(file, SHOP)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UtilityError, match=r"nothing\.yaml: cannot be read"):
        read_policy(tmp_path / "nothing.yaml", SHOP)
