"""Ids at the service's edge: the data set's own outside, int64 inside (0 = nobody, nothing)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from bentos.errors import BadId
from bentos.messages import ExternalId
from validation.forgotten import Forgotten
from validation.ids import FORGOTTEN, MAX_ID, IdMap
from validation.tables import EntityKind

JSON_SAFE = 2**53 - 1
"""Largest whole number that every JSON reader keeps exactly."""

NAMES = 100_000
"""Names of one kind that stay in memory, about 200 bytes each."""


class Ids:
    """Translates ids of one data set; users who were forgotten are nobody. Thread-safe, as IdMap is.

    Names of pins and topics that were given back stay in memory, the first NAMES of a kind: they never change,
    and are there where the id map is not.
    """

    def __init__(
        self,
        id_map: IdMap,
        string_ids: frozenset[EntityKind],
        forgotten: Callable[[], Forgotten] = Forgotten,
    ) -> None:
        """`forgotten` gives the tombstones of now, and is asked for every user."""
        self._map = id_map
        self._string_ids = string_ids
        self._forgotten = forgotten
        self._names: dict[EntityKind, dict[int, ExternalId]] = {EntityKind.PIN: {}, EntityKind.TOPIC: {}}

    def inside(self, kind: EntityKind, value: ExternalId) -> int:
        """The lake id of `value`; 0 for a string never seen, and for a user who was forgotten.

        Raises BadId for text where the data set counts, and for numbers outside 1..2^63-1.
        """
        own = self._own(kind, value)
        if self._gone(kind, own):
            return 0
        return own if isinstance(own, int) else self._map.lookup(kind, own) or 0

    def inside_or_new(self, kind: EntityKind, value: ExternalId) -> int:
        """The lake id of `value`, given out now if it is a string never seen; 0 for a user who was forgotten.

        Raises BadId as `inside`, and for an empty string.
        """
        own = self._own(kind, value)
        if own == "":
            raise BadId(f"{kind} id '' is empty")
        if self._gone(kind, own):
            return 0
        return own if isinstance(own, int) else self._map.assign(kind, own)

    def counted(self, *kinds: EntityKind) -> bool:
        """Whether ids of all of `kinds` are whole numbers: to translate them, no id map is read."""
        return not self._string_ids.intersection(kinds)

    def declared(self, kind: EntityKind) -> bool:
        """Whether the data set has ids of `kind`, and so has chosen between numbers and strings for good."""
        return kind in self._string_ids or self._map.form(kind) is not None

    def outside(self, kind: EntityKind, ids: Sequence[int] | np.ndarray) -> list[ExternalId]:
        """The data set's own ids, in order; whole numbers past 2^53 as strings."""
        values = self._named(kind, ids) if kind in self._string_ids else [int(i) for i in ids]
        return [str(v) if isinstance(v, int) and v > JSON_SAFE else v for v in values]

    def _named(self, kind: EntityKind, ids: Sequence[int] | np.ndarray) -> list[ExternalId]:
        """`outside` of strings: from memory where that has them all."""
        wanted, kept = [int(i) for i in ids], self._names.get(kind, {})
        names = [kept.get(number) for number in wanted]
        if None in names:
            names = self._map.decode(kind, wanted)
            if kind in self._names and len(kept) < NAMES:
                kept.update(zip(wanted, names, strict=True))
        return names

    def held(self, kind: EntityKind, ids: np.ndarray) -> np.ndarray:
        """(n,) bool: which of `ids` `outside` gives back without the id map."""
        if kind not in self._string_ids:
            return np.ones(len(ids), bool)
        names = self._names.get(kind, {})
        return np.array([number in names for number in ids.tolist()], bool)

    def all_inside(self, kind: EntityKind, values: Iterable[ExternalId]) -> np.ndarray:
        """(n,) int64 lake ids, 0 for strings never seen."""
        return np.array([self.inside(kind, value) for value in values], np.int64)

    def _own(self, kind: EntityKind, value: ExternalId) -> str | int:
        """The id as the data set has it."""
        return str(value) if kind in self._string_ids else _number(kind, value)

    def _gone(self, kind: EntityKind, own: str | int) -> bool:
        """Whether `own` is a forgotten user, or what stands in the id map for the name of one."""
        name = str(own)
        return kind is EntityKind.USER and (name.startswith(FORGOTTEN) or self._forgotten().knows(name))


def _number(kind: EntityKind, value: ExternalId) -> int:
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit()):
            raise BadId(f"{kind} id {value!r}: {kind} ids of this data set are whole numbers")
        if len(value.lstrip("0")) > len(str(MAX_ID)):
            raise BadId(f"{kind} id of {len(value)} digits: ids are whole numbers from 1 to 2^63-1")
        value = int(value)
    if not 0 < value <= MAX_ID:
        raise BadId(f"{kind} id {value}: ids are whole numbers from 1 to 2^63-1; 0 is padding")
    return value
