import numpy as np

from training.pinsage.pairs import Pairs, consecutive_pairs


def pairs_of(rows: list[tuple[int, int, int, int]], **options) -> list[tuple[int, int, int]]:
    users, pins, times, events = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    got = consecutive_pairs(users, pins, times, events, **options)
    return list(zip(got.queries.tolist(), got.positives.tolist(), got.times_ms.tolist(), strict=True))


def test_consecutive_pins_of_one_user_by_time() -> None:
    rows = [(1, 30, 300, 3), (2, 40, 150, 4), (1, 10, 100, 1), (1, 20, 200, 2), (2, 50, 400, 5)]
    assert pairs_of(rows) == [(10, 20, 200), (20, 30, 300), (40, 50, 400)]


def test_several_actions_in_a_row_on_one_pin_are_one_engagement() -> None:
    rows = [(1, 10, 100, 1), (1, 10, 110, 2), (1, 20, 120, 3), (1, 20, 130, 4), (1, 10, 140, 5)]
    assert pairs_of(rows) == [(10, 20, 120), (20, 10, 140)]


def test_ties_of_time_go_by_event() -> None:
    rows = [(1, 20, 100, 9), (1, 10, 100, 4)]
    assert pairs_of(rows) == [(10, 20, 100)]


def test_gaps_and_unknown_pins() -> None:
    rows = [(1, 10, 0, 1), (1, -1, 10, 2), (1, 20, 20, 3), (1, 30, 5_000, 4)]
    assert pairs_of(rows) == [(10, 20, 20), (20, 30, 5_000)]
    assert pairs_of(rows, max_gap_ms=1_000) == [(10, 20, 20)]
    assert pairs_of([(1, 10, 0, 1)]) == []
    assert pairs_of([(1, -1, 0, 1), (1, -1, 1, 2)]) == []


def test_split_by_time() -> None:
    pairs = Pairs(np.array([1, 2]), np.array([3, 4]), np.array([10, 20]))
    early, late = pairs.split(20)
    assert early.queries.tolist() == [1] and late.queries.tolist() == [2]


def test_a_sample_keeps_the_order_of_time() -> None:
    pairs = Pairs(np.arange(100, dtype=np.int32), np.arange(100, 200, dtype=np.int32), np.arange(100))
    some = pairs.sample(10, seed=1)
    assert len(some) == 10 and (np.diff(some.times_ms) > 0).all()
    assert (some.positives - some.queries == 100).all()
    assert some.queries.tolist() == pairs.sample(10, seed=1).queries.tolist()
    assert pairs.sample(100, seed=1) is pairs
