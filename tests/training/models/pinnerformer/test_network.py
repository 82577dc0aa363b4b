"""The network: nothing leaks back from later tokens or padding, and every switch does what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.training.models.pinnerformer.histories import CONFIG, PINS, WIDTH, content, histories
from training.models.pinnerformer import PinnerFormer, PinnerFormerConfig, TokenFeatures, Tokens, collate
from training.models.pinnerformer.attention import causal_attention, chosen_attention, fused_attention
from training.models.pinnerformer.network import seeded


def network(config: PinnerFormerConfig = CONFIG, pins: int = 0) -> PinnerFormer:
    return seeded(config, WIDTH, pins, 3).eval()


def batch(lengths: list[int], padded: int | None = None) -> Tokens:
    return collate(*histories(lengths), content(), padded)


def test_vectors_are_unit_at_every_position() -> None:
    vectors = network()(batch([12, 5, 1]))
    assert vectors.shape == (3, 12, 8)
    torch.testing.assert_close(vectors.norm(dim=2), torch.ones(3, 12))
    pins = network().pins(torch.from_numpy(content()), torch.arange(1, PINS + 1))
    torch.testing.assert_close(pins.norm(dim=1), torch.ones(PINS))


PLACES = [(name, place) for name in ("content", "actions", "surfaces", "durations_s") for place in (1, 6, 11)]


@pytest.mark.parametrize(("name", "place"), [*PLACES, ("times_ms", 1), ("times_ms", 6)])
def test_changing_a_later_token_changes_no_earlier_output(name: str, place: int) -> None:
    """The newest token's time alone is known earlier: every token says how long before it it was."""
    tokens, net = batch([12]), network()
    value = getattr(tokens, name).clone()
    value[:, place] = value[:, place] + 1
    before, after = net(tokens)[0], net(replace(tokens, **{name: value}))[0]
    torch.testing.assert_close(before[:place], after[:place], rtol=0, atol=0)
    assert (before[place] - after[place]).abs().max() > 1e-5


def test_padding_changes_nothing() -> None:
    alone, padded = batch([5]), batch([5], padded=11)
    torch.testing.assert_close(network()(alone)[0], network()(padded)[0, :5], rtol=1e-5, atol=1e-6)


def test_newest_is_forward_at_the_newest() -> None:
    """Of every bucket, padded or not."""
    net = network(CONFIG.model_copy(update={"layers": 3}))
    buckets = [batch([12, 1, 7, 2]), batch([3, 3]), batch([1])]
    every = [net(tokens)[torch.arange(len(tokens.lengths)), tokens.lengths - 1] for tokens in buckets]
    torch.testing.assert_close(net.newest(buckets), torch.cat(every), rtol=1e-5, atol=1e-6)


def test_the_last_block_for_some_tokens_is_forward_there() -> None:
    """With the gradients of every weight."""
    tokens, net = batch([12, 1, 7]), network()
    rows, places = torch.arange(3)[:, None], torch.tensor([[3, 11, 0], [0, 0, 0], [6, 2, 0]])

    def gradients(made: torch.Tensor) -> list[torch.Tensor | None]:
        net.zero_grad()
        made.square().sum().backward()
        return [None if p.grad is None else p.grad.clone() for p in net.parameters()]

    some, every = net.hidden_at(tokens, places), net.hidden(tokens)[rows, places]
    torch.testing.assert_close(some, every, rtol=1e-5, atol=1e-6)
    for a, b in zip(gradients(some), gradients(every), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_padding_past_the_longest_sequence_changes_nothing() -> None:
    lengths, net, places = [10, 1, 7], network(), torch.tensor([[3, 9], [0, 0], [6, 2]])
    with torch.no_grad():
        for read in (lambda tokens: net.hidden_at(tokens, places), lambda tokens: net.newest([tokens])):
            torch.testing.assert_close(read(batch(lengths, 12)), read(batch(lengths)))


@pytest.mark.parametrize("length", [1, 10, 70])
def test_attention_is_torchs_own(length: int) -> None:
    qkv = torch.randn(3, length, 48, generator=torch.Generator().manual_seed(1))
    own = fused_attention(qkv, 4)
    torch.testing.assert_close(causal_attention(qkv, 4), own)
    rows, places = torch.arange(3)[:, None], torch.tensor([[0, length - 1], [length // 2, 0], [length // 3, 0]])
    chosen = chosen_attention(qkv[rows, places, :16], qkv[:, :, 16:].contiguous(), places, 4)
    torch.testing.assert_close(chosen, own[rows, places])


@pytest.mark.parametrize("name", list(TokenFeatures.model_fields))
def test_a_feature_left_out_is_not_read(name: str) -> None:
    net = network(CONFIG.model_copy(update={"features": TokenFeatures().without(name)}))
    tokens = batch([8])
    changes = {
        "pin": {"content": tokens.content + 1},
        "action": {"actions": tokens.actions + 1},
        "surface": {"surfaces": tokens.surfaces + 1},
        "duration": {"durations_s": tokens.durations_s + 1},
        "time": {"times_ms": tokens.times_ms + 3_600_000 * torch.arange(8)},
        "position": {},
    }[name]
    torch.testing.assert_close(net(tokens), net(replace(tokens, **changes)), rtol=0, atol=0)
    if changes:
        assert not torch.equal(network()(tokens), network()(replace(tokens, **changes)))
    else:
        assert net.position is None and network().position is not None


def test_unknown_pins_codes_and_times_are_taken() -> None:
    arrays, starts, ends = histories([6])
    strange = replace(
        arrays,
        pin_rows=np.full(6, -1, np.int32),
        actions=np.full(6, 127, np.int8),
        durations_s=np.full(6, -1, np.float32),
        times_ms=np.full(6, 1_760_000_000_000),
    )
    tokens = collate(strange, starts, ends, content())
    assert not tokens.content.any() and not tokens.pins.any()
    assert torch.isfinite(network()(tokens)).all()


def test_empty_and_overlong_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one action"):
        collate(*histories([3, 0]), content())
    with pytest.raises(ValueError, match="13 tokens"):
        network()(batch([13]))


def test_id_embeddings_stand_in_for_content() -> None:
    config = CONFIG.model_copy(update={"id_dim": 6})
    net = seeded(config, 0, PINS, 3).eval()
    tokens = collate(*histories([6]), np.empty((PINS, 0), np.float32))
    assert torch.isfinite(net(tokens)).all()
    nothing = torch.empty(3, 0)
    late = net.pins(nothing, torch.tensor([0, PINS + 1, 5]))
    torch.testing.assert_close(late[0], late[1])
    assert (late[0] - late[2]).abs().max() > 1e-4
    with pytest.raises(ValueError, match="id embedding"):
        PinnerFormer(CONFIG, 0)


def test_without_content_a_user_starts_as_the_mean_of_the_users_pins() -> None:
    only_pins = TokenFeatures(action=False, surface=False, duration=False, time=False, position=False)
    config = PinnerFormerConfig(id_dim=32, hidden=32, dim=32, layers=1, length=12, features=only_pins)
    net = seeded(config, 0, PINS, 3).eval()
    nothing = np.empty((PINS, 0), np.float32)
    tokens = collate(*histories([12, 9]), nothing)
    pins = net.pins(torch.empty(PINS, 0), torch.arange(1, PINS + 1))
    for vector, row, length in zip(net(tokens), tokens.pins, (12, 9), strict=True):
        mean = F.normalize(pins[row[:length] - 1].mean(dim=0), dim=0)
        assert float(vector[length - 1] @ mean) > 0.9


def test_beside_content_ids_start_small_and_blocks_as_the_mean_of_tokens() -> None:
    net = network(CONFIG.model_copy(update={"id_dim": 6}), PINS)
    assert float(net.id_embedding.weight.detach().abs().max()) < 0.1
    tokens = batch([12])
    x = net.embed(tokens)
    added = (net.blocks[0](x) - x)[0, -1]
    mean = net.blocks[0].before_attention(x)[0].mean(dim=0)
    assert float(F.cosine_similarity(added, mean, dim=0)) > 0.9


def test_temperature_never_falls_below_a_hundredth() -> None:
    net = network()
    with torch.no_grad():
        net.tau.fill_(-1)
    assert float(net.temperature.detach()) == pytest.approx(0.01)
    net.clamp_temperature()
    assert float(net.tau.detach()) == pytest.approx(0.01)


def test_saved_and_loaded_it_says_the_same(tmp_path: Path) -> None:
    net = network(CONFIG.model_copy(update={"id_dim": 4}), PINS)
    net.save(tmp_path / "model")
    loaded = PinnerFormer.load(tmp_path / "model")
    assert loaded.config == net.config and not loaded.training
    torch.testing.assert_close(loaded(batch([9])), net(batch([9])), rtol=0, atol=0)


def test_bad_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        PinnerFormerConfig(hidden=10, heads=4)
    off = TokenFeatures(pin=False, action=False, surface=False, duration=False, time=False)
    with pytest.raises(ValueError, match="at least one"):
        network(CONFIG.model_copy(update={"features": off}))
