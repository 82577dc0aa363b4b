"""Users with made-up histories, for every test of the network."""

from __future__ import annotations

import numpy as np

from training.models.pinnerformer import ActionArrays, PinnerFormerConfig

PINS, WIDTH = 60, 12
HOUR = 3_600_000
CONFIG = PinnerFormerConfig(dim=8, hidden=16, layers=2, heads=2, length=12)


def content(seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((PINS, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def histories(lengths: list[int], seed: int = 0) -> tuple[ActionArrays, np.ndarray, np.ndarray]:
    """Action arrays, starts and ends of users with that many actions each, about three hours apart."""
    rng = np.random.default_rng(seed)
    count = sum(lengths)
    gaps = rng.integers(1, 6 * HOUR, count)
    arrays = ActionArrays(
        rng.integers(0, PINS, count).astype(np.int32),
        rng.integers(1, 6, count).astype(np.int8),
        rng.integers(0, 4, count).astype(np.int8),
        rng.exponential(10, count).astype(np.float32),
        1_760_000_000_000 + np.cumsum(gaps),
    )
    ends = np.cumsum(lengths).astype(np.int64)
    return arrays, ends - lengths, ends
