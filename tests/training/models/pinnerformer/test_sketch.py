"""Count-min: never too low, and rarely too high by more than its bound."""

from __future__ import annotations

import math

import numpy as np
import torch

from training.models.pinnerformer.sketch import CountMinSketch


def test_estimates_keep_the_bound() -> None:
    rng = np.random.default_rng(1)
    pins = torch.from_numpy(rng.zipf(1.3, 50_000) % 20_000)
    sketch = CountMinSketch(width=512, depth=5, seed=3)
    for part in pins.split(7_000):
        sketch.add(part)
    true = torch.bincount(pins, minlength=20_000)
    every = torch.arange(20_000)
    excess = sketch.estimate(every) - true
    assert sketch.total == 50_000
    assert int(excess.min()) >= 0
    beyond = (excess > math.e / 512 * 50_000).double().mean()
    assert beyond <= math.exp(-5)


def test_a_wide_sketch_counts_exactly() -> None:
    sketch = CountMinSketch(width=65_536, depth=4)
    sketch.add(torch.tensor([5, 5, 9, 5]))
    assert sketch.estimate(torch.tensor([5, 9, 7])).tolist() == [3, 1, 0]


def test_its_counters_travel_with_the_state() -> None:
    sketch, other = CountMinSketch(64, 3, seed=5), CountMinSketch(64, 3, seed=5)
    sketch.add(torch.arange(100))
    other.load_state_dict(sketch.state_dict())
    assert torch.equal(other.estimate(torch.arange(100)), sketch.estimate(torch.arange(100)))
