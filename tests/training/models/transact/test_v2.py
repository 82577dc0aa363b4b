"""TransAct V2: the next-action loss against an exact softmax, lifelong selection against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.training.models.transact.batches import CONFIG, HEADS, PINS, SPEC, changed, config, network, rows
from training.models.transact import Lifelong, NextAction, Rows, TransActConfig
from training.models.transact.lifelong import LARGEST, nearest, quantise, restore, select
from training.models.transact.network import TransAct, seeded
from training.models.transact.serving import Scorer

POSITIVES = (1, 2, 3)


def next_action(recent: int = 8, negatives: int = 6) -> TransAct:
    settings = NextAction(positives=POSITIVES, recent=recent, negatives=negatives)
    causal = config(causal=True).sequence
    return network(CONFIG.model_copy(update={"sequence": causal, "next_action": settings}))


def with_negatives(lengths: list[int], seed: int = 0) -> Rows:
    given = rows(lengths, seed)
    drawn = torch.randint(0, PINS, (len(lengths), 6), generator=torch.Generator().manual_seed(seed))
    return changed(given, negatives=drawn)


def test_the_next_action_loss_is_the_softmax_of_a_loop() -> None:
    net, given = next_action(), with_negatives([0, 1, 2, 7, 12])
    with torch.no_grad():
        _, encoded, pins = net.answer(given)
        made = net.next_action_loss(given, encoded, pins)
        losses = []
        for b, n in enumerate([0, 1, 2, 7, 12]):
            for older in range(1, min(n, 8)):
                newer = older - 1
                answer = int(given.pins[b, newer])
                if int(given.actions[b, newer]) not in POSITIVES or answer == 0:
                    continue
                u = net.next_action.query(encoded.columns[b, older])
                others = [int(p) for p in given.negatives[b] if int(p) not in (0, answer)]
                scores = [float(u @ pins[p]) for p in (answer, *others)]
                losses.append(-math.log(math.exp(scores[0]) / sum(math.exp(s) for s in scores)))
    assert len(losses) > 5
    assert float(made) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_all_pins_as_negatives_make_it_the_exact_softmax() -> None:
    net, given = next_action(negatives=PINS), rows([5])
    given = changed(given, negatives=torch.arange(1, PINS)[None])
    with torch.no_grad():
        _, encoded, pins = net.answer(given)
        logits = net.next_action(encoded.columns)[0, 1:5] @ pins[1:].t()
        answers, codes = given.pins[0, :4], given.actions[0, :4]
        kept = torch.isin(codes, torch.tensor(POSITIVES)) & (answers > 0)
        wanted = torch.nn.functional.cross_entropy(logits[kept], answers[kept] - 1)
        torch.testing.assert_close(net.next_action_loss(given, encoded, pins), wanted)


def test_ranks_say_which_tokens_follow_each_other() -> None:
    """Tokens of another source between two realtime ones change nothing about the pair."""
    net, given = next_action(), with_negatives([3])
    given.actions[0, :3] = 1
    given = changed(given, recent=torch.tensor([[1, 0, 2] + [0] * 9]))
    with torch.no_grad():
        _, encoded, pins = net.answer(given)
        u = net.next_action.query(encoded.columns[0, 2])
        answer = int(given.pins[0, 0])
        others = [int(p) for p in given.negatives[0] if int(p) not in (0, answer)]
        scores = torch.stack([u @ pins[p] for p in (answer, *others)])
        torch.testing.assert_close(net.next_action_loss(given, encoded, pins), scores.logsumexp(0) - scores[0])


def test_nothing_to_compare_costs_nothing() -> None:
    net = next_action()
    for given in (with_negatives([0, 1]), changed(rows([9]), negatives=torch.zeros(1, 3, dtype=torch.int64))):
        _, encoded, pins = net.answer(given)
        loss = net.next_action_loss(given, encoded, pins)
        loss.backward()
        assert loss.item() == 0.0
    with pytest.raises(ValueError, match="give the rows negatives"):
        _, encoded, pins = net.answer(rows([4]))
        net.next_action_loss(rows([4]), encoded, pins)
    with pytest.raises(ValueError, match="no next-action loss"):
        _, encoded, pins = network().answer(rows([4]))
        network().next_action_loss(rows([4]), encoded, pins)


def test_vectors_survive_one_byte_a_number() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = quantise(vectors)
    assert stored.dtype == np.int8 and stored.nbytes * 4 == vectors.nbytes
    assert np.abs(restore(stored) - vectors.clip(-LARGEST, LARGEST)).max() <= LARGEST / 254 + 1e-6
    extremes = np.array([[0.65, -0.65, 9.0, -9.0, 0.0, np.nan, 0.65 / 127, 0.65 / 255]], np.float32)
    assert quantise(extremes).tolist() == [[127, -127, 127, -127, 0, 0, 1, 0]]


@pytest.mark.parametrize(("n", "k"), [(0, 3), (1, 3), (50, 7), (50, 50), (50, 80), (50, 0)])
def test_the_nearest_are_those_of_brute_force(n: int, k: int) -> None:
    rng = np.random.default_rng(n + k)
    stored = rng.integers(-2, 3, (n, 4)).astype(np.int8)  # few values: many ties
    candidates = rng.integers(-127, 128, (6, 4)).astype(np.int8)
    made = nearest(stored, candidates, k)
    assert made.shape == (6, min(n, k))
    for c in range(6):
        dots = [sum(int(a) * int(b) for a, b in zip(row, candidates[c], strict=True)) for row in stored]
        assert made[c].tolist() == sorted(range(n), key=lambda i: (-dots[i], i))[:k]


@pytest.mark.parametrize(("n", "m"), [(0, 0), (3, 0), (0, 5), (20, 4), (300, 60)])
def test_selection_is_what_it_says(n: int, m: int) -> None:
    settings = Lifelong(
        length=200, realtime=30, recent=5, nearest_realtime=4, nearest_lifelong=8, nearest_impressions=3
    )
    rng = np.random.default_rng(n + m)
    stored, shown = (quantise(rng.standard_normal((x, 8)).astype(np.float32) * 0.3) for x in (n, m))
    times, shown_ms = (np.sort(rng.integers(1, 200, x))[::-1].copy() for x in (n, m))
    candidates = quantise(rng.standard_normal((5, 8)).astype(np.float32) * 0.3)
    places, ranks = select(settings, stored, times, shown, shown_ms, candidates)
    assert places.shape == ranks.shape == (5, settings.tokens)
    every = np.concatenate([times, shown_ms])
    for c in range(5):
        dots = stored.astype(int) @ candidates[c].astype(int)
        seen = shown.astype(int) @ candidates[c].astype(int)

        def top(group: range, scores: np.ndarray, k: int) -> list[int]:
            return sorted(group, key=lambda i: (-scores[i], i))[:k]

        wanted = {
            *range(min(5, n)),
            *top(range(5, min(30, n)), dots, 4),
            *top(range(30, min(200, n)), dots, 8),
            *(n + j for j in top(range(m), seen, 3)),
        }
        chosen = places[c][places[c] >= 0]
        assert set(chosen.tolist()) == wanted and len(chosen) == len(wanted)
        assert (np.diff(every[chosen]) <= 0).all()  # newest first
        assert (places[c][len(chosen) :] == -1).all()
        for place, rank in zip(places[c], ranks[c], strict=True):
            assert rank == (place + 1 if 0 <= place < min(5, n) else 0)


def test_v2_is_a_configuration_of_the_same_ranker() -> None:
    lifelong = Lifelong(
        realtime=6, recent=4, nearest_realtime=2, nearest_lifelong=4, nearest_impressions=2, length=50
    )
    made = TransActConfig.v2(HEADS, POSITIVES, lifelong=lifelong, spec=SPEC, user_dim=3)
    net = seeded(made, 6, 0)
    given = with_negatives([0, 5, 12])
    logits, encoded, pins = net.answer(given)
    assert logits.shape == (3, 2)
    (logits.sum() + net.next_action_loss(given, encoded, pins)).backward()
    unused = [n for n, p in net.named_parameters() if p.grad is None]
    assert unused == []
    with pytest.raises(ValueError, match="serve it by LifelongScorer"):
        Scorer(net)
