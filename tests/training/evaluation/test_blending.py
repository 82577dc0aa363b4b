"""Blends by hand: whose turn it is, what is found twice, and which shares the tuning days choose."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from training.evaluation.blending import blended, chosen_shares, held_out_ranks
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


def test_equal_shares_are_round_robin() -> None:
    lists = [np.array([[1, 2, 3, 4]]), np.array([[5, 1, 6, 7]])]
    assert blended(lists, np.array([0.5, 0.5]), 5).tolist() == [[1, 5, 2, 3, 6]]


def test_every_beginning_of_the_list_holds_the_shares() -> None:
    lists = [np.arange(1, 101)[None], np.arange(101, 201)[None]]
    found = blended(lists, np.array([0.75, 0.25]), 80)
    for k in (4, 20, 40, 80):
        assert (found[0, :k] <= 100).sum() == 3 * k / 4


def test_others_fill_the_place_of_a_source_that_has_no_more() -> None:
    lists = [np.array([[1, 0, 0], [0, 0, 0]]), np.array([[2, 3, 4], [1, 1, 0]]), np.array([[9, 9, 9]] * 2)]
    found = blended(lists, np.array([0.8, 0.2, 0.0]), 4)
    assert found.tolist() == [[1, 2, 3, 4], [1, 0, 0, 0]]
    with pytest.raises(ValueError, match="3 lists cannot be blended by 2 shares"):
        blended(lists, np.array([0.5, 0.5]), 4)


def test_ranks_of_held_out_pins() -> None:
    listed = np.array([[4, 5, 6], [7, 0, 0]])
    assert held_out_ranks(listed, held_out([[6, 9], [7]])).tolist() == [2, np.inf, 0]


def test_shares_follow_what_each_source_adds() -> None:
    """The first source finds users 1 and 2 at its top, the second finds user 3, the third what others have."""
    good, other, same = (np.arange(start, start + 60).reshape(3, 20) for start in (100, 200, 300))
    good[0, 0], good[1, 1], other[2, 0], same[0, 0] = 1, 2, 3, 1
    held = held_out([[1], [2], [3]])
    shares = chosen_shares([good, other, same], held, 20)
    assert shares.tolist() == pytest.approx([2 / 3, 1 / 3, 0])  # what adds nothing is not paid for
    found = blended([good, other, same], shares, 20)
    assert all(pin in row for pin, row in zip((1, 2, 3), found, strict=True))


def test_a_users_pins_share_the_users_weight() -> None:
    """One pin of a user with one is worth as much as ten of a user with ten."""
    wide = np.zeros((2, 20), np.int64)
    wide[0, :9] = np.arange(1, 10)
    narrow = np.zeros((2, 20), np.int64)
    narrow[1, 0] = 50
    held = held_out([list(range(1, 11)), [50]])
    shares = chosen_shares([wide, narrow], held, 20)
    assert shares.tolist() == pytest.approx([0.9, 0.1])


def test_nothing_found_gives_equal_shares() -> None:
    lists = [np.array([[1, 2]]), np.array([[3, 4]])]
    assert chosen_shares(lists, held_out([[9]]), 2).tolist() == [0.5, 0.5]
