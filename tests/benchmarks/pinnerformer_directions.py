"""Published directions of PinnerFormer as differences of two rows, user by user, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.spread import Spread, difference
from training.pinnerformer.staleness import Refresh

AT = (10, 100)
"""Recall is compared at these: where an interest has hundreds of pins that a user may like alike, the first ten
are a draw among them."""
COVERAGE = "p90_coverage_at_10"


@dataclass(frozen=True)
class Cell:
    """A variant under one refresh of users' vectors; `less`: what it loses by the slower of two."""

    variant: str
    refresh: Refresh = Refresh.ONCE
    less: Refresh | None = None


@dataclass(frozen=True)
class Direction:
    """`upper` above `lower`, as published."""

    name: str
    upper: Cell
    lower: Cell

    @property
    def variants(self) -> set[str]:
        return {self.upper.variant, self.lower.variant}


DENSE, ALL, SASREC, NEXT = "dense all action 28d", "all action 28d", "sasrec", "next action"
MIXED, IN_BATCH, RANDOM = "mixed + logQ", "in-batch + logQ", "random"

_LOST = {"refresh": Refresh.REALTIME, "less": Refresh.DAILY}

DIRECTIONS = (
    Direction("dense all action > all action", Cell(DENSE), Cell(ALL)),
    Direction("all action > SASRec", Cell(ALL), Cell(SASREC)),
    Direction("SASRec > next action", Cell(SASREC), Cell(NEXT)),
    Direction("all action > next action (one predicting token each)", Cell(ALL), Cell(NEXT)),
    Direction("dense all action > SASRec", Cell(DENSE), Cell(SASREC)),
    Direction("28 days > 14 days", Cell(DENSE), Cell("dense all action 14d")),
    Direction("dense: realtime > daily", Cell(DENSE, Refresh.REALTIME), Cell(DENSE, Refresh.DAILY)),
    Direction("dense: daily > once", Cell(DENSE, Refresh.DAILY), Cell(DENSE)),
    Direction("SASRec: realtime > daily", Cell(SASREC, Refresh.REALTIME), Cell(SASREC, Refresh.DAILY)),
    Direction("SASRec: daily > once", Cell(SASREC, Refresh.DAILY), Cell(SASREC)),
    Direction("SASRec loses more by a daily refresh than dense", Cell(SASREC, **_LOST), Cell(DENSE, **_LOST)),
    Direction("in-batch: logQ > none", Cell(IN_BATCH), Cell("in-batch")),
    Direction("mixed: logQ > none", Cell(MIXED), Cell("mixed")),
    Direction("random: logQ > none (published: level)", Cell("random + logQ"), Cell(RANDOM)),
    Direction("mixed + logQ > in-batch + logQ", Cell(MIXED), Cell(IN_BATCH)),
    Direction("mixed + logQ > random", Cell(MIXED), Cell(RANDOM)),
    *(
        Direction(f"nothing left out > without {name}", Cell("nothing left out"), Cell(f"without {name}"))
        for name in ("pin", "action", "surface", "duration", "time", "position")
    ),
)

Ranks = Mapping[str, Sequence[int]]
"""Ranks of the held-out positives by refresh."""


def found(
    runs: Mapping[str, Sequence[Ranks]], users: NDArray[np.integer], at: int
) -> list[tuple[Direction, Spread]]:
    """Every direction whose rows were run: difference of the users' recall within the first `at`.

    `runs` are a variant's ranks, a seed each; `users` (h,) the user of each positive.
    """

    def recall(cell: Cell) -> NDArray[np.float64]:
        values = [_by_user(run[cell.refresh.value], users, at) for run in runs[cell.variant]]
        if cell.less is not None:
            slower = [_by_user(run[cell.less.value], users, at) for run in runs[cell.variant]]
            values = [a - b for a, b in zip(values, slower, strict=True)]
        return np.stack(values)

    return [(d, difference(recall(d.upper), recall(d.lower))) for d in DIRECTIONS if d.variants <= set(runs)]


def _by_user(ranks: Sequence[int], users: NDArray[np.integer], at: int) -> NDArray[np.float64]:
    """Each user's share of positives within the first `at`, ranks counted from 0, (u,)."""
    _, owner = np.unique(users, return_inverse=True)
    return np.bincount(owner, weights=np.asarray(ranks) < at) / np.bincount(owner)
