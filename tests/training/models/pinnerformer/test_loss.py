"""Sampled softmax with logQ against the softmax over everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.models.pinnerformer.loss import even_weights, log_expected, sampled_softmax

PINS, DIM = 12, 6


def small_world() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Three users, twelve pins, and how often each pin is a positive at all (strongly skewed)."""
    generator = torch.Generator().manual_seed(0)
    users = F.normalize(torch.randn(3, DIM, generator=generator), dim=1)
    pins = F.normalize(torch.randn(PINS, DIM, generator=generator), dim=1)
    frequency = 0.6 ** np.arange(PINS)
    return users, pins, frequency / frequency.sum()


def gradient(in_batch: int, uniform: int, draws: int, corrected: bool) -> torch.Tensor:
    """Mean gradient of the users over many pools; each user's positive is pin 4, 5 or 6."""
    users, pins, frequency = small_world()
    users.requires_grad_()
    rng = np.random.default_rng(5)
    positives = torch.tensor([4, 5, 6])
    total = torch.zeros_like(users)
    log_q = log_expected(in_batch, torch.from_numpy(frequency), uniform, PINS).float()
    for _ in range(draws):
        pool = np.concatenate([rng.choice(PINS, in_batch, p=frequency), rng.integers(0, PINS, uniform)])
        loss = sampled_softmax(
            users,
            pins[positives],
            pins[pool],
            torch.tensor(0.5),
            allowed=torch.ones(3, len(pool), dtype=torch.bool),
            weights=torch.full((3,), 1 / 3),
            log_q=log_q[positives] if corrected else None,
            pool_log_q=log_q[pool] if corrected else None,
        )
        (found,) = torch.autograd.grad(loss, users)
        total += found / draws
    return total


def full_gradient() -> torch.Tensor:
    users, pins, _ = small_world()
    users.requires_grad_()
    loss = F.cross_entropy(users @ pins.t() / 0.5, torch.tensor([4, 5, 6]))
    (found,) = torch.autograd.grad(loss, users)
    return found


@pytest.mark.parametrize(("in_batch", "uniform"), [(4000, 0), (0, 4000), (2000, 2000)])
def test_with_log_q_the_expected_gradient_is_the_full_softmaxs(in_batch: int, uniform: int) -> None:
    full = full_gradient()
    found = gradient(in_batch, uniform, 20, corrected=True)
    assert (found - full).norm() < 0.03 * full.norm()


def test_without_log_q_popular_negatives_pull_it_away() -> None:
    full = full_gradient()
    found = gradient(4000, 0, 5, corrected=False)
    assert (found - full).norm() > 0.3 * full.norm()


@pytest.mark.parametrize(("corrected", "bias"), [(True, 0.0), (False, 1.0)])
def test_small_pools_have_their_optimum_where_the_formula_says(corrected: bool, bias: float) -> None:
    """One user's free logits from 8 in-batch negatives: log P(v|u) with logQ, log P - log Q without."""
    frequency = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    taste = np.array([0.2, 0.1, 0.1, 0.35, 0.25])
    logits = torch.zeros(5, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    rng = np.random.default_rng(3)
    log_q = log_expected(8, torch.from_numpy(frequency), 0, 5).float()
    table, weights = torch.eye(5), torch.from_numpy(taste).float()  # every positive as often as it comes
    for step in range(1000):
        optimiser.param_groups[0]["lr"] = 0.05 / (1 + step / 100)
        pool = rng.choice(5, 8, p=frequency)
        loss = sampled_softmax(
            logits.expand(5, 5),
            table,
            table[pool],
            torch.tensor(1.0),
            allowed=torch.ones(5, 8, dtype=torch.bool),
            weights=weights,
            log_q=log_q if corrected else None,
            pool_log_q=log_q[pool] if corrected else None,
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    expected = np.log(taste) - bias * np.log(frequency)
    found = logits.detach().numpy()
    np.testing.assert_allclose(found - found.mean(), expected - expected.mean(), atol=0.15)
    assert found.argmax() == expected.argmax()


def test_own_positives_are_no_negatives() -> None:
    users, pins, _ = small_world()
    allowed = torch.tensor([[True, False]] * 3)
    arguments = {"temperature": torch.tensor(0.1), "weights": torch.full((3,), 1 / 3)}
    masked = sampled_softmax(users, pins[:3], pins[[7, 8]], allowed=allowed, **arguments)
    alone = sampled_softmax(users, pins[:3], pins[[7]], allowed=torch.ones(3, 1, dtype=torch.bool), **arguments)
    torch.testing.assert_close(masked, alone)
    none = torch.zeros(3, 1, dtype=torch.bool)
    assert float(sampled_softmax(users, pins[:3], pins[[7]], allowed=none, **arguments)) == 0


def test_every_user_weighs_the_same() -> None:
    weights = even_weights(torch.tensor([0, 0, 0, 2]), 4)
    assert weights.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_uniform_pools_have_one_constant_q() -> None:
    log_q = log_expected(0, torch.rand(9), 100, 1000)
    assert log_q.exp().tolist() == pytest.approx([0.1] * 9)
