"""Sampled softmax against the formula, logQ against the exact softmax, the stream against true frequencies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.models.interests.config import Association, InterestsConfig
from training.models.interests.frequency import StreamingFrequency
from training.models.interests.loss import associated, sampled_softmax


def test_the_loss_is_the_formula() -> None:
    generator = torch.Generator().manual_seed(1)
    queries, pool = torch.randn(3, 5, generator=generator), torch.randn(4, 5, generator=generator)
    log_q = torch.log(torch.tensor([0.1, 0.2, 0.5, 0.9]))
    positives = torch.tensor([0, 2, 3])
    blocked = torch.zeros(3, 4, dtype=torch.bool)
    blocked[0, 1] = blocked[1, 2] = True  # one of another query's own, and a positive itself, which stays
    losses = []
    for n in range(3):
        corrected = {k: float(queries[n] @ pool[k] - log_q[k]) for k in range(4)}
        negatives = [k for k in range(4) if k != positives[n] and not (blocked[n, k])]
        top = np.exp(corrected[int(positives[n])])
        losses.append(-np.log(top / (top + sum(np.exp(corrected[k]) for k in negatives))))
    found = sampled_softmax(queries, pool, positives, log_q, blocked)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


def test_log_q_makes_the_sampled_gradient_the_exact_one() -> None:
    """Items in the pool with probability p_k: with logQ the mean gradient is near the full softmax's."""
    rng = np.random.default_rng(2)
    items, d, n = 200, 6, 64
    table = torch.from_numpy(rng.standard_normal((items, d)).astype(np.float32))
    chance = np.where(np.arange(items) % 2, 0.9, 0.15)
    query = torch.from_numpy(0.5 * rng.standard_normal((1, d)).astype(np.float32)).requires_grad_()

    def gradient(pool: np.ndarray, log_q: torch.Tensor, positive: int) -> torch.Tensor:
        at = torch.tensor([int(np.flatnonzero(pool == positive)[0])])
        blocked = torch.zeros(1, len(pool), dtype=torch.bool)
        loss = sampled_softmax(query, table[torch.from_numpy(pool)], at, log_q, blocked)
        return torch.autograd.grad(loss, query)[0]

    everything = np.arange(items)
    exact = gradient(everything, torch.zeros(items), 5)
    with_log_q, without = torch.zeros(1, d), torch.zeros(1, d)
    for _ in range(n * 4):
        drawn = rng.random(items) < chance
        drawn[5] = True
        pool = np.flatnonzero(drawn)
        log_q = torch.log(torch.from_numpy(chance[pool]).float())
        log_q[pool == 5] = 0.0  # it is always there
        with_log_q += gradient(pool, log_q, 5) / (n * 4)
        without += gradient(pool, torch.zeros(len(pool)), 5) / (n * 4)
    assert (with_log_q - exact).norm() < 0.05 * exact.norm()
    assert (without - exact).norm() > 2 * (with_log_q - exact).norm()


@pytest.mark.parametrize("hashes", [1, 2])
def test_the_stream_converges_to_the_frequencies(hashes: int) -> None:
    rng = np.random.default_rng(3)
    chance = np.array([0.9, 0.5, 0.2, 0.1, 0.05])
    stream = StreamingFrequency(1 << 14, rate=0.03, hashes=hashes)
    sums, last = torch.zeros(5), 1500
    for step in range(4000):
        stream.update(torch.from_numpy(np.flatnonzero(rng.random(5) < chance)))
        if step >= 4000 - last:
            sums += stream.probability(torch.arange(5))
    np.testing.assert_allclose((sums / last).numpy(), chance, rtol=0.15)


def test_the_stream_follows_a_change() -> None:
    stream = StreamingFrequency(1 << 12, rate=0.1)
    for step in range(500):
        stream.update(torch.tensor([1] if step % 50 == 0 else [2]))
    rare = float(stream.probability(torch.tensor([1])))
    for _ in range(100):
        stream.update(torch.tensor([1]))
    assert rare < 0.05 and float(stream.probability(torch.tensor([1]))) > 0.7


def test_an_item_never_seen_is_rare_and_never_certain() -> None:
    stream = StreamingFrequency(1 << 12, first_gap=100)
    assert 0 < float(stream.probability(torch.tensor([77]))) <= 0.01
    with pytest.raises(ValueError, match="hashes"):
        StreamingFrequency(16, hashes=9)


def _case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    vectors = torch.nn.functional.normalize(
        torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(5)), dim=2
    )
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)
    items = vectors[:, 2].clone()  # nearest to the last slot, which is dead for two users
    return vectors, mask, items


def test_argmax_takes_the_best_live_embedding() -> None:
    vectors, mask, items = _case()
    found = associated(vectors, mask, items, InterestsConfig(), None)
    torch.testing.assert_close(found[[0, 3]], vectors[[0, 3], 2])
    torch.testing.assert_close(found[1], vectors[1, 0])


def test_label_aware_attention_nears_argmax_as_p_grows_and_the_mean_at_zero() -> None:
    vectors, mask, items = _case()
    config = InterestsConfig(association=Association.LABEL_AWARE, label_power=500)
    best = associated(vectors, mask, items, InterestsConfig(), None)
    torch.testing.assert_close(associated(vectors, mask, items, config, None), best, atol=1e-3, rtol=0)
    flat = associated(vectors, mask, items, config.model_copy(update={"label_power": 0.0}), None)
    torch.testing.assert_close(flat[3], torch.nn.functional.normalize(vectors[3].mean(dim=0), dim=0))


def test_straight_through_gumbel_is_hard_forward_and_reaches_every_live_embedding_backward() -> None:
    vectors, mask, items = _case()
    vectors.requires_grad_()
    config = InterestsConfig(association=Association.GUMBEL, temperature=1.0)
    found = associated(vectors, mask, items, config, torch.Generator().manual_seed(1))
    distance = (found[:, None] - vectors).abs().amax(dim=2).amin(dim=1)
    assert (distance < 1e-6).all()
    found.sum().backward()
    assert vectors.grad is not None
    reached = vectors.grad.abs().sum(dim=2) > 0
    assert (reached == mask).all()
    draws = torch.Generator().manual_seed(2)
    vectors = vectors.detach()
    drawn = [associated(vectors, mask, items, config, draws)[0] for _ in range(60)]
    assert {int((vectors[0] - query).abs().sum(dim=1).argmin()) for query in drawn} == {0, 1, 2}
