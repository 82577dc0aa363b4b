"""What the funnel knows of users and pins: small frozen structures, and the port that fills them in bulk.

Every method of `Features` blocks and is called from a thread of the service's pool, never from the event
loop; none is called once a candidate.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from feature_repo.history import History
from feature_repo.schema import PIN_SCALARS, PIN_TOPICS, USER_SCALARS
from feature_repo.sequence import Sequence
from training.models.light_kernels import rows_among
from training.models.pinnersage import Interests

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class UserVector:
    """A user as one vector, computed in a nightly run."""

    vector: Floats  # (d,)
    as_of_ms: int
    """Every action before this is in it, Unix ms."""


@dataclass(frozen=True)
class User:
    """One user as of the request. A part that was missing or too old is empty and named in `stale`."""

    user_id: int
    known: bool
    """False for a user with neither a row nor an action: the feed falls back on what is popular."""
    sequence: Sequence
    scalars: Floats  # (len(USER_SCALARS),)
    followed_topics: Ints
    followed_boards: Ints
    interests: Interests
    """Batch interests in the space asked for."""
    interests_ms: int = 0
    """When the batch interests were computed, Unix ms."""
    stale: tuple[str, ...] = ()
    country: str | None = None
    language: str | None = None
    vectors: Mapping[str, UserVector] = field(default_factory=dict)
    """Last night's vectors by space, of the spaces asked for."""
    history: History = field(default_factory=History.none)
    """As of a midnight; empty where it was not asked for."""

    @classmethod
    def unknown(cls, user_id: int = 0, dim: int = 0) -> User:
        """Somebody of whom nothing is known."""
        nothing = np.empty(0, np.int64)
        scalars = np.zeros(len(USER_SCALARS), np.float32)
        return cls(user_id, False, Sequence.empty(), scalars, nothing, nothing, Interests.none(dim))


@dataclass(frozen=True)
class PinStats:
    """What ranking reads of n pins, parallel to the ids asked for; absent pins have zeros."""

    scalars: Floats  # (n, len(PIN_SCALARS))
    created_at_ms: Ints  # (n,)
    topics: Ints  # (n, PIN_TOPICS) zero-padded
    present: Flags  # (n,)

    @classmethod
    def absent(cls, n: int) -> PinStats:
        """n pins of which nothing is known."""
        return cls(
            np.zeros((n, len(PIN_SCALARS)), np.float32),
            np.zeros(n, np.int64),
            np.zeros((n, PIN_TOPICS), np.int64),
            np.zeros(n, bool),
        )

    def take(self, rows: Ints) -> PinStats:
        """The pins of these rows, in their order."""
        return PinStats(
            self.scalars.take(rows, axis=0),  # a fifth of the time of an index of rows
            self.created_at_ms[rows],
            self.topics.take(rows, axis=0),
            self.present[rows],
        )


@dataclass(frozen=True)
class Card:
    """What a pin says and shows."""

    pin_id: int
    title: str = ""
    description: str = ""
    link_domain: str = ""
    image: str = ""
    topics: tuple[int, ...] = ()


class Features(Protocol):
    """Online features, read in bulk. Thread-safe; raises whatever the store raises when it is down."""

    def user(
        self, user_id: int, space: str | None, embedded: Items[str] = (), *, history: bool = False
    ) -> User:
        """One user, with their interests in `space`, their vectors in the spaces `embedded` and, where asked
        for, their history: one read."""
        ...

    def pins(self, ids: Ints) -> PinStats:
        """Statistics of `ids` (n,), in their order."""
        ...

    def vectors(self, ids: Ints, space: str) -> tuple[Floats, Flags]:
        """Vectors (n, d) of `ids` in `space` and which of them exist (n,)."""
        ...

    def cards(self, ids: Ints) -> dict[int, Card]:
        """Cards by pin id; unknown pins are left out."""
        ...

    def popular(self, topic_ids: Items[int]) -> dict[int, tuple[Ints, Floats]]:
        """Popular pins of each topic with their scores, best first; topic 0 is the whole catalogue."""
        ...

    def boards(self, board_ids: Items[int]) -> dict[int, Ints]:
        """Newest pins of each board, newest first."""
        ...

    def sequences(self, user_ids: Items[int]) -> dict[int, Sequence]:
        """Each user's stored sequence, empty where there is none."""
        ...

    def push_sequences(self, sequences: Mapping[int, Sequence]) -> None:
        """Store whole sequences, replacing what was there."""
        ...


def rising(ids: Ints) -> Ints:
    """Distinct ids in rising order. `np.unique` hashes integers first, which takes ten times as long."""
    order = np.sort(ids)
    new = np.ones(len(order), bool)
    new[1:] = order[1:] != order[:-1]
    return order[new]


@dataclass(frozen=True)
class PinTable:
    """Everything one request needs of its pins, read once: rows by rising, distinct id."""

    ids: Ints  # (n,) rising
    stats: PinStats
    vectors: Floats  # (n, d), zeros where the space has none
    _asked: dict[int, tuple[Ints, Ints]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Ids that rows were asked of, by identity: every stage asks of the same few arrays."""

    @classmethod
    def empty(cls, dim: int = 0) -> PinTable:
        return cls(np.empty(0, np.int64), PinStats.absent(0), np.empty((0, dim), np.float32))

    def sound(self) -> tuple[PinTable, int]:
        """The same pins, those with a number that is none made absent, and how many that were."""
        finite = np.isfinite(self.stats.scalars), np.isfinite(self.vectors)
        if all(each.all() for each in finite):
            return self, 0
        unfit = ~(finite[0].all(axis=1) & finite[1].all(axis=1))
        stats, none = self.stats, PinStats.absent(len(self.ids))
        kept = {
            f.name: np.where(
                unfit.reshape(-1, *[1] * (getattr(stats, f.name).ndim - 1)),
                getattr(none, f.name),
                getattr(stats, f.name),
            )
            for f in fields(PinStats)
        }
        vectors = np.where(unfit[:, None], np.float32(0), self.vectors)
        return PinTable(self.ids, PinStats(**kept), vectors), int(unfit.sum())

    def rows(self, ids: Ints) -> Ints:
        """Row of each of `ids`; neither may be changed. Raises KeyError naming an id that was not read."""
        asked = self._asked.get(id(ids))
        if asked is None or asked[0] is not ids:
            asked = self._asked[id(ids)] = ids, self._rows(ids)
        return asked[1]

    def _rows(self, ids: Ints) -> Ints:
        if not ids.flags.writeable:
            ids = ids.copy()  # numba compiles anew for a read-only array
        rows = rows_among(ids, self.ids)
        if len(rows) and rows.max() == len(self.ids):
            missing = ids[rows == len(self.ids)].min()
            raise KeyError(f"pin {missing} was not read for this request")
        return rows

    @property
    def primary_topics(self) -> Ints:
        """(n,) first topic of each pin, 0 = none."""
        return self.stats.topics[:, 0]
