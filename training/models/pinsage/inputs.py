"""What the network sees of a pin by itself: its content vector and the log of its degree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.models.pinsage.config import PinSageConfig

Floats = NDArray[np.float32]

_DEGREE_SCALE = 0.3
"""Brings log relative degrees (0 to about 8) to the range of a unit vector's elements."""


def input_width(config: PinSageConfig, content_dim: int) -> int:
    """Columns of `pin_inputs`."""
    return content_dim + int(config.degree)


def pin_inputs(
    content: Floats, degrees: NDArray[np.integer], config: PinSageConfig, mean_degree: float | None = None
) -> Floats:
    """Input rows of n pins, (n, content_dim [+ 1]) float32.

    `content` (n, content_dim), `degrees` (n,) boards that hold the pin, 0 for none. The input is
    log(1 + degree / mean degree), so that it means the same on a graph of a week and of a year; `mean_degree`
    is the whole graph's and is to be given where `content` is only a part of it. A content row with any
    number that is not finite counts as no content, a row of zeros. Raises ValueError where the two differ
    in length or a degree is negative.
    """
    if len(content) != len(degrees):
        raise ValueError(f"{len(content)} content rows and {len(degrees)} degrees; both are one a pin")
    if len(degrees) and degrees.min() < 0:
        raise ValueError("a degree is negative; it counts the boards that hold a pin")
    out = np.empty((len(content), input_width(config, content.shape[1])), np.float32)
    out[:, : content.shape[1]] = content
    out[~np.isfinite(content).all(axis=1), : content.shape[1]] = 0
    if config.degree:
        if mean_degree is None:
            mean_degree = float(degrees.mean()) if len(degrees) else 0.0
        out[:, -1] = _DEGREE_SCALE * np.log1p(degrees / mean_degree) if mean_degree > 0 else 0.0
    return out
