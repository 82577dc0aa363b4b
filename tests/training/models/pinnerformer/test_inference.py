"""Batch inference says what the network says: buckets, windows, bfloat16 behind its check."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.models.pinnerformer.histories import CONFIG, PINS, WIDTH, content, histories
from training.models.pinnerformer import (
    PinnerFormer,
    Precision,
    collate,
    eight_bits,
    embed_pins,
    embed_users,
    inference,
)
from training.models.pinnerformer.network import seeded
from training.models.pinnerformer.tokens import MS_PER_DAY, window_starts

LENGTHS = [0, 1, 2, 40, 12, 7, 3, 13, 1]


def network(**changes: object) -> PinnerFormer:
    return seeded(CONFIG.model_copy(update=changes), WIDTH, 0, 3).eval()


@pytest.mark.parametrize("batch_tokens", [1, 30, 10_000])
def test_vectors_are_the_networks_own(batch_tokens: int) -> None:
    arrays, starts, ends = histories(LENGTHS)
    net = network()
    made = embed_users(
        net, arrays, starts, ends, content(), precision=Precision.FLOAT32, batch_tokens=batch_tokens
    )
    assert not made[0].any()
    for user in range(1, len(LENGTHS)):
        one = slice(user, user + 1)
        tokens = collate(arrays, np.maximum(starts[one], ends[one] - CONFIG.length), ends[one], content())
        np.testing.assert_allclose(made[user], net(tokens)[0, -1].detach().numpy(), atol=1e-5)


LOWER = [Precision.BFLOAT16, *([Precision.EIGHT_BITS] if eight_bits.available() else [])]


@pytest.mark.parametrize("lower", LOWER)
def test_fewer_bits_keep_the_direction(lower: Precision) -> None:
    arrays, starts, ends = histories(LENGTHS[1:])
    net = network(hidden=64, heads=4)
    exact = embed_users(net, arrays, starts, ends, content(), precision=Precision.FLOAT32)
    low = embed_users(net, arrays, starts, ends, content(), precision=lower)
    assert not np.array_equal(exact, low)
    assert (exact * low).sum(axis=1).min() >= 0.999


def bent(net: PinnerFormer, lower: Precision) -> None:
    """Give a network weights that `lower` says badly."""
    if lower is Precision.EIGHT_BITS:  # inputs whose largest number counts for nothing
        net.blocks[0].before_ffn.weight[0] = 1e4
        net.blocks[0].up.weight[:, 0] = 0
        return
    net.norm.weight.mul_(30)  # a head whose output is the small difference of large numbers
    net.user_head[0].bias.add_(1000)
    last = net.user_head[2]
    last.weight.sub_(last.weight.mean(dim=1, keepdim=True))
    last.bias.zero_()


@pytest.mark.parametrize("lower", LOWER)
def test_a_network_that_fewer_bits_bend_stays_in_float32(
    lower: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays, starts, ends = histories(LENGTHS[1:])
    monkeypatch.setattr(inference, "fewest_bits", lambda: lower)
    monkeypatch.setattr(inference, "WIDE", 0)
    net = network(hidden=64, heads=4)

    def vectors(precision: Precision | None) -> np.ndarray:
        return embed_users(net, arrays, starts, ends, content(), precision=precision)

    assert not np.array_equal(vectors(None), vectors(Precision.FLOAT32))
    with torch.no_grad():
        bent(net, lower)
    exact = vectors(Precision.FLOAT32)
    assert (exact * vectors(lower)).sum(axis=1).min() < 0.999
    np.testing.assert_array_equal(vectors(None), exact)


@pytest.mark.parametrize(
    ("native", "x86", "fewest"),
    [(True, True, "bfloat16"), (False, True, "eight bits"), (False, False, "float32")],
)
def test_what_a_cpu_multiplies_fastest(
    native: bool, x86: bool, fewest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "native_bfloat16", lambda: native)
    monkeypatch.setattr(eight_bits, "available", lambda: x86)
    assert inference.fewest_bits() == fewest


@pytest.mark.skipif(not eight_bits.available(), reason="this torch multiplies no eight-bit integers")
def test_a_token_in_eight_bits_does_not_depend_on_the_others() -> None:
    exact = torch.nn.Linear(32, 8, bias=False)
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    x[2] *= 1e4
    x[3] = 0
    with torch.inference_mode():
        layer = eight_bits.EightBits(exact)
        made, own = layer(x), exact(x)
        alone = torch.cat([layer(row[None]) for row in x])
    torch.testing.assert_close(made, alone, rtol=0, atol=0)
    assert not made[3].any()
    assert torch.cosine_similarity(made, own)[[0, 1, 2, 4]].min() > 0.999


def test_a_torch_without_the_product_and_a_layer_with_a_bias_have_no_eight_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="bias"):
        eight_bits.EightBits(torch.nn.Linear(3, 2))

    def absent(self: object, exact: object) -> None:
        raise AttributeError("no such op")

    monkeypatch.setattr(eight_bits.EightBits, "__init__", absent)
    assert not eight_bits.available.__wrapped__()


def test_a_batch_is_bounded_by_what_the_newest_token_asks() -> None:
    arrays, starts, ends = histories([1] * 9)
    net, seen = network(hidden=64, heads=4), []
    newest = net.newest
    net.newest = lambda buckets: seen.append(sum(len(b.lengths) for b in buckets)) or newest(buckets)
    embed_users(net, arrays, starts, ends, content(), precision=Precision.FLOAT32, batch_tokens=16)
    assert seen == [4, 4, 1]


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
