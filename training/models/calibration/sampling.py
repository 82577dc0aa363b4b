"""Thinned negatives: their effect on probabilities, and samples that are thinned evenly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_GOLDEN = 0x9E3779B97F4A7C15


def restore_rate(p: Floats, negative_rate: float) -> Floats:
    """Probabilities of the full population from those of one whose negatives were thinned to `negative_rate`.

    q = p / (p + (1 - p) / rate) (He et al. 2014, section 6.3). Exact for a head all of whose negatives
    were thinned alike; where rows with another head's action were all kept, it is near, and a curve mends it.
    """
    if negative_rate == 1.0:
        return p
    return (p / (p + (1.0 - p) / np.float32(negative_rate))).astype(np.float32)


def uniform_sample(request_ids: NDArray[np.int64], share: float, seed: int = 0) -> NDArray[np.bool_]:
    """Which rows a uniform sample of `share` of the requests holds, bool (n,).

    Whole requests, chosen by a hash of their id: the same ones on every run and machine, whatever rows stand
    beside them, and no outcome has a say. `share` is in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; a sample is a share in (0, 1]")
    offset = np.uint64((seed + 1) * _GOLDEN % 2**64)
    mixed = np.asarray(request_ids).astype(np.int64).view(np.uint64) + offset
    # the finaliser of splitmix64: neighbouring ids land far apart
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
