"""The sequence module against loops in plain words, and every trap of the published code, one test each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.models.transact.batches import (
    ACTIONS,
    HOUR,
    LENGTH,
    NOW,
    changed,
    config,
    network,
    rows,
)
from training.models.transact import Fusion, Output, Rows
from training.models.transact.network import TransAct
from training.models.transact.sequence import Encoded

LENGTHS = [0, 1, 2, 5, 12]


def encode(net: TransAct, given: Rows, generator: torch.Generator | None = None) -> Encoded:
    with torch.no_grad():
        pins = net.pins(given.content)
        return net.sequence(given, pins, pins[given.candidates], generator)


def flat(net: TransAct, given: Rows) -> Tensor:
    return encode(net, given).flat


def by_hand(net: TransAct, given: Rows, b: int) -> Tensor:
    """One row's output columns (n, d) of its n visible tokens: no batch, no padding, no mask."""
    module, n = net.sequence, int((given.actions[b] > 0).sum())
    pins = net.pins(given.content)
    tokens = []
    for t in range(n):
        parts = [module.action.weight[given.actions[b, t]], pins[given.pins[b, t]]]
        if module.config.fusion is Fusion.CONCAT:
            parts.append(pins[given.candidates[b]])
        tokens.append(torch.cat(parts))
    if module.config.leads:
        nothing = torch.zeros(module.config.width - module.config.pin_dim)
        tokens.insert(0, torch.cat([nothing, pins[given.candidates[b]]]) + module.lead)
    if not tokens:
        return torch.zeros(0, module.config.width)
    x = torch.stack(tokens)[None]
    for layer in module.layers:
        x = layer(x, torch.zeros(1, len(tokens), len(tokens)))
    return x[0]


@pytest.mark.parametrize(
    "fusion", [{}, {"candidate_token": True}, {"fusion": Fusion.APPEND}], ids=["early", "both", "append"]
)
@pytest.mark.parametrize("output", list(Output))
def test_every_output_form_is_what_it_says(fusion: dict, output: Output) -> None:
    net, given = network(config(output=output, **fusion)), rows(LENGTHS)
    made, width, places = flat(net, given), net.sequence.config.width, net.sequence.config.places
    assert made.shape == (5, net.sequence.config.out)
    with torch.no_grad():
        for b in range(5):
            x = by_hand(net, given, b)
            wanted, n = [], len(x)
            if output.pooled:
                most = x.amax(dim=0) if n else torch.zeros(width)
                wanted.append(net.sequence.pool(most))
            if output.random:
                picked = [x[int(s * n)] if n else torch.zeros(width) for s in net.sequence.shares]
                wanted += picked
            else:
                count = output.columns(3, places)
                wanted += [x[t] if t < n else torch.zeros(width) for t in range(count)]
            torch.testing.assert_close(made[b], torch.cat(wanted), atol=1e-5, rtol=1e-5)


def test_average_pooling_is_the_mean_of_what_is_there() -> None:
    net, given = network(config(fusion=Fusion.AVERAGE)), rows(LENGTHS)
    made = flat(net, given)
    for b, n in enumerate(LENGTHS):
        codes, places = given.actions[b, :n], given.pins[b, :n]
        tokens = torch.cat([net.sequence.action.weight[codes], net.pins(given.content)[places]], dim=1)
        wanted = tokens.mean(dim=0) if n else torch.zeros(net.sequence.config.width)
        torch.testing.assert_close(made[b], wanted.detach())
    assert flat(network(config(fusion=Fusion.NONE)), given).shape == (5, 0)


def test_trap_1_no_action_of_the_vocabulary_is_padding() -> None:
    """Every code from 1 is seen: the pin of each moves the other columns."""
    net = network()
    for code in range(1, ACTIONS + 1):
        given = rows([6])
        given.actions[0, 5] = code
        moved = changed(given, pins=given.pins.clone())
        moved.pins[0, 5] = (given.pins[0, 5] + 1) % 30 + 1
        gap = encode(net, given).columns[0, 0] - encode(net, moved).columns[0, 0]
        assert float(gap.abs().max()) > 1e-4, code


def test_trap_2_unknown_codes_are_seen_and_negative_ones_refused() -> None:
    net, given = network(), rows([6])
    given.actions[0, 0] = ACTIONS + 50
    strange = encode(net, given)
    assert int(strange.seen.lengths) == 6
    given.actions[0, 0] = ACTIONS + 1  # all unknown kinds are one
    torch.testing.assert_close(strange.flat, flat(net, given))
    given.actions[0, 0] = -1
    with pytest.raises(ValueError, match="action code -1"):
        flat(net, given)


def test_trap_3_padding_is_code_0_and_says_nothing() -> None:
    """Whatever stands behind the oldest action, the output is the same."""
    net, given = network(), rows(LENGTHS)
    pad = given.actions == 0
    noisy = changed(
        given,
        pins=torch.where(pad, 7, given.pins),
        surfaces=torch.where(pad, 2, given.surfaces),
        times_ms=torch.where(pad, NOW - 5, given.times_ms),
    )
    torch.testing.assert_close(flat(net, given), flat(net, noisy), atol=0, rtol=0)


def test_trap_4_the_newest_action_is_hidden_like_any_other() -> None:
    net, given = network().train(), rows([3], gap_h=0.01)  # all within the last 66 minutes
    generator = torch.Generator().manual_seed(1)
    lengths = [int(encode(net, given, generator).seen.lengths) for _ in range(200)]
    assert lengths.count(0) > 150  # T > 1.02 hours of 24
    assert 0 < lengths.count(3) < 30
    empty = rows([0])
    moved = changed(empty, pins=empty.pins + 5)
    torch.testing.assert_close(flat(network(), empty), flat(network(), moved))


def test_trap_5_each_example_draws_its_own_hours_from_the_generator() -> None:
    net, count = network().train(), 400
    given = rows([LENGTH] * count)  # 1, 4, 7, ... 34 hours old
    first = net.sequence.visible(given, torch.Generator().manual_seed(5)).lengths
    again = net.sequence.visible(given, torch.Generator().manual_seed(5)).lengths
    other = net.sequence.visible(given, torch.Generator().manual_seed(6)).lengths
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.manual_seed(9)
    from_global = net.sequence.visible(given).lengths
    torch.manual_seed(9)
    assert torch.equal(from_global, net.sequence.visible(given).lengths)
    # hidden actions: 0 with chance 1/24, then one more every three hours
    share = torch.bincount(LENGTH - first, minlength=9).double() / count
    wanted = [1 / 24] + [3 / 24] * 7 + [2 / 24]
    np.testing.assert_allclose(share[:9], wanted, atol=4 * (0.125 * 0.875 / count) ** 0.5)


def test_hidden_hours_are_those_a_loop_hides() -> None:
    net, given = network().train(), rows([LENGTH, 4, 1, 0, LENGTH], gap_h=1.7)
    seen = net.sequence.visible(given, torch.Generator().manual_seed(3))
    drawn = torch.rand(5, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 24
    for b in range(5):
        kept = []
        for t in range(LENGTH):
            age_h = (NOW - int(given.times_ms[b, t])) / HOUR
            if given.actions[b, t] > 0 and age_h >= float(drawn[b]):
                kept.append(t)
        assert int(seen.lengths[b]) == len(kept)
        assert seen.order[b, : len(kept)].tolist() == kept


def test_what_is_hidden_is_as_if_it_had_not_happened() -> None:
    """A training row's columns are those of the request that would have come T hours ago."""
    net, given = network(config(dropout=0.0)).train(), rows([LENGTH], gap_h=2.0)
    generator = torch.Generator().manual_seed(8)
    made = encode(net, given, generator)
    hidden = LENGTH - int(made.seen.lengths)
    assert 0 < hidden < LENGTH
    earlier = rows([LENGTH], gap_h=2.0)
    for name in ("pins", "actions", "surfaces", "times_ms"):
        values = getattr(earlier, name)
        values[0] = torch.cat([values[0, hidden:], torch.zeros(hidden, dtype=values.dtype)])
    torch.testing.assert_close(made.flat, flat(net.eval(), earlier), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("fusion", [Fusion.CONCAT, Fusion.APPEND, Fusion.AVERAGE])
@pytest.mark.parametrize("output", list(Output))
def test_trap_6_training_and_serving_compute_the_same(fusion: Fusion, output: Output) -> None:
    """No dropout, no hidden hours: train, eval, with autograd, without, in inference mode."""
    net, given = network(config(fusion=fusion, output=output, dropout=0.0, mask_hours=0.0)), rows(LENGTHS)
    trained = net.train()(given).detach()
    net.eval()
    with torch.no_grad():
        quiet = net(given)
    with torch.inference_mode():
        serving = net(given)
    for other in (net(given).detach(), quiet, serving.clone()):
        torch.testing.assert_close(trained, other, atol=0, rtol=0)


def test_trap_7_shapes_are_as_documented() -> None:
    given = rows(LENGTHS)
    assert given.request_ms.shape == (5,)
    made = encode(network(), given)
    assert made.flat.shape == (5, (3 + 1) * 12) and made.columns.shape == (5, LENGTH, 12)
    with pytest.raises(ValueError, match="reads 12"):
        flat(network(), rows([3], length=LENGTH + 1))


def test_trap_8_no_setting_flattens_everything_unasked() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        config(k=0)
    assert network(config(output=Output.MAX)).sequence.config.out == 12
    assert network(config(k=500)).sequence.config.out == 13 * 12  # no more columns than there are


def test_trap_9_actions_at_or_after_the_request_are_never_seen() -> None:
    net = network()
    given = rows([6])
    given.times_ms[0, 0], given.times_ms[0, 1], given.times_ms[0, 2] = NOW + 1, NOW, NOW - 1
    assert encode(net, given).seen.order[0, :4].tolist() == [2, 3, 4, 5]
    moved = changed(given, pins=given.pins.clone(), actions=given.actions.clone())
    moved.pins[0, :2], moved.actions[0, :2] = 9, 3
    torch.testing.assert_close(flat(net, given), flat(net, moved), atol=0, rtol=0)


def test_shorter_arrays_are_the_same_as_padded_ones() -> None:
    net, given = network(), rows([3, 0, 2])
    short = changed(given, **{n: getattr(given, n)[:, :3] for n in ("pins", "actions", "surfaces", "times_ms")})
    torch.testing.assert_close(flat(net, given), flat(net, short), atol=0, rtol=0)
    none = changed(given, **{n: getattr(given, n)[:, :0] for n in ("pins", "actions", "surfaces", "times_ms")})
    torch.testing.assert_close(flat(net, rows([0, 0, 0])), flat(net, none), atol=0, rtol=0)


def test_a_causal_encoder_sees_older_tokens_only() -> None:
    net = network(config(causal=True, output=Output.ALL))
    given = rows([8])
    before = encode(net, given).columns[0]
    given.pins[0, 4] = (given.pins[0, 4] + 3) % 30 + 1
    after = encode(net, given).columns[0]
    differs = (before - after).abs().amax(dim=1) > 1e-6
    assert differs[:5].all() and not differs[5:].any()


def test_surfaces_and_places_count_where_they_are_switched_on() -> None:
    given = rows([8])
    other = changed(given, surfaces=given.surfaces + 1)
    for settings in ({"surface_dim": 4}, {"surface_dim": 1, "tokens": "add"}):
        net = network(config(**settings))
        assert not torch.allclose(flat(net, given), flat(net, other))
    assert torch.equal(flat(network(), given), flat(network(), other))
    turned = changed(given, pins=given.pins.clone(), actions=given.actions.clone())
    turned.pins[0, :8], turned.actions[0, :8] = given.pins[0, :8].flip(0), given.actions[0, :8].flip(0)
    for places, moves in ((False, False), (True, True)):
        net = network(config(output=Output.MAX, positions=places))
        assert torch.allclose(flat(net, given), flat(net, turned), atol=1e-5) is not moves
