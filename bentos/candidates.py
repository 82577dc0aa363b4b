"""Candidates of one request as parallel arrays: bulk work on columns, no object a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from bentos.interning import Codes, Interned
from training.models.light_kernels import first_places
from training.models.light_ranking import falling

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
    def sources(self) -> NDArray[np.str_]:
        """(n,) names of the sources."""
        return SOURCES.names(self.source_codes)

    @property
    def kinds(self) -> NDArray[np.str_]:
        """(n,) names of the kinds."""
        return KINDS.names(self.kind_codes)

    @property
    def source(self) -> str:
        """The name of the first one's source."""
        return str(SOURCES.names(self.source_codes[:1])[0])

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
        n = len(ids)
        made = cls(
            ids,
            np.asarray(scores, np.float32),
            np.full(n, SOURCES.code(source), np.int16),
            np.full(n, anchors, np.int64) if np.ndim(anchors) == 0 else np.asarray(anchors, np.int64),
            np.full(n, KINDS.code(kinds), np.int16) if isinstance(kinds, str) else np.asarray(kinds, np.int16),
        )
        return made if ids.all() else made.take(ids != 0)

    @classmethod
    def dealt(
        cls, source: str, lists: Sequence[tuple[Ints, Floats]], anchors: Sequence[int], kind: str
    ) -> Candidates:
        """Candidates of one source from lists of pins and scores, in turns; `anchors` has one a list."""
        lists = [(ids[ids != 0], scores[ids != 0]) for ids, scores in lists]
        lengths = [len(ids) for ids, _ in lists]
        group = np.repeat(np.arange(len(lists)), lengths)
        order = interleave(np.concatenate([np.arange(length) for length in lengths]), group)
        return cls.of(
            source,
            np.concatenate([ids for ids, _ in lists])[order],
            np.concatenate([scores for _, scores in lists])[order],
            np.array(anchors, np.int64)[group[order]],
            kind,
        )

    def take(self, index: NDArray[np.bool_] | Ints | slice) -> Candidates:
        """The candidates a mask, positions or a slice names, in that order."""
        return Candidates(
            self.pin_ids[index],
            self.scores[index],
            self.source_codes[index],
            self.anchors[index],
            self.kind_codes[index],
        )

    def sound(self) -> Candidates:
        """Those with an id and a score that is a number: what a store gives may be neither."""
        fit = (self.pin_ids > 0) & np.isfinite(self.scores)
        return self if fit.all() else self.take(fit)

    def distinct(self) -> Candidates:
        """Every pin once, where it first stands."""
        first = first_places(self.pin_ids.copy())  # numba compiles anew for a read-only array
        return self if len(first) == len(self) else self.take(first)

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
        **{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Candidates)}
    )


def interleave(rank: Ints, group: Ints) -> Ints:
    """Positions in round-robin order: every group's first, then every group's second, and so on."""
    return np.lexsort((group, rank))


_NONE = Candidates(
    np.empty(0, np.int64),
    np.empty(0, np.float32),
    np.empty(0, np.int16),
    np.empty(0, np.int64),
    np.empty(0, np.int16),
)
