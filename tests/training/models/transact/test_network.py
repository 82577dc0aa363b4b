"""The ranker around the sequence: features, heads, what is saved, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.models.transact.batches import (
    CONFIG,
    HEADS,
    SPEC,
    changed,
    config,
    network,
    rows,
)
from training.models.pinnability import standardise
from training.models.transact import Fusion, Head, Lifelong, NextAction, Output, TransAct, TransActConfig
from training.models.transact.network import seeded


def test_features_are_standardised_by_the_training_rows_alone() -> None:
    net, rng = seeded(CONFIG, 6, 0), np.random.default_rng(0)
    seen = (rng.standard_normal((500, len(SPEC.names))) * [1, 50, 1000, 0.1, 0]).astype(np.float32)
    seen[3, 1] = np.nan
    net.learn_scale(torch.from_numpy(seen))
    clean = np.nan_to_num(seen)
    logs = np.copysign(np.log1p(np.abs(clean.astype(np.float64))), clean)
    spread = np.where(logs.std(axis=0) > 0, logs.std(axis=0), 1)
    wanted = standardise(clean, logs.mean(axis=0).astype(np.float32), spread.astype(np.float32))
    np.testing.assert_allclose(net.features(torch.from_numpy(seen)).numpy(), wanted.clip(-10, 10), atol=2e-5)
    assert {"mean", "scale"} <= set(net.state_dict())
    assert not net.mean.requires_grad


def test_pieces_hold_as_many_training_rows_each_and_what_has_one_value_has_none() -> None:
    net = seeded(CONFIG.model_copy(update={"wide": True, "pieces": 4}), 6, 0)
    seen = np.random.default_rng(0).gamma(2.0, 30.0, (400, len(SPEC.names))).astype(np.float32)
    seen[:, 2], seen[:, 3] = 0.0, np.arange(400) < 4
    net.learn_scale(torch.from_numpy(seen))
    features = net.features(torch.from_numpy(seen))
    through = net.bent(features)[:, len(SPEC.names) :].unflatten(1, (-1, 4))
    assert torch.equal(net.bent(features)[:, : len(SPEC.names)], features)
    inside = ((through > 0) & (through < 1)).float().mean(dim=0)
    torch.testing.assert_close(inside[:2], torch.full((2, 4), 0.25), atol=0.02, rtol=0)
    # a line through the pieces is the feature again, where they lie
    wide = (1 / net.slopes[:2, None]).squeeze(1)
    again = net.begins[:2, 0] + (through[:, :2] * wide).sum(dim=2)
    torch.testing.assert_close(again, features[:, :2], atol=1e-4, rtol=0)
    assert (through[:, 2] == 0).all() and set(through[:, 3].unique().tolist()) == {0.0, 1.0}
    far = net.bent(torch.full((1, len(SPEC.names)), 9.0))
    assert far.max() == 9 and (far[:, len(SPEC.names) :] <= 1).all()


def test_a_linear_start_says_the_same_with_pieces() -> None:
    weights, bias = torch.randn(len(HEADS), len(SPEC.names)), torch.randn(len(HEADS))
    found = []
    for pieces in (0, 3):
        net = network(CONFIG.model_copy(update={"wide": True, "pieces": pieces}))
        net.learn_linear(weights, bias)
        found.append(net(rows([4, 0])))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="wide"):
        TransActConfig.model_validate(CONFIG.model_dump() | {"pieces": 3})


def test_numbers_that_are_none_count_as_zero() -> None:
    net, given = network(), rows([4, 0])
    zero = changed(given, features=given.features.clone())
    zero.features[:, 1] = 0
    for strange in (torch.nan, torch.inf, -torch.inf):
        other = changed(given, features=zero.features.clone())
        other.features[:, 1] = strange
        torch.testing.assert_close(net(other), net(zero), atol=0, rtol=0)
    far = changed(given, features=given.features.clone())
    far.features[:] = 1e30
    assert torch.isfinite(net(far)).all()


def test_every_input_reaches_every_head() -> None:
    net, given = network(), rows([6])
    given.features.requires_grad_()
    given.users.requires_grad_()
    given.content.requires_grad_()
    for head in range(len(HEADS)):
        grads = torch.autograd.grad(net(given)[0, head], [given.features, given.users, given.content])
        assert (grads[0] != 0).all() and (grads[1] != 0).all()
        assert (grads[2][given.candidates[0]] != 0).any()
        assert all((grads[2][pin] != 0).any() for pin in given.pins[0, :6].tolist() if pin)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head_dim": 4, "cross_layers": 0, "deep": ()},
        {"wide": True, "pieces": 3},
        {"sequence": config(fusion=Fusion.APPEND, output=Output.RANDOM_K).sequence},
        {"sequence": config(fusion=Fusion.NONE).sequence, "user_dim": 0},
        {"sequence": config(causal=True).sequence, "next_action": NextAction(positives=(1, 2))},
    ],
)
def test_what_is_saved_is_what_is_loaded(changes: dict, tmp_path: Path) -> None:
    net, given = network(CONFIG.model_copy(update=changes)), rows([0, 3, 12])
    net.save(tmp_path)
    again = TransAct.load(tmp_path)
    assert again.config == net.config and not again.training
    torch.testing.assert_close(again(given), net(given), atol=0, rtol=0)


def test_no_network_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TransAct.load(tmp_path)


def test_equal_seeds_give_equal_networks_and_leave_torch_alone() -> None:
    torch.manual_seed(4)
    wanted = torch.rand(3)
    torch.manual_seed(4)
    first, again = seeded(CONFIG, 6, 1), seeded(CONFIG, 6, 1)
    assert torch.equal(torch.rand(3), wanted)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.project.weight, seeded(CONFIG, 6, 2).project.weight)


def test_settings_that_do_not_fit_are_refused() -> None:
    for wrong, words in (
        ({"heads": ()}, "at least 1"),
        ({"heads": (HEADS[0], Head(action="save"))}, "two heads"),
        ({"heads": HEADS, "next_action": NextAction(positives=(1,))}, "causal"),
        ({"heads": HEADS, "lifelong": Lifelong()}, "192 tokens"),
        ({"heads": HEADS, "unknown": 1}, "Extra inputs"),
    ):
        with pytest.raises(ValueError, match=words):
            TransActConfig.model_validate(wrong)
    with pytest.raises(ValueError, match="multiple of heads"):
        config(heads=5)


def test_inputs_of_another_width_are_refused() -> None:
    net, given = network(), rows([4, 0])
    with pytest.raises(ValueError, match="user vectors are 2 wide; this network reads 3"):
        net(changed(given, users=given.users[:, :2]))
    with pytest.raises(ValueError, match="4 features a row; this network reads 5: user_actions_7d"):
        net(changed(given, features=given.features[:, :4]))
    without = network(CONFIG.model_copy(update={"user_dim": 0}))
    torch.testing.assert_close(without(given), without(changed(given, users=given.users[:, :0])))


def test_the_papers_shape() -> None:
    made = TransActConfig(heads=HEADS)
    assert (made.sequence.width, made.sequence.out, made.sequence.length) == (96, 1056, 100)
    second = TransActConfig.v2(HEADS, (1, 2))
    assert (second.sequence.width, second.sequence.length) == (64, 192)
    assert second.sequence.causal and second.next_action.weight == 0.01
    count = sum(p.numel() for p in seeded(made, 32, 0).sequence.parameters())
    assert count == 97_760 + 2 * 32  # the published one, which loses an action to padding; and unknown kinds
