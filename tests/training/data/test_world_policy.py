"""The written propensity is the true one: pages drawn many times over show each pin that often."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.world_config import LoggingPolicy
from training.data.world_pins import Pins
from training.data.world_policy import Requests, Shelves, draw_pages, mixture_chance

DAY_MS = 86_400_000
LEAVES, PINS = 4, 40
POLICY = LoggingPolicy(draws=6)


@pytest.fixture(scope="module")
def shelves() -> Shelves:
    rng = np.random.default_rng(1)
    created = np.where(np.arange(PINS) < 36, -rng.integers(1, 50, PINS) * DAY_MS, 2 * DAY_MS)
    pins = Pins(
        leaf=(np.arange(PINS) % LEAVES).astype(np.int16),
        second=np.full(PINS, -1, np.int16),
        mix=np.ones(PINS, np.float32),
        style=np.zeros(PINS, np.int8),
        quality=rng.standard_normal(PINS).astype(np.float32),
        created_ms=created.astype(np.int64),
        thing=np.zeros(PINS, np.int8),
    )
    shelves = Shelves(pins, LEAVES, start_ms=0)
    shelves.close(rng.integers(0, 36, 100))
    shelves.open(DAY_MS)
    return shelves


def _requests(n: int, *, believed: list[int], followed: list[int], query: int, seen: list[int]) -> Requests:
    def tile(values: list[int], width: int, dtype: type) -> np.ndarray:
        return np.tile(np.array(values + [-1] * (width - len(values)), dtype=dtype), (n, 1))

    return Requests(
        believed=tile(believed, 3, np.int16),
        followed=tile(followed, 3, np.int16),
        remembered=tile(seen, 4, np.int32),
        query_leaf=np.full(n, query, dtype=np.int16),
    )


CASES = {
    "all sources": {"believed": [0, 2], "followed": [1], "query": -1, "seen": []},
    "follows nothing": {"believed": [3], "followed": [], "query": -1, "seen": [3, 7]},
    "knows nothing": {"believed": [], "followed": [], "query": -1, "seen": []},
    "one topic believed and followed": {"believed": [1], "followed": [1, 2], "query": -1, "seen": [5]},
    "search": {"believed": [0], "followed": [1], "query": 2, "seen": [2]},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_propensity_is_the_frequency_of_being_shown(case: dict, shelves: Shelves) -> None:
    n = 20_000
    page = draw_pages(_requests(n, **case), shelves, POLICY, np.random.default_rng(3))
    shown = np.bincount(page.pin, minlength=PINS) / n
    chance = mixture_chance(_requests(PINS, **case), np.arange(PINS), np.arange(PINS), shelves, POLICY)
    expected = 1 - (1 - chance) ** POLICY.draws
    expected[36:] = 0  # not made yet
    expected[case["seen"]] = 0
    sigma = np.sqrt(expected * (1 - expected) / n) + 1e-12
    assert np.abs((shown - expected) / sigma)[expected > 0].max() < 4.5
    assert (shown[expected == 0] == 0).all()
    written = np.zeros(PINS)
    written[page.pin] = page.propensity
    np.testing.assert_allclose(written[expected > 0], expected[expected > 0], rtol=1e-12)


def test_one_draw_is_a_distribution(shelves: Shelves) -> None:
    for case in CASES.values():
        chance = mixture_chance(_requests(PINS, **case), np.arange(PINS), np.arange(PINS), shelves, POLICY)
        assert chance[:36].sum() == pytest.approx(1.0)


def test_popularity_fades_and_follows_the_answers(shelves: Shelves) -> None:
    before = shelves.score.copy()
    fresh = Shelves(shelves.pins, LEAVES, start_ms=0)
    fresh.score = before.copy()
    fresh.close(np.array([5, 5, 5]))
    assert fresh.score[5] == pytest.approx(before[5] * 0.5 ** (1 / 7) + 3)
    assert fresh.score[6] == pytest.approx(before[6] * 0.5 ** (1 / 7))
