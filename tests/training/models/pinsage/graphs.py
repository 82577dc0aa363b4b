"""Small random neighbourhoods for the tests of PinSage."""

import numpy as np

from training.models.pinsage import Neighbourhoods, PinSageConfig, Pooling
from training.models.pinsage.inputs import pin_inputs
from training.models.pinsage.network import PinSage, seeded

CONTENT = 12


def random_neighbourhoods(pins: int, neighbours: int, seed: int = 0) -> Neighbourhoods:
    """Up to `neighbours` distinct neighbours a pin; every seventh pin has none, pin 1 is everybody's."""
    rng = np.random.default_rng(seed)
    ids = np.full((pins, neighbours), -1, np.int32)
    weights = np.zeros((pins, neighbours), np.float32)
    for pin in range(pins):
        if pin % 7 == 0:
            continue
        others = np.setdiff1d(np.arange(pins), [pin, 1])
        drawn = rng.choice(others, rng.integers(1, neighbours), replace=False)
        near = np.append(drawn, 1) if pin != 1 else drawn
        ids[pin, : len(near)] = near
        weights[pin, : len(near)] = np.sort(rng.random(len(near)) + 0.1)[::-1]
    return Neighbourhoods.from_padded(ids, weights)


def small_network(
    pooling: Pooling = Pooling.IMPORTANCE, layers: int = 2, length_power: float = 0.25
) -> PinSage:
    config = PinSageConfig(
        dim=8, hidden=16, neighbours=6, pooling=pooling, layers=layers, length_power=length_power
    )
    return seeded(config, CONTENT, 1).eval()


def random_inputs(pins: int, network: PinSage, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    content = rng.standard_normal((pins, CONTENT)).astype(np.float32)
    return pin_inputs(content, rng.integers(0, 20, pins), network.config, mean_degree=10.0)
