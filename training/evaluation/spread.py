"""How sure is a mean over users, of a model that was fitted under several seeds?

Two spreads stand side by side, since they answer two questions. The interval over users says how far the mean
would move with other users; the deviation over seeds how far it moves when the model is fitted once more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NORMAL_95 = 1.96
"""Standard errors that half a 95 % interval is wide."""


@dataclass(frozen=True)
class Spread:
    """A metric of one model, or of the difference of two."""

    mean: float
    """Over users and seeds."""
    error: float | None
    """Half the width of the 95 % interval over users, each user's value being the mean over seeds; None for
    one user."""
    seeds: float | None
    """Standard deviation (n - 1) over seeds of the mean over users; None for a model that ran once."""

    @classmethod
    def of(cls, values: Floats) -> Spread:
        """From (seeds, users), one value a user and seed. Raises ValueError where there is none."""
        runs, users = values.shape
        if not runs or not users:
            raise ValueError(f"a spread needs values, got {runs} seeds of {users} users")
        by_user = values.mean(axis=0)
        error = NORMAL_95 * float(by_user.std(ddof=1)) / users**0.5 if users > 1 else None
        seeds = float(values.mean(axis=1).std(ddof=1)) if runs > 1 else None
        return cls(float(values.mean()), error, seeds)

    @property
    def level(self) -> bool:
        """For a difference: the 95 % interval holds zero."""
        return self.error is None or abs(self.mean) <= self.error


def difference(values: Floats, other: Floats) -> Spread:
    """`values` less `other`, user by user; both (seeds, users) of the same users, the seeds may differ.

    Pairing takes out what users have in common, so the interval is narrower than the two means' own suggest.
    The deviation over seeds is that of independent runs: root of the summed variances of both sides.
    """
    if values.shape[1] != other.shape[1]:
        raise ValueError(f"{values.shape[1]} and {other.shape[1]} users cannot be paired")
    paired = Spread.of((values.mean(axis=0) - other.mean(axis=0))[None])
    sides = [side for side in (Spread.of(values).seeds, Spread.of(other).seeds) if side is not None]
    return Spread(paired.mean, paired.error, float(np.sqrt(np.sum(np.square(sides)))) if sides else None)
