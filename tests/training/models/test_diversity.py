"""The fast greedy against brute force over determinants, caps against their definition, and pages by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.models.diversity import DiversityConfig, diversify, standardised, unit_rows


def _gains(near, left, relevance, kernel, config) -> dict[int, float]:
    """Gain of every candidate left beside the pins near: log det with it, less log det without."""

    def log_det(pins: list[int]) -> float:
        return float(np.linalg.slogdet(kernel[np.ix_(pins, pins)])[1]) if pins else 0.0

    theta, before = config.theta, log_det(near)
    return {i: theta * relevance[i] + (1 - theta) * (log_det([*near, i]) - before) for i in left}


def _kernel(vectors, ridge: float) -> np.ndarray:
    rows = unit_rows(vectors).astype(np.float64)
    kernel = rows @ rows.T
    np.fill_diagonal(kernel, 1 + ridge)
    return kernel


def _allowed(left, near, config, groups) -> list[int]:
    """Those that no cap forbids, or all where it forbids all."""
    caps = (config.topic_cap, config.board_cap)
    fits = [
        i
        for i in left
        if all(
            cap == 0 or ids[i] == 0 or sum(ids[j] == ids[i] for j in near) < cap
            for cap, ids in zip(caps, groups, strict=True)
        )
    ]
    return fits or list(left)


def _near(chosen: list[int], window: int) -> list[int]:
    return chosen[max(0, len(chosen) - window + 1) :] if window > 1 else []


def brute_force(utility, vectors, limit, config, groups) -> list[int]:
    """The definition: at each place, the gain in log det over the window, tried for every candidate left."""
    relevance, kernel = standardised(utility), _kernel(vectors, config.ridge)
    chosen: list[int] = []
    while len(chosen) < min(limit, len(utility)):
        near = _near(chosen, config.window)
        left = [i for i in range(len(utility)) if i not in chosen]
        gains = _gains(near, left, relevance, kernel, config)
        chosen.append(max(_allowed(left, near, config, groups), key=lambda i: (round(gains[i], 9), -i)))
    return chosen


def _regret(page, utility, vectors, config, groups) -> float:
    """The most that any place of a page loses against the best choice for it."""
    relevance, kernel = standardised(utility), _kernel(vectors, config.ridge)
    worst = 0.0
    for place, pin in enumerate(page):
        near = _near(page[:place], config.window)
        left = [i for i in range(len(utility)) if i not in page[:place]]
        allowed = _allowed(left, near, config, groups)
        assert pin in allowed
        gains = _gains(near, left, relevance, kernel, config)
        worst = max(worst, max(gains[i] for i in allowed) - gains[pin])
    return worst


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 24),
    dim=st.integers(1, 12),
    limit=st.integers(1, 26),
    window=st.integers(1, 12),
    theta=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    caps=st.sampled_from([(0, 0), (1, 0), (2, 1), (0, 2)]),
)
def test_the_greedy_is_brute_forces(seed, n, dim, limit, window, theta, caps):
    rng = np.random.default_rng(seed)
    utility = rng.normal(size=n).astype(np.float32)
    vectors = (rng.normal(size=(n, dim)) + 0.5).astype(np.float32)
    vectors[rng.random(n) < 0.1] = 0
    groups = rng.integers(0, 4, (2, n))
    config = DiversityConfig(theta=theta, window=window, topic_cap=caps[0], board_cap=caps[1])
    got = diversify(utility, vectors, limit, config, topics=groups[0], boards=groups[1])
    expected = brute_force(utility, vectors, limit, config, groups)
    if theta > 0:
        assert got.tolist() == expected
    else:  # pure variety is full of ties, the first place is one for everyone: any of the best will do
        assert sorted(got.tolist()) == sorted(set(got.tolist())) and len(got) == len(expected)
        assert _regret(got.tolist(), utility, vectors, config, groups) < 1e-4


def test_the_factor_stays_right_along_a_long_page():
    """Three hundred places of a window of eight: the factor's rotations add up no error."""
    rng = np.random.default_rng(5)
    utility = rng.normal(size=300).astype(np.float32)
    vectors = rng.normal(size=(300, 6)).astype(np.float32)
    config = DiversityConfig(theta=0.5, window=8, topic_cap=0, board_cap=0)
    none = np.zeros((2, 300), int)
    assert diversify(utility, vectors, 300, config).tolist() == brute_force(utility, vectors, 300, config, none)


def test_relevance_alone_sorts():
    utility = np.array([0.1, 0.9, 0.5, 0.9], np.float32)
    config = DiversityConfig(theta=1.0, topic_cap=0, board_cap=0)
    assert diversify(utility, np.ones((4, 2), np.float32), 3, config).tolist() == [1, 3, 2]


def test_a_repeat_waits_for_something_new():
    """Three pins alike and one unlike: the unlike one comes second, though it is the least useful."""
    vectors = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    utility = np.array([1.0, 0.99, 0.98, 0.6], np.float32)
    config = DiversityConfig(theta=0.5, topic_cap=0, board_cap=0)
    assert diversify(utility, vectors, 4, config).tolist() == [0, 3, 1, 2]
    assert diversify(utility, vectors, 4, config.model_copy(update={"window": 1})).tolist() == [0, 1, 2, 3]


def test_all_neighbours_count_together():
    """A pin half like each of two is nearly spanned by both; a rule of the nearest alone would take it."""
    vectors = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0.8, 0, 0.6]], np.float32)
    utility = np.array([3.0, 2.9, 1.0, 1.0], np.float32)
    config = DiversityConfig(theta=0.5, topic_cap=0, board_cap=0)
    nearest = unit_rows(vectors)[2:] @ unit_rows(vectors)[:2].T
    assert nearest[0].max() < nearest[1].max()
    assert diversify(utility, vectors, 3, config).tolist() == [0, 1, 3]


def test_caps_hold_over_every_window_and_give_way_last():
    rng = np.random.default_rng(0)
    n = 200
    topics = rng.integers(0, 5, n)
    boards = rng.integers(0, 9, n)
    config = DiversityConfig(theta=0.9, window=6, topic_cap=2, board_cap=1)
    utility = rng.normal(size=n).astype(np.float32)
    page = diversify(
        utility, rng.normal(size=(n, 8)).astype(np.float32), 50, config, topics=topics, boards=boards
    )
    for ids, cap in ((topics[page], 2), (boards[page], 1)):
        for start in range(len(page) - 5):
            window = ids[start : start + 6]
            counts = np.bincount(window[window > 0], minlength=1)
            assert counts.max(initial=0) <= cap
    one_topic = diversify(utility, np.ones((n, 2), np.float32), 10, config, topics=np.full(n, 7))
    assert len(set(one_topic.tolist())) == 10


def test_the_unit_of_utility_does_not_matter():
    rng = np.random.default_rng(2)
    utility, vectors = rng.random(40).astype(np.float32), rng.normal(size=(40, 5)).astype(np.float32)
    page = diversify(utility, vectors, 12)
    np.testing.assert_array_equal(diversify(utility * 0.001 - 5, vectors * 9, 12), page)


@pytest.mark.parametrize("n", [0, 1])
def test_few_candidates(n: int):
    page = diversify(np.ones(n, np.float32), np.ones((n, 3), np.float32), 25)
    assert page.tolist() == list(range(n)) and page.dtype == np.int64
    assert len(diversify(np.ones(3, np.float32), np.ones((3, 3), np.float32), 0)) == 0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"utility": np.array([1, np.nan, 0], np.float32)}, "utility of 1 values"),
        ({"vectors": np.full((3, 2), np.inf, np.float32)}, "vectors of 6 values"),
        ({"vectors": np.ones((2, 2), np.float32)}, "vectors are"),
        ({"topics": np.ones(2, int)}, "topics are"),
        ({"boards": np.ones(5, int)}, "boards are"),
    ],
)
def test_bad_input_is_named(change: dict, match: str):
    given = {"utility": np.ones(3, np.float32), "vectors": np.ones((3, 2), np.float32), "limit": 2}
    with pytest.raises(ValueError, match=match):
        diversify(**(given | change))
