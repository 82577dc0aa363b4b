"""Lists of candidates that several sources brought: fused by reciprocal rank, or made one row a pin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from training.models import light_kernels
from training.models.light_kernels import compiled

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

DAMPING = 60
"""Of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009)."""
NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class SourceList:
    """What one candidate source brought, best first."""

    source: str
    pin_ids: Ints  # (m,) distinct, above 0
    scores: Floats  # (m,) comparable within the source only
    ranks: Ints | None = None  # (m,) rising, from 0: places in the whole list, where this is a sample of it


@dataclass(frozen=True)
class Fetched:
    """Distinct candidates of one request and what every source says of them."""

    pin_ids: Ints  # (n,) in the order in which sources taking turns would bring them
    scores: Floats  # (n, S) NaN where the source did not bring the pin
    ranks: Floats  # (n, S) from 0, NaN likewise
    brought: Floats  # (n,) number of sources that brought it, unknown ones included
    best_rank: Floats  # (n,) over all sources
    fused: Floats  # (n,) reciprocal rank fusion of all sources: the sum of 1 / (60 + place from 1)

    def __len__(self) -> int:
        return len(self.pin_ids)

    def take(self, rows: Ints) -> Fetched:
        """The candidates of these rows, in their order."""
        return Fetched(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def fetch(lists: Sequence[SourceList], sources: Sequence[str]) -> Fetched:
    """What every source brought, as one row a distinct pin; `sources` are the columns (`LightSpec.sources`)."""
    entries = Entries.of(lists)
    rows, first = light_kernels.rows_in_turns(entries.pin_ids, entries.ranks, entries.offsets)
    return entries.said(sources, entries.pin_ids[first], rows)


def fetched_of(lists: Lists, sources: Sequence[str], pin_ids: Ints) -> Fetched:
    """The rows of `fetch` of these distinct pins alone, in their order.

    Raises KeyError naming a pin that no source brought.
    """
    entries, pin_ids = entries_of(lists), np.ascontiguousarray(pin_ids, np.int64)
    found = entries.said(sources, pin_ids, light_kernels.rows_among(entries.pin_ids, pin_ids))
    if not found.brought.all():
        raise KeyError(f"pin {pin_ids[found.brought == 0][0]} was brought by no source")
    return found


def fuse(
    lists: Lists,
    budget: int,
    weights: Mapping[str, float] = NO_WEIGHTS,
    damping: int = DAMPING,
) -> Ints:
    """Where the `budget` best pins by reciprocal rank fusion stand in the lists laid one after the other: each
    pin at its first place as sources taking turns would bring it, equally good ones in that order too.

    `weights` are those of sources by name, 1 where one is not named.
    """
    entries = entries_of(lists)
    rows, first = light_kernels.rows_in_turns(entries.pin_ids, entries.ranks, entries.offsets)
    said = entries.said((), entries.pin_ids[first], rows, weights, damping)
    return first[keep(said.fused, budget)]


@dataclass(frozen=True)
class Entries:
    """Everything brought, list after list."""

    names: tuple[str, ...]
    pin_ids: Ints  # (m,)
    ranks: Ints  # (m,)
    scores: Floats  # (m,)
    offsets: Ints  # (lists + 1,)

    @classmethod
    def laid(cls, names: Sequence[str], lengths: Sequence[int], pin_ids: Ints, scores: Floats) -> Entries:
        """Of whole lists that stand one after the other already."""
        offsets = np.array([0, *accumulate(lengths)], np.int64)
        ranks = np.arange(len(pin_ids)) - np.repeat(offsets[:-1], np.diff(offsets))
        return cls(tuple(names), pin_ids, ranks, scores, offsets)

    @classmethod
    def of(cls, lists: Sequence[SourceList]) -> Entries:
        nothing = np.empty(0, np.int64)
        return cls(
            tuple(one.source for one in lists),
            np.concatenate([nothing, *(one.pin_ids for one in lists)]),
            np.concatenate([nothing, *(_ranks(one) for one in lists)]),
            np.concatenate([nothing.astype(np.float32), *(one.scores for one in lists)], dtype=np.float32),
            np.cumsum([0, *(len(one.pin_ids) for one in lists)], dtype=np.int64),
        )

    def said(
        self,
        sources: Sequence[str],
        pin_ids: Ints,
        rows: Ints,
        weights: Mapping[str, float] = NO_WEIGHTS,
        damping: int = DAMPING,
    ) -> Fetched:
        """Entries gathered by their row in `pin_ids` (n,); row n takes those of other pins, and is left out."""
        column = {source: place for place, source in enumerate(sources)}
        columns = np.array([column.get(name, -1) for name in self.names], np.int64)
        each = np.array([weights.get(name, 1.0) for name in self.names], np.float64)
        gathered = light_kernels.gather(
            rows, self.ranks, self.scores, self.offsets, columns, each, len(pin_ids), len(sources), damping
        )
        return Fetched(pin_ids, *gathered)


Lists = Sequence[SourceList] | Entries
"""What the sources of a request brought."""


def entries_of(lists: Lists) -> Entries:
    """All of it, list after list."""
    return lists if isinstance(lists, Entries) else Entries.of(lists)


def _ranks(part: SourceList) -> Ints:
    return np.arange(len(part.pin_ids)) if part.ranks is None else part.ranks


def _places(ids: Ints, order: Ints, wanted: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Row in `ids`, sorted by `order`, of each wanted id, and whether it is there at all."""
    if not len(ids):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    rows = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    return rows, ids[rows] == wanted


def source_scores(lists: Sequence[SourceList], pin_ids: Ints) -> Floats:
    """(n,) the largest of each pin's scores, each a share of the best that its source gave; else 0."""
    out = np.full(len(pin_ids), -np.inf)
    order = np.argsort(pin_ids)
    for one in lists:
        rows, here = _places(pin_ids, order, one.pin_ids)
        best = float(np.abs(one.scores).max(initial=0)) or 1.0
        np.maximum.at(out, rows[here], one.scores[here] / best)
    return np.where(np.isfinite(out), out, 0.0)


def keep(scores: Floats, budget: int) -> Ints:
    """Positions of the `budget` best, best first; equal scores keep their order."""
    return falling(scores)[:budget]


def falling(scores: Floats) -> Ints:
    """Positions by falling score, equal scores in their order, (n,) int64. No score may be NaN.

    One sort of int64 keys, the bits of a float (which order as it does) above its position: a stable argsort of
    floats takes four times as long.
    """
    keys = light_kernels.falling_keys(compiled(scores, np.float32).view(np.int32))
    keys.sort()
    return keys & 0xFFFFFFFF
