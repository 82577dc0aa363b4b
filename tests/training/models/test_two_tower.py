"""Two towers: unit vectors, performance as of a time, the scorer is the product, save and load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from training.models.interests import PinFeatures, history
from training.models.pin_performance import PERFORMANCE, performance
from training.models.two_tower import (
    TwoTower,
    TwoTowerConfig,
    pin_vectors,
    score,
    seeded,
    user_vectors,
)

CONFIG = TwoTowerConfig(dim=8, hidden=16)


def pins(rows: int = 12) -> tuple[PinFeatures, np.ndarray]:
    rng = np.random.default_rng(0)
    features = PinFeatures(rng.standard_normal((rows, 6)).astype(np.float32), rng.integers(0, 3, (rows, 2)))
    return features, performance(rng.integers(0, 9, (rows, 3)), np.zeros(rows, np.int64), 10)


def test_performance_is_logs_of_counts_and_age() -> None:
    day = 86_400_000
    found = performance(np.array([[0, 1, 7], [0, 0, 0]]), np.array([9 * day, 0]), 10 * day)
    assert found.shape == (2, PERFORMANCE) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], [0, 0.3 * np.log(2), 0.3 * np.log(8), 0.15 * np.log(2)], rtol=1e-6)
    assert found[1, 3] > 1  # unknown creation: old
    assert performance(np.zeros((1, 3), int), np.array([11 * day]), 10 * day)[0, 3] == 0  # a clock ahead


def test_both_sides_are_unit_rows_and_the_score_is_their_product() -> None:
    network = seeded(CONFIG, 6, (4, 9), seed=1).eval()
    vectors = pin_vectors(network, *pins(), rows=5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    seen = history(np.ones((3, 6), np.float32), np.array([1, 1, -1]), np.array([30, 20, 10]), 100, length=9)
    user = user_vectors(network, seen)[0]
    np.testing.assert_allclose(score(user, vectors), [float(user @ v) for v in vectors], rtol=1e-5)


def test_users_without_actions_have_a_vector() -> None:
    network = seeded(CONFIG, 6, (), seed=1).eval()
    empty = history(np.empty((0, 6), np.float32), np.empty(0), np.empty(0, np.int64), 100, length=9)
    assert np.isfinite(user_vectors(network, empty)).all()


@pytest.mark.parametrize("actions", [0, 1, 25])
def test_a_served_tower_says_what_a_trained_one_says(actions: int) -> None:
    rng = np.random.default_rng(actions)
    made = seeded(TwoTowerConfig(), 16, (), 0)
    vectors, signs = rng.normal(size=(actions, 16)).astype(np.float32), rng.integers(-1, 2, actions)
    times = np.sort(rng.integers(1, 10**10, actions))[::-1]
    seen = history(vectors, signs, times, 10**10, (3, 7), length=20)
    trained = user_vectors(made, seen)
    np.testing.assert_allclose(user_vectors(made.serving(), seen), trained, atol=1e-5)


def test_saved_and_loaded_is_equal(tmp_path: Path) -> None:
    network = seeded(CONFIG, 6, (4, 9), seed=1).eval()
    network.save(tmp_path)
    loaded = TwoTower.load(tmp_path)
    assert loaded.topics == (4, 9) and loaded.config == CONFIG
    np.testing.assert_array_equal(pin_vectors(loaded, *pins()), pin_vectors(network, *pins()))
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
