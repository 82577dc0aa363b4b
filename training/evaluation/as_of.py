"""What the temporal protocol lets a model see, and what it must answer.

A model is a `Fit`: from the lake as of a cut to a function that names pins for users. Several fits are variants
to tune, `Seeded` ones are fitted under every seed, a `Blend` mixes others of its table.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.evaluation.seeded import Seeded
from training.models.baselines import Scorer
from validation.lake import Lake
from validation.tables import ACTION, ACTIONS, CREATED_AT, PIN_ID, USER_ID, Polarity
from validation.tables import PINS as PINS_TABLE

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
T = TypeVar("T")

BATCH = 256
"""Users scored at once."""


class TemporalError(ValueError):
    """A lake without a past to learn from, or a model that broke the protocol."""


class NotApplicable(Exception):
    """Raised by a fit that the data does not allow; the message says why."""


@dataclass(frozen=True)
class AsOf:
    """The lake as of the cut: all that a model may look at. Reads of `lake` itself must end at `cut`."""

    lake: Lake
    cut: datetime
    pins: Ints  # (p,) made before the cut, ascending: what may be recommended
    users: Ints  # (n,) with a positive action on one of them before the cut, ascending
    matrix: sparse.csr_matrix  # float32 (n, p), 1 where the user had taken the pin
    _made: dict[Hashable, object] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, lake: Lake, cut: datetime) -> AsOf:
        """Raises TemporalError where nothing happened before the cut."""
        created = lake.read(PINS_TABLE.name, [PIN_ID, CREATED_AT])
        pins = np.sort(created.loc[created[CREATED_AT] < cut, PIN_ID].to_numpy(np.int64))
        positive = lake.contract().vocabulary.codes(Polarity.POSITIVE)
        rows = lake.read(ACTIONS.name, [USER_ID, PIN_ID, ACTION], end=cut)
        rows = rows[rows[ACTION].isin(positive) & rows[PIN_ID].isin(pins)]
        if rows.empty:
            raise TemporalError(
                f"no positive action lies before {cut:%Y-%m-%d}: nothing to learn from; hold out fewer days"
            )
        users, row = np.unique(rows[USER_ID].to_numpy(np.int64), return_inverse=True)
        column = np.searchsorted(pins, rows[PIN_ID].to_numpy(np.int64))
        ones = np.ones(len(rows), np.float32)
        matrix = sparse.csr_matrix((ones, (row, column)), shape=(len(users), len(pins)))
        matrix.data[:] = 1.0
        return cls(lake, cut, pins, users, matrix)

    @property
    def cut_ms(self) -> int:
        """Unix ms."""
        return int(self.cut.timestamp() * 1000)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made when `key` is first asked for: what models of one cut have in common."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]  # type: ignore[return-value]

    def rows_of(self, users: Ints) -> Ints:
        """Row of each user id, -1 for one without a past."""
        place = np.minimum(np.searchsorted(self.users, users), len(self.users) - 1)
        return np.where(self.users[place] == users, place, -1)

    def known(self, row: int) -> Ints:
        """Columns of the pins the user of `row` had taken; none for row -1."""
        start, end = self.matrix.indptr[row : row + 2] if row >= 0 else (0, 0)
        return self.matrix.indices[start:end].astype(np.int64)


Recommend = Callable[[Ints, int], Ints]
"""User ids (u,), k -> (u, k) pin ids, best first, zero-padded: distinct, made before the cut, new to the user.
"""

Fit = Callable[[AsOf], Recommend]
"""Learns from the lake as of the cut. Raises NotApplicable where the data does not allow it."""


@dataclass(frozen=True)
class Blend:
    """A model made of others of the same table: their pins in turns, as many in all as each alone has."""

    sources: tuple[str, ...]
    """Those of the table that are not in it, or that the data does not allow, are left out."""


Model = Fit | Sequence[Fit] | Seeded[Fit] | Blend


def by_score(known: AsOf, scorer: Scorer) -> Recommend:
    """A recommender from a scorer over rows of `known.matrix`.

    Pins of score 0 are not recommended (nothing speaks for them), and users without a past get nothing.
    """

    def recommend(users: Ints, k: int) -> Ints:
        rows = known.rows_of(users)
        out = np.zeros((len(users), k), np.int64)
        usable = np.flatnonzero(rows >= 0)
        for start in range(0, len(usable), BATCH):
            some = usable[start : start + BATCH]
            out[some] = best_new(known, scorer(rows[some]), rows[some], k)
        return out

    return recommend


def best_new(known: AsOf, scores: Floats, rows: Ints, k: int) -> Ints:
    """The k best pins by `scores` (u, p) that each user had not taken, (u, k) ids; ties go to the lower id."""
    out = np.zeros((len(rows), k), np.int64)
    for i, row in enumerate(rows.tolist()):
        of_user = np.array(scores[i], np.float32)
        of_user[of_user == 0] = -np.inf
        of_user[known.known(row)] = -np.inf
        if k < len(of_user):
            least = np.partition(of_user, len(of_user) - k)[len(of_user) - k]
            columns = np.flatnonzero((of_user >= least) & (of_user > -np.inf))
        else:
            columns = np.flatnonzero(of_user > -np.inf)
        chosen = columns[np.argsort(-of_user[columns], kind="stable")][:k]
        out[i, : len(chosen)] = known.pins[chosen]
    return out


def checked(name: str, recommended: Ints, known: AsOf, users: Ints, k: int) -> Ints:
    """`recommended` as it is. Raises TemporalError naming what a model may not recommend, and to whom."""
    if recommended.shape != (len(users), k):
        raise TemporalError(f"{name} recommended {recommended.shape}, expected {(len(users), k)}")
    place = np.minimum(np.searchsorted(known.pins, recommended), len(known.pins) - 1)
    strange = (known.pins[place] != recommended) & (recommended != 0)
    if strange.any():
        row, column = np.argwhere(strange)[0]
        pin = recommended[row, column]
        raise TemporalError(f"{name} recommended pin {pin} to user {users[row]}: no pin made before the cut")
    for i, row in enumerate(known.rows_of(users).tolist()):
        again = np.isin(recommended[i], known.pins[known.known(row)])
        if again.any():
            pin = recommended[i][again][0]
            raise TemporalError(f"{name} recommended pin {pin} to user {users[i]}, who had taken it before")
    return recommended
