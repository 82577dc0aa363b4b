"""What is known of a pin's appeal as of a midnight: how often it was taken lately, and how old it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

PERFORMANCE_DAYS = (1, 7, 30)
PERFORMANCE = len(PERFORMANCE_DAYS) + 1
MS_PER_DAY = 86_400_000


def performance(counts: NDArray[np.integer], created_at_ms: Ints, now_ms: int) -> Floats:
    """What is known of n pins' appeal as of `now_ms`, (n, PERFORMANCE) float32.

    `counts` (n, 3): positive actions of the last `PERFORMANCE_DAYS` whole days; `created_at_ms` 0 for unknown.
    Logs of the counts and of the age in days, scaled to about the range of a unit vector's elements.
    """
    age = np.where(created_at_ms > 0, np.maximum(now_ms - created_at_ms, 0) / MS_PER_DAY, 3650.0)
    return np.column_stack([0.3 * np.log1p(counts), 0.15 * np.log1p(np.minimum(age, 3650.0))]).astype(
        np.float32
    )
