"""Diversity: from the best pins to the best page, by greedy MAP of a determinantal point process.

Each place takes the pin with the largest gain of

    theta * sum of relevance + (1 - theta) * log det of the chosen pins' similarities

(Chen, Zhang and Zhou, NeurIPS 2018), its Cholesky factor updated in O(window) a pin and place. Of the
well-known methods this one weighs a pin against all of its neighbours together, where MMR sees the nearest
only: a pin that is half like each of two brings next to nothing beside both. With sliding spectrum
decomposition it shares the window: only the last places count, as a reader does not compare the fiftieth pin
with the first. Caps hold over the same window.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


class DiversityConfig(BaseModel):
    """How much relevance is given for variety, and what no stretch of the page may exceed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    theta: float = Field(0.8, ge=0, le=1)
    """1 sorts by relevance alone, as far as the caps let it; 0 by variety alone."""
    window: int = Field(8, ge=1, le=1000)
    """A place is weighed against the `window - 1` before it."""
    topic_cap: int = Field(3, ge=0, le=1000)
    """At most so many of any `window` neighbours share a topic; 0 is no cap."""
    board_cap: int = Field(2, ge=0, le=1000)
    """The same for boards."""
    ridge: float = Field(0.01, gt=0, le=1000)
    """Added to each pin's likeness with itself: how much of an exact repeat still counts as new."""


def diversify(
    utility: Floats,
    vectors: Floats,
    limit: int,
    config: DiversityConfig | None = None,
    *,
    topics: Ints | None = None,
    boards: Ints | None = None,
) -> Ints:
    """Positions of up to `limit` of n candidates in the order of the page, int64.

    Parameters
    ----------
    utility : (n,) what to rank by, in any unit: it is standardised over the candidates.
    vectors : (n, d) in one space, any length; a zero vector is like nothing else.
    topics, boards : (n,) ids; 0 is none and never capped.

    Where every candidate left would exceed a cap, the caps give way and the best left is taken. Equal
    candidates keep their order. Raises ValueError for blocks of different lengths and for values that are not
    finite.
    """
    config = config or DiversityConfig()
    n = len(utility)
    groups = np.zeros((2, n), np.int64)
    for row, (name, ids) in enumerate((("topics", topics), ("boards", boards))):
        if ids is not None:
            if np.shape(ids) != (n,):
                raise ValueError(f"{name} are {np.shape(ids)}; one for each of {n} candidates is needed")
            groups[row] = ids
    if np.ndim(vectors) != 2 or len(vectors) != n:
        raise ValueError(f"vectors are {np.shape(vectors)}; one row for each of {n} candidates is needed")
    for name, block in (("utility", utility), ("vectors", vectors)):
        if not np.isfinite(block).all():
            raise ValueError(f"{name} of {int((~np.isfinite(block)).sum())} values are not finite")
    if n == 0 or limit <= 0:
        return np.empty(0, np.int64)
    caps = np.array([config.topic_cap, config.board_cap], np.int64)
    return _greedy(
        standardised(utility),
        unit_rows(vectors),
        groups,
        caps,
        min(limit, n),
        min(config.window, n),
        config.theta,
        config.ridge,
    )


def standardised(utility: Floats) -> Doubles:
    """Utility with mean 0 and deviation 1 over the candidates, (n,) float64; zeros where all are equal."""
    wide = np.asarray(utility, np.float64)
    spread = wide.std()
    return (wide - wide.mean()) / spread if spread > 1e-12 * np.abs(wide).max(initial=0.0) else wide * 0.0


def unit_rows(vectors: Floats) -> Floats:
    """Rows of length 1, C-contiguous float32; zero rows stay zero."""
    wide = np.ascontiguousarray(vectors, np.float32)
    length = np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
    return wide / np.where(length > 0, length, np.float32(1))


@numba.njit(cache=True)
def _greedy(
    relevance: Doubles,
    vectors: Floats,
    groups: Ints,
    caps: Ints,
    limit: int,
    window: int,
    theta: float,
    ridge: float,
) -> Ints:
    """The greedy of `diversify`, on checked blocks.

    factor[j] holds, for every candidate, its coordinate along the j-th pin of the window in the Cholesky
    factor; variance is what the window leaves unexplained of it: the factor of det that choosing it would
    bring.
    """
    n = len(relevance)
    chosen = np.empty(limit, np.int64)
    left = np.ones(n, np.bool_)
    variance = np.full(n, 1.0 + ridge)
    factor = np.zeros((window, n))
    held = 0
    for place in range(limit):
        best = _best(relevance, variance, left, groups, caps, chosen, place, window, theta)
        chosen[place] = best
        left[best] = False
        if window == 1:
            continue
        if held == window - 1:
            _forget(factor, variance, chosen, place - held, held)
            held -= 1
        likeness = np.dot(vectors, vectors[best])
        root = np.sqrt(variance[best])
        new = factor[held]
        for i in range(n):  # numba compiles a loop in a tenth of the time of an assignment of slices
            new[i] = likeness[i]
        new[best] = 1.0 + ridge
        for j in range(held):
            new -= factor[j, best] * factor[j]
        new /= root
        for i in range(n):
            variance[i] = max(variance[i] - new[i] * new[i], 1e-12)
        held += 1
    return chosen


@numba.njit(cache=True)
def _best(
    relevance: Doubles,
    variance: Doubles,
    left: NDArray[np.bool_],
    groups: Ints,
    caps: Ints,
    chosen: Ints,
    place: int,
    window: int,
    theta: float,
) -> int:
    """The candidate with the largest gain that no cap forbids; if all are forbidden, the largest gain."""
    first = max(0, place - window + 1)
    best, best_gain = -1, -np.inf
    any_best, any_gain = -1, -np.inf
    for i in range(len(relevance)):
        if not left[i]:
            continue
        gain = theta * relevance[i] + (1.0 - theta) * np.log(variance[i])
        if any_best < 0 or gain > any_gain:
            any_best, any_gain = i, gain
        if best >= 0 and gain <= best_gain:
            continue
        full = False
        for g in range(len(caps)):
            group = groups[g, i]
            if caps[g] == 0 or group == 0:
                continue
            same = 0
            for j in range(first, place):
                same += groups[g, chosen[j]] == group
            full = full or same >= caps[g]
        if not full:
            best, best_gain = i, gain
    return best if best >= 0 else any_best


@numba.njit(cache=True)
def _forget(factor: Doubles, variance: Doubles, chosen: Ints, oldest: int, held: int) -> None:
    """Take the window's first pin out of the factor: a rank-one update, by one rotation a remaining pin.

    What was explained by the pin that goes is carried along in `rest`, and what no other pin takes up returns
    to the variance.
    """
    rest = factor[0].copy()
    for j in range(1, held):
        pin = chosen[oldest + j]
        along, across = factor[j, pin], rest[pin]
        length = np.sqrt(along * along + across * across)
        cos, sin = along / length, across / length
        for i in range(len(rest)):
            kept = cos * factor[j, i] + sin * rest[i]
            rest[i] = cos * rest[i] - sin * factor[j, i]
            factor[j - 1, i] = kept
    for i in range(len(rest)):
        variance[i] += rest[i] * rest[i]
