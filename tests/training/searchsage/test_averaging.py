"""Of the weights between start and end those are kept that find most; a run is never worse than its start."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="the text extra is not installed")

from tests.training.searchsage.planted import NETWORK, TOPICS, TRAINING, Planted, planted
from training.models.searchsage.network import QueryTower, start
from training.models.searchsage.tokens import QueryTokens
from training.searchsage.averaging import SHARES, found, go, settle, weights_of
from training.searchsage.trainer import train


@pytest.fixture(scope="module")
def world() -> Planted:
    return planted()


def learned(world: Planted, **update: object) -> tuple[QueryTower, QueryTokens, dict[float, float]]:
    training = TRAINING.model_copy(update=update)
    tower, tokens, _ = start(NETWORK, world.pins.vectors.shape[1], TOPICS * 5, training.seed)
    trained = train(tower, tokens, world.train, world.pins, training, checked=world.held)
    return tower, tokens, trained.recall


def test_the_share_that_finds_most_is_kept(world: Planted) -> None:
    tower, tokens, recall = learned(world)
    assert tuple(recall) == SHARES
    assert found(tower, tokens, world.held, world.pins) == max(recall.values()) > recall[0.0]


def test_a_run_that_forgets_ends_where_it_began(world: Planted) -> None:
    tower, _, recall = learned(world, learning_rate=0.5, readout_rate=0.5, epochs=1)
    assert max(recall, key=recall.__getitem__) == 0.0
    untouched, *_ = learned(world, epochs=0)
    for mine, theirs in zip(tower.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_weights_lie_on_the_line(world: Planted) -> None:
    tower, _, _ = start(NETWORK, 16, TOPICS, 1)
    begin = weights_of(tower)
    end = {name: tensor + 1 for name, tensor in begin.items()}
    go(tower, begin, end, 0.25)
    assert torch.allclose(tower.readout.weight, begin["readout.weight"] + 0.25)
    go(tower, begin, end, 1.0)
    assert torch.equal(tower.readout.weight, end["readout.weight"])


def test_pairs_of_pins_that_cannot_be_found_decide_nothing(world: Planted) -> None:
    tower, tokens, _ = start(NETWORK, 16, TOPICS, 1)
    nowhere = world.held.where(np.ones(len(world.held), bool))
    gone = type(nowhere)(nowhere.queries, nowhere.query, nowhere.pins + 10_000, nowhere.times_ms)
    assert settle(tower, weights_of(tower), tokens, gone, world.pins) == dict.fromkeys(SHARES, 0.0)
