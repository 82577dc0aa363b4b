"""Fusion against its formula, and which weights the tuning days choose."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from training.evaluation.blending import chosen_weights, fused
from training.evaluation.retrieval import HeldOut

CUT = datetime(2026, 1, 3, tzinfo=UTC)


def held_out(pins: list[list[int]]) -> HeldOut:
    """User i + 1 has `pins[i]`."""
    counts = [len(of) for of in pins]
    flat = np.array([pin for of in pins for pin in of], np.int64)
    return HeldOut(
        cut=CUT,
        end=CUT + timedelta(days=1),
        users=np.arange(1, len(pins) + 1),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        pins=flat,
        tail=np.zeros(len(flat), bool),
        history=np.full(len(pins), 9),
    )


def naive(lists: list[np.ndarray], weights: list[float], k: int) -> list[list[int]]:
    out = []
    for of_user in zip(*lists, strict=True):
        scores: dict[int, float] = {}
        turns = list(dict.fromkeys(int(pin) for places in zip(*of_user, strict=True) for pin in places))
        for listed, weight in zip(of_user, weights, strict=True):
            for rank, pin in enumerate(listed.tolist(), start=1):
                if pin and weight:
                    scores[pin] = scores.get(pin, 0.0) + weight / (60 + rank)
        best = sorted(scores, key=lambda pin: (-np.float32(scores[pin]), turns.index(pin)))[:k]
        out.append(best + [0] * (k - len(best)))
    return out


def test_fusion_is_the_formula() -> None:
    rng = np.random.default_rng(3)
    lists = [np.stack([rng.permutation(np.arange(1, 40))[:12] for _ in range(6)]) for _ in range(3)]
    lists[1][2, 5:] = 0
    lists[2][4] = 0
    for weights in ([1.0, 1.0, 1.0], [0.5, 0.2, 0.3], [1.0, 0.0, 0.0]):
        for k in (1, 10, 40):
            assert fused(lists, np.array(weights), k).tolist() == naive(lists, weights, k)


def test_what_several_sources_name_comes_first() -> None:
    lists = [np.array([[1, 2, 3]]), np.array([[4, 3, 5]])]
    assert fused(lists, np.array([0.5, 0.5]), 5).tolist() == [[3, 1, 4, 2, 5]]
    with pytest.raises(ValueError, match="2 lists cannot be blended by 1 weights"):
        fused(lists, np.array([1.0]), 5)


def test_weights_follow_what_each_source_adds() -> None:
    """The first source finds users 1 and 2 at its top, the second finds user 3, the third what others have."""
    good, other, same = (np.arange(start, start + 60).reshape(3, 20) for start in (100, 200, 300))
    good[0, 0], good[1, 1], other[2, 0], same[0, 0] = 1, 2, 3, 1
    held = held_out([[1], [2], [3]])
    weights = chosen_weights([good, other, same], held, 4)
    assert weights[0] > 0 and weights[1] > 0 and weights[2] == 0 and weights.sum() == pytest.approx(1)
    found = fused([good, other, same], weights, 4)
    assert all(pin in row for pin, row in zip((1, 2, 3), found, strict=True))


def test_a_blend_is_never_chosen_worse_than_its_best_source() -> None:
    rng = np.random.default_rng(5)
    held = held_out([rng.choice(np.arange(1, 60), 5, replace=False).tolist() for _ in range(40)])
    lists = [np.stack([rng.permutation(np.arange(1, 60))[:30] for _ in range(40)]) for _ in range(4)]

    def found(listed: np.ndarray) -> int:
        return sum(np.isin(held.pins[held.owner == u], listed[u, :10]).sum() for u in range(40))

    best = max(found(listed) for listed in lists)
    assert found(fused(lists, chosen_weights(lists, held, 10), 10)) >= best


def test_a_users_pins_share_the_users_weight() -> None:
    """One pin of a user with one is worth as much as ten of a user with ten."""
    wide = np.zeros((2, 20), np.int64)
    wide[0, :4] = np.arange(1, 5)
    narrow = np.zeros((2, 20), np.int64)
    narrow[1, 0] = 50
    weights = chosen_weights([wide, narrow], held_out([list(range(1, 11)), [50]]), 20)
    assert weights.tolist() == [0.5, 0.5]  # a pin of ten, four times, and then the user of one


def test_nothing_found_gives_equal_weights() -> None:
    lists = [np.array([[1, 2]]), np.array([[3, 4]])]
    assert chosen_weights(lists, held_out([[9]]), 2).tolist() == [0.5, 0.5]
