"""Serving says what the training forward says: any history, any number of candidates, any configuration."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.models.transact.batches import (
    ACTIONS,
    CONFIG,
    HOUR,
    LENGTH,
    NOW,
    SPEC,
    WIDTH,
    config,
    network,
)
from training.models.ranker import Candidates, Request
from training.models.transact import Fusion, Output, TransAct, TransActConfig, bfloat16, float32, serving
from training.models.transact.network import seeded
from training.models.transact.serving import DRIFT, Scorer, as_rows, drift, fitting_scorer
from training.transact.starting import AttentionStart, compare


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    x = rng.standard_normal((n, WIDTH))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def request(length: int, seed: int = 0, padded: int = 0) -> Request:
    """`length` actions, `padded` places of padding behind them."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(1, ACTIONS + 2, length)  # unknown kinds among them
    history = unit(rng, length)
    history[2::5] = 0  # pins without a vector
    times = NOW - HOUR * np.arange(1, length + 1)
    user = rng.standard_normal(3).astype(np.float32)
    blank = np.zeros(padded, np.int64)
    return Request(
        history=np.concatenate([history, unit(rng, padded)]),
        actions=np.concatenate([codes, blank]),
        surfaces=np.concatenate([rng.integers(0, 3, length), blank]),
        times_ms=np.concatenate([times, blank]),
        request_ms=NOW,
        user=user,
    )


def candidates(count: int, seed: int = 1) -> Candidates:
    rng = np.random.default_rng(seed)
    features = (rng.standard_normal((count, len(SPEC.names))) * 30).astype(np.float32)
    features[::3, 1] = np.nan
    return Candidates(unit(rng, count), features)


def trained(net: TransAct, asked: Request, given: Candidates) -> np.ndarray:
    """The training forward: the user repeated, every column of every layer, without hidden hours or dropout."""
    quiet = net.config.sequence.model_copy(update={"dropout": 0.0, "mask_hours": 0.0})
    made = TransAct(net.config.model_copy(update={"sequence": quiet}), WIDTH)
    made.load_state_dict(net.state_dict())
    return made.train()(as_rows(asked, given)).detach().sigmoid().numpy()


def test_actions_beyond_the_networks_length_change_nothing() -> None:
    asked, given = request(3 * LENGTH), candidates(5)
    at = slice(0, LENGTH)
    cut = replace(
        asked,
        history=asked.history[at],
        actions=asked.actions[at],
        surfaces=asked.surfaces[at],
        times_ms=asked.times_ms[at],
    )
    for net in (network(), network(config(fusion=Fusion.APPEND))):
        np.testing.assert_allclose(Scorer(net).score(asked, given), trained(net, cut, given), atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, LENGTH])
@pytest.mark.parametrize("count", [1, 2, 1000])
def test_parity_with_training(length: int, count: int) -> None:
    net, asked, given = network(), request(length), candidates(count)
    made = Scorer(net).score(asked, given)
    assert made.shape == (count, 2) and made.dtype == np.float32
    np.testing.assert_allclose(made, trained(net, asked, given), atol=1e-5)


def test_parity_at_the_papers_size() -> None:
    made = TransActConfig(spec=SPEC, heads=CONFIG.heads, user_dim=3)
    net = seeded(made, WIDTH, 0).eval()
    for length in (100, 37):
        asked, given = request(length), candidates(70)
        np.testing.assert_allclose(Scorer(net).score(asked, given), trained(net, asked, given), atol=1e-5)


@pytest.mark.parametrize("output", list(Output))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"layers": 1},
        {"layers": 3},
        {"surface_dim": 4, "positions": True},
        {"tokens": "add", "surface_dim": 1},
        {"heads": 2},
        {"causal": True},
        {"candidate_token": True},
        {"candidate_token": True, "layers": 1, "positions": True},
        {"fusion": Fusion.APPEND},
        {"fusion": Fusion.AVERAGE},
        {"fusion": Fusion.NONE},
    ],
    ids=str,
)
def test_parity_of_every_configuration(output: Output, settings: dict) -> None:
    net = network(config(output=output, **settings))
    for length in (0, 2, 9):
        asked, given = request(length), candidates(40)
        np.testing.assert_allclose(Scorer(net).score(asked, given), trained(net, asked, given), atol=1e-5)


@pytest.mark.parametrize("output", [Output.RANDOM_K, Output.ALL_MAX])
@pytest.mark.parametrize("layers", [1, 2])
def test_kernels_keep_to_their_scratch_where_more_tokens_are_asked_for_than_there_are(
    output: Output, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, torch.Tensor]] = []

    def guarded(*shape: int) -> np.ndarray:
        size = math.prod(shape)
        made.append((size, torch.zeros(size + 1024)))
        return made[-1][1][:size].view(shape).numpy()

    monkeypatch.setattr(float32, "_zeros", guarded)
    net = network(config(output=output, layers=layers, k=LENGTH))
    for length in (1, 5):
        asked, given = request(length), candidates(3)
        np.testing.assert_allclose(Scorer(net).score(asked, given), trained(net, asked, given), atol=1e-5)
    assert made and not any(whole[size:].any() for size, whole in made)


@pytest.mark.parametrize("layers", [1, 3])
def test_parity_of_shifts_far_from_nothing(layers: int) -> None:
    """What norms add to every number of a token alike is in no residual, and queries and values know it."""
    net = network(config(layers=layers))
    with torch.no_grad():
        for layer in net.sequence.layers:
            layer.norm1.bias += 3
            layer.norm2.bias -= 5
    for length in (1, LENGTH):
        asked, given = request(length), candidates(40)
        np.testing.assert_allclose(Scorer(net).score(asked, given), trained(net, asked, given), atol=1e-5)


@pytest.mark.parametrize("candidate_token", [True, False])
def test_parity_of_attention_as_it_begins(candidate_token: bool) -> None:
    net = network(config(candidate_token=candidate_token))
    compare(net, unit(np.random.default_rng(2), 200), AttentionStart())
    for length in (0, 1, LENGTH):
        asked, given = request(length), candidates(40)
        np.testing.assert_allclose(Scorer(net).score(asked, given), trained(net, asked, given), atol=1e-5)


def test_parity_of_pieces() -> None:
    net = network(CONFIG.model_copy(update={"wide": True, "pieces": 3}))
    asked, given = request(LENGTH), candidates(40)
    np.testing.assert_allclose(Scorer(net).score(asked, given), trained(net, asked, given), atol=1e-5)


def test_padding_and_later_actions_change_nothing() -> None:
    net, given = Scorer(network()), candidates(5)
    asked = request(4, padded=6)
    clean = replace(asked, **{n: getattr(asked, n)[:4] for n in ("history", "actions", "surfaces", "times_ms")})
    np.testing.assert_allclose(net.score(asked, given), net.score(clean, given), atol=1e-6)
    future = replace(clean, times_ms=clean.times_ms + np.array([2 * HOUR, 0, 0, 0]))
    without = replace(
        clean, **{n: getattr(clean, n)[1:] for n in ("history", "actions", "surfaces", "times_ms")}
    )
    np.testing.assert_allclose(net.score(future, given), net.score(without, given), atol=1e-6)


@pytest.mark.parametrize("size", [1, 1000, 5000, 10_000_000])
def test_chunks_change_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, asked, given = Scorer(network(), torch.bfloat16), request(7), candidates(33)
    wanted = net.score(asked, given)
    monkeypatch.setattr(bfloat16, "CHUNK_BYTES", size)
    np.testing.assert_allclose(net.score(asked, given), wanted, atol=1e-2)


def far_apart(**settings: object) -> TransAct:
    """A network with queries and keys so large that E and w_c share no place above 1e-38."""
    net = network(config(**settings))
    with torch.no_grad():
        net.sequence.layers[0].qkv.weight[:24] *= 12
        net.project.weight *= 2
    return net


@pytest.mark.parametrize("output", [Output.FIRST_K_MAX, Output.FIRST_K])
@pytest.mark.parametrize("layers", [1, 2])
def test_scores_far_apart(output: Output, layers: int) -> None:
    net = far_apart(output=output, layers=layers)
    asked, given = request(LENGTH), candidates(60)
    np.testing.assert_allclose(Scorer(net).score(asked, given), trained(net, asked, given), atol=1e-4)


@pytest.mark.parametrize("layers", [1, 2])
def test_weights_that_vanish_in_float32_fall_back(layers: int) -> None:
    net = far_apart(layers=layers)
    asked, given = request(LENGTH), candidates(60)
    scorer = Scorer(net, torch.bfloat16)
    with torch.inference_mode():
        user = scorer.encoder.user(scorer._tokens(asked)).part
        pins = torch.nn.functional.pad(net.pins(torch.from_numpy(given.content)), (8, 0))
        lift = pins @ user.keys.t()
        weights = (lift - lift.amax(dim=1, keepdim=True)).exp()
        assert float((user.exponentials.float() @ weights.t()).min()) < bfloat16.LEAST_TOTAL
    np.testing.assert_allclose(scorer.score(asked, given), trained(net, asked, given), atol=0.1)


def test_bad_input_is_named() -> None:
    net, asked, given = Scorer(network()), request(3), candidates(4)
    assert net.score(asked, Candidates(given.content[:0], given.features[:0])).shape == (0, 2)
    broken = given.content.copy()
    broken[2, 0] = np.nan
    with pytest.raises(ValueError, match="candidates hold numbers that are not finite"):
        net.score(asked, Candidates(broken, given.features))
    with pytest.raises(ValueError, match="surfaces has 2 of 3"):
        net.score(replace(asked, surfaces=asked.surfaces[:2]), given)
    with pytest.raises(ValueError, match="3 rows of features for 4"):
        net.score(asked, Candidates(given.content, given.features[:3]))
    with pytest.raises(ValueError, match="action code -3"):
        net.score(replace(asked, actions=np.array([1, -3, 2])), given)


def test_bfloat16_drifts_little_and_is_taken_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    probes = [(request(n, seed=n), candidates(50, seed=n)) for n in (0, 1, 5, LENGTH)]
    exact, lower = Scorer(net), Scorer(net, torch.bfloat16)
    gap = drift(exact, lower, probes)
    assert 0 < gap <= DRIFT
    for native, wanted in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(serving, "native_bfloat16", lambda native=native: native)
        assert fitting_scorer(net, probes).dtype == wanted
        assert fitting_scorer(net, []).dtype == torch.float32
    monkeypatch.setattr(serving, "native_bfloat16", lambda: True)
    with torch.no_grad():
        net.heads[0][-1].weight *= 1000
    assert fitting_scorer(net, probes).dtype == torch.float32


def test_threads_share_a_scorer() -> None:
    net = Scorer(network())
    asked = [(request(n % LENGTH, seed=n), candidates(20 + n, seed=n)) for n in range(16)]
    wanted = [net.score(*one) for one in asked]
    with ThreadPoolExecutor(4) as pool:
        for made, right in zip(pool.map(lambda one: net.score(*one), asked), wanted, strict=True):
            np.testing.assert_array_equal(made, right)


def test_the_network_may_train_on_while_it_is_served() -> None:
    net, asked, given = network(), request(5), candidates(6)
    scorer = Scorer(net)
    before = scorer.score(asked, given)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.5)
    np.testing.assert_array_equal(scorer.score(asked, given), before)
