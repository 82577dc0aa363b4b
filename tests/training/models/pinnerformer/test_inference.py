"""Batch inference says what the network says: buckets, windows, bfloat16 behind its check."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.models.pinnerformer.histories import CONFIG, PINS, WIDTH, content, histories
from training.models.pinnerformer import PinnerFormer, collate, embed_pins, embed_users, inference
from training.models.pinnerformer.network import seeded
from training.models.pinnerformer.tokens import MS_PER_DAY, window_starts

LENGTHS = [0, 1, 2, 40, 12, 7, 3, 13, 1]


def network(**changes: object) -> PinnerFormer:
    return seeded(CONFIG.model_copy(update=changes), WIDTH, 0, 3).eval()


@pytest.mark.parametrize("batch_tokens", [1, 30, 10_000])
def test_vectors_are_the_networks_own(batch_tokens: int) -> None:
    arrays, starts, ends = histories(LENGTHS)
    net = network()
    made = embed_users(net, arrays, starts, ends, content(), bfloat16=False, batch_tokens=batch_tokens)
    assert not made[0].any()
    for user in range(1, len(LENGTHS)):
        one = slice(user, user + 1)
        tokens = collate(arrays, np.maximum(starts[one], ends[one] - CONFIG.length), ends[one], content())
        np.testing.assert_allclose(made[user], net(tokens)[0, -1].detach().numpy(), atol=1e-5)


def test_bfloat16_keeps_the_direction() -> None:
    arrays, starts, ends = histories(LENGTHS[1:])
    net = network(hidden=64, heads=4)
    exact = embed_users(net, arrays, starts, ends, content(), bfloat16=False)
    low = embed_users(net, arrays, starts, ends, content(), bfloat16=True)
    assert not np.array_equal(exact, low)
    assert (exact * low).sum(axis=1).min() >= 0.999


def test_a_network_that_bfloat16_bends_stays_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, starts, ends = histories(LENGTHS[1:])
    monkeypatch.setattr(inference, "native_bfloat16", lambda: True)
    monkeypatch.setattr(inference, "WIDE", 0)
    net = network(hidden=64, heads=4)
    exact = embed_users(net, arrays, starts, ends, content(), bfloat16=False)
    assert not np.array_equal(embed_users(net, arrays, starts, ends, content()), exact)
    with torch.no_grad():  # a head whose output is the small difference of large numbers
        last = net.user_head[2]
        last.weight.mul_(1e-3)
        last.bias.copy_(torch.tensor([1.0, 1 + 1e-3] * 4))
        net.norm.weight.mul_(30)
        net.user_head[0].bias.add_(1000)
        last.weight.sub_(last.weight.mean(dim=1, keepdim=True))
        last.bias.zero_()
    exact = embed_users(net, arrays, starts, ends, content(), bfloat16=False)
    assert (exact * embed_users(net, arrays, starts, ends, content(), bfloat16=True)).sum(axis=1).min() < 0.999
    np.testing.assert_array_equal(embed_users(net, arrays, starts, ends, content()), exact)


def test_windows_keep_the_newest_of_a_year() -> None:
    times = np.array([0, 10, 400, 401, 402]) * MS_PER_DAY
    starts, ends = np.array([0, 0, 2, 3]), np.array([5, 2, 2, 5])
    assert window_starts(times, starts, ends, 4, 365).tolist() == [2, 0, 2, 3]
    assert window_starts(times, starts, ends, 2, 365).tolist() == [3, 0, 2, 3]
    assert window_starts(times, starts, ends, 9, 1000).tolist() == [0, 0, 2, 3]


def test_ten_thousand_actions_are_read_from_their_end() -> None:
    arrays, starts, ends = histories([10_000])
    short, begin, end = arrays.take(slice(-CONFIG.length, None)), np.array([0]), np.array([CONFIG.length])
    np.testing.assert_allclose(
        embed_users(network(), arrays, starts, ends, content()),
        embed_users(network(), short, begin, end, content()),
        atol=1e-6,
    )


def test_every_pin_has_its_vector_whatever_the_batch() -> None:
    net = network()
    whole = embed_pins(net, content())
    assert whole.shape == (PINS, CONFIG.dim)
    np.testing.assert_allclose(embed_pins(net, content(), batch=7), whole, atol=1e-6)


def test_nobody_is_no_error() -> None:
    arrays, starts, ends = histories([0, 0])
    assert not embed_users(network(), arrays, starts, ends, content()).any()
    assert embed_users(network(), arrays, starts[:0], ends[:0], content()).shape == (0, CONFIG.dim)
