"""Published directions of multi-interest and conditional retrieval: differences of two rows, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.spread import Spread, difference
from training.interests.evaluation import HIT_AT
from training.interests.tables import Row, Table

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Direction:
    """Row `upper` of a table above row `lower`, as published."""

    table: str
    upper: str
    lower: str
    ways: tuple[str, ...] = ("best", "served")
    """How the lists were made."""


CONDITIONAL = ("filtered", "unfiltered")

DIRECTIONS = (
    *(Direction("implicit", "dcm", name) for name in ("mind", "single", "self_attention", "tokens", "pfs")),
    Direction("routing", "both", "neither"),
    Direction("routing", "both", "SAR only"),
    Direction("routing", "both", "VA-FPI only"),
    Direction("routing", "SAR only", "neither"),
    Direction("routing", "VA-FPI only", "neither"),
    Direction("counts", "K=7", "K=4"),
    Direction("counts", "K=7", "K=2"),
    Direction("counts", "K=4", "K=2"),
    Direction("explicit", "source interest", "item interest", CONDITIONAL),
    Direction("explicit", "source interest", "item interest, of pins that a topic brought", CONDITIONAL),
)


def found(table: Table, users: Ints, groups: Mapping[str, NDArray[np.bool_]]) -> list[tuple[str, Spread]]:
    """Every direction whose rows the table has, by name, at each list length, over all held-out engagements and
    over each of `groups` of them, (t,) as `users`."""
    groups = {"": np.ones(len(users), bool), **{f", {name}": kept for name, kept in groups.items()}}
    out = []
    for direction in DIRECTIONS:
        if direction.table != table.title or not {direction.upper, direction.lower} <= _names(table):
            continue
        upper, lower = table.row(direction.upper), table.row(direction.lower)
        for way in direction.ways:
            for k in HIT_AT:
                for group, kept in groups.items():
                    sides = [_by_user(row, way, k, users, kept) for row in (upper, lower)]
                    shown = "" if way == "best" else f"{way} "
                    name = f"{direction.upper} > {direction.lower}, {shown}HR@{k}{group}"
                    out.append((name, difference(*sides)))
    return out


def _names(table: Table) -> set[str]:
    return {row.name for row in table.rows}


def _by_user(row: Row, way: str, k: int, users: Ints, kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(seeds, users) hits, scaled so that their mean over users is the hit rate over engagements."""
    _, owner = np.unique(users[kept], return_inverse=True)
    each = [np.bincount(owner, weights=run.ranks[way][kept] <= k) for run in row.runs]
    return np.stack(each) * len(each[0]) / kept.sum()
