"""How far what serving saw of a feature agrees with what training sees of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Tolerance:
    """Two numbers agree where |online - offline| <= absolute + relative |offline|."""

    absolute: float = 1e-5
    relative: float = 1e-5


@dataclass(frozen=True)
class Agreement:
    """One feature over n rows."""

    name: str
    rows: int
    equal: int
    """Bit for bit, both unknown included. Rankers read what is unknown as 0, so unknown equals 0."""
    within: int
    """Not equal, yet within the tolerance."""
    missing_online: int
    """Known offline alone."""
    missing_offline: int
    differing: int
    largest: float
    """Largest difference where both are known, 0 where they are the same."""
    worst: int | None
    """Row with the largest disagreement beyond the tolerance; None where all agree."""

    @property
    def agreeing(self) -> int:
        return self.equal + self.within

    @property
    def share(self) -> float:
        """Of rows that agree."""
        return self.agreeing / self.rows if self.rows else 1.0


def agreement(name: str, online: Floats, offline: Floats, tolerance: Tolerance) -> Agreement:
    """Of one feature's values (n,) as served and as made anew, NaN where nothing was known."""
    online, offline = online.astype(np.float64), offline.astype(np.float64)
    ours, theirs = np.isnan(online), np.isnan(offline)
    gap = np.abs(np.nan_to_num(online) - np.nan_to_num(offline))
    equal = gap == 0
    near = ~equal & (gap <= tolerance.absolute + tolerance.relative * np.abs(np.nan_to_num(offline)))
    wrong = ~equal & ~near
    both = ~ours & ~theirs
    return Agreement(
        name=name,
        rows=len(gap),
        equal=int(equal.sum()),
        within=int(near.sum()),
        missing_online=int((wrong & ours).sum()),
        missing_offline=int((wrong & theirs).sum()),
        differing=int((wrong & both).sum()),
        largest=float(gap[both].max(initial=0.0)),
        worst=int(np.argmax(np.where(wrong, gap, -1))) if wrong.any() else None,
    )
