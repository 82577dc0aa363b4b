"""Candidates of one request as parallel arrays: bulk work on columns, no object a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bentos.interning import Codes, Interned
from training.models.light_kernels import fit_places
from training.models.source_lists import Entries, falling

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


SOURCES, KINDS = Interned(), Interned()
"""Names of candidate sources, and of what anchors are, as candidates hold them."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """n candidates, best first within what ordered them."""

    pin_ids: Ints  # (n,)
    scores: Floats  # (n,) what the source ordered by; comparable within one source only
    source_codes: Codes  # (n,) of SOURCES
    anchors: Ints  # (n,) the pin, board or topic the candidate follows from; 0 = none
    kind_codes: Codes  # (n,) of KINDS: what the anchor is, one of `why.KINDS`

    def __len__(self) -> int:
        return len(self.pin_ids)

    @property
    def sources(self) -> list[str]:
        """Names of the n sources."""
        return SOURCES.names(self.source_codes)

    @property
    def kinds(self) -> list[str]:
        """Names of the n kinds."""
        return KINDS.names(self.kind_codes)

    @property
    def source(self) -> str:
        """The name of the first one's source."""
        return SOURCES.name(self.source_codes.item(0))

    @classmethod
    def none(cls) -> Candidates:
        return _NONE

    @classmethod
    def of(
        cls,
        source: str,
        pin_ids: Sequence[int] | Ints,
        scores: Sequence[float] | Floats,
        anchors: int | Sequence[int] | Ints,
        kinds: str | Codes,
    ) -> Candidates:
        """Candidates of one source; a single anchor or kind stands for all. Padding ids (0) are dropped."""
        ids = np.asarray(pin_ids, np.int64)
        n, kinds = len(ids), KINDS.code(kinds) if isinstance(kinds, str) else kinds
        made = cls(
            ids,
            np.asarray(scores, np.float32),
            _each(SOURCES.code(source), n, np.int16),
            _each(anchors, n, np.int64),
            _each(kinds, n, np.int16),
        )
        return made if ids.all() else made.take(ids != 0)

    @classmethod
    def dealt(
        cls, source: str, lists: Sequence[tuple[Ints, Floats]], anchors: Sequence[int], kind: str
    ) -> Candidates:
        """Candidates of one source from lists of pins and scores, in turns; `anchors` has one a list."""
        ids, scores = (np.concatenate(column) for column in zip(*lists, strict=True))
        group = np.repeat(np.arange(len(lists)), [len(one) for one, _ in lists])
        if not ids.all():
            ids, scores, group = ids[ids != 0], scores[ids != 0], group[ids != 0]
        place = np.arange(len(group)) - np.searchsorted(group, group)  # of each in its own list
        order = np.argsort(place, kind="stable")
        return cls.of(source, ids[order], scores[order], np.array(anchors, np.int64)[group[order]], kind)

    def take(self, index: NDArray[np.bool_] | Ints | slice) -> Candidates:
        """The candidates a mask, positions or a slice names, in that order."""
        return Candidates(
            self.pin_ids[index],
            self.scores[index],
            self.source_codes[index],
            self.anchors[index],
            self.kind_codes[index],
        )

    def fit(self, budget: int) -> tuple[Candidates, int]:
        """The first `budget` distinct pins, and how many candidates were left out for an id or a score that is
        none: what a store gives may be neither."""
        ids, scores = self.pin_ids, self.scores
        if not (ids.flags.writeable and scores.flags.writeable):
            ids, scores = ids.copy(), scores.copy()  # numba compiles anew for a read-only array
        places, unfit = fit_places(ids, scores, budget)
        return self if len(places) == len(self) else self.take(places), unfit

    def scored(self, scores: Floats) -> Candidates:
        """The same candidates with other scores, (n,) float32."""
        return replace(self, scores=np.asarray(scores, np.float32))

    def best_first(self) -> Candidates:
        """Ordered by falling score; equal scores keep their order."""
        return self.take(falling(self.scores))


def concatenate(parts: Sequence[Candidates]) -> Candidates:
    """One after the other."""
    if not parts:
        return Candidates.none()
    return Candidates(
        np.concatenate([part.pin_ids for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.source_codes for part in parts]),
        np.concatenate([part.anchors for part in parts]),
        np.concatenate([part.kind_codes for part in parts]),
    )


def brought(parts: Sequence[Candidates]) -> tuple[Candidates, Entries]:
    """What sources brought, list after list, and the same as the merge and the trees read it."""
    some = [part for part in parts if len(part)]
    whole = concatenate(some)
    lengths = [len(part) for part in some]
    return whole, Entries.laid([part.source for part in some], lengths, whole.pin_ids, whole.scores)


def _each(values: Any, n: int, kind: type[np.integer]) -> Any:
    """(n,) of as many values, or of one; `np.full` takes three times as long."""
    if not isinstance(values, int | np.integer):
        return np.asarray(values, kind)
    out = np.empty(n, kind)
    out.fill(values)
    return out


_NONE = Candidates(
    np.empty(0, np.int64),
    np.empty(0, np.float32),
    np.empty(0, np.int16),
    np.empty(0, np.int64),
    np.empty(0, np.int16),
)
