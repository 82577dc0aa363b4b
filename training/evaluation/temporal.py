"""The temporal protocol: everything before a cut is known, what users do in the days after it is held out.

A model is fitted on the lake as of the cut and names k pins a user among those made before the cut that the
user had not taken; `training.evaluation.retrieval` holds out and measures. HR is the share of users with a
held-out pin among their k, recall the mean share of a user's held-out pins, NDCG weighs them by rank.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.context import Progress, silent
from training.evaluation.report import Report, Row
from training.evaluation.retrieval import (
    PINS,
    HeldOut,
    NothingHeldOut,
    hold_out,
    hold_out_last,
    user_metrics,
)
from training.evaluation.seeded import Seeded, runs_of, variants_of
from training.models.baselines import Scorer
from validation.lake import Lake
from validation.tables import ACTION, ACTIONS, CREATED_AT, PIN_ID, USER_ID, Polarity
from validation.tables import PINS as PINS_TABLE

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

NEXT_DAYS = "next days"
BATCH = 256
"""Users scored at once."""

NAMES = {"recall": "Recall", "hit_rate": "HR", "ndcg": "NDCG"}
"""Titles of what `user_metrics` measures, in the table's order."""


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

Model = Fit | Sequence[Fit] | Seeded[Fit]


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


def evaluate(
    lake: Lake,
    models: Mapping[str, Model],
    *,
    days: int | None = None,
    at: Sequence[int] = (100,),
    seeds: Sequence[int] = (7,),
    max_users: int | None = None,
    tuning_users: int = 1_000,
    sample_seed: int = 7,
    against: str | None = None,
    strict: bool = False,
    progress: Progress = silent,
) -> Report:
    """HR, recall and NDCG at each of `at` for every model, on the last `days` of the lake (`hold_out_last`).

    A model of several fits is tuned first, on as many days before the cut as are held out after it: the variant
    with the best recall at the first of `at` over `tuning_users` users is fitted as of the cut. A model that
    the data does not allow is left out, and the report says why; with `strict` it is an error. Rows also hold
    the slices of `retrieval.evaluate`. Raises NothingHeldOut, and TemporalError for a lake without a past or a
    model that recommends what it may not.
    """
    if not at or min(at) < 1:
        raise TemporalError(f"lists of {list(at)} pins cannot be measured; give numbers from 1")
    held = hold_out_last(lake, lake.interval()[1], days)
    found = len(held)
    held = held if max_users is None else held.sample(max_users, sample_seed)
    known = AsOf.of(lake, held.cut)
    tuning = _Tuning(lake, held, tuning_users, sample_seed)
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    for name, model in models.items():
        try:
            rows.append(_measured(name, model, known, held, tuple(at), seeds, tuning, progress))
        except NotApplicable as reason:
            if strict:
                raise TemporalError(f"{name}: {reason}") from reason
            skipped[name] = str(reason)
            progress(f"{name}: left out: {reason}")
    facts = {
        "cut": f"{held.cut:%Y-%m-%d}",
        "days": (held.end - held.cut).days,
        "users": len(held),
        **({"drawn_of": found} if found > len(held) else {}),
        "held_out_pins": len(held.pins),
        "pins": len(known.pins),
        "interactions": int(known.matrix.nnz),
    }
    columns = tuple(f"{name}@{k}" for k in at for name in NAMES.values())
    words = f"pins taken from {held.cut:%Y-%m-%d} on, among all made before it and new to the user"
    return Report("temporal", {NEXT_DAYS: words}, columns, facts, tuple(rows), skipped, against)


class _Tuning:
    """The days before the cut, held out from what lies before them; made when first asked for."""

    def __init__(self, lake: Lake, held: HeldOut, users: int, seed: int) -> None:
        self._lake, self._outer, self._users, self._seed = lake, held, users, seed
        self._inner: tuple[AsOf, HeldOut] | None = None

    def best(self, name: str, variants: Sequence[Fit], k: int, progress: Progress) -> int:
        """The variant of the best recall@k; the first where these days hold nothing to choose by."""
        if self._inner is None:
            cut = self._outer.cut - (self._outer.end - self._outer.cut)
            try:
                held = hold_out(self._lake, cut, self._outer.cut).sample(self._users, self._seed)
                self._inner = AsOf.of(self._lake, cut), held
            except (NothingHeldOut, TemporalError) as reason:  # a short history cannot be tuned on
                progress(f"{name}: its first variant stands: {reason}")
                return 0
        known, held = self._inner
        progress(f"{name}: choosing among {len(variants)} variants on the days from {known.cut:%Y-%m-%d} on")
        recalls = []
        for fit in variants:
            answer = checked(name, fit(known)(held.users, k), known, held.users, k)
            recalls.append(float(user_metrics(answer, held, ks=(k,))[f"recall@{k}"].mean()))
        return int(np.argmax(recalls))


def _measured(
    name: str,
    model: Model,
    known: AsOf,
    held: HeldOut,
    at: tuple[int, ...],
    seeds: Sequence[int],
    tuning: _Tuning,
    progress: Progress,
) -> Row:
    runs = runs_of(model, seeds)
    start = time.perf_counter()
    variants = variants_of(model, runs[0])
    variant = tuning.best(name, variants, at[0], progress) if len(variants) > 1 else 0
    fit_s, score_s = time.perf_counter() - start, 0.0
    values: dict[str, list[NDArray[np.float64]]] = {}
    for seed in runs:
        start = time.perf_counter()
        recommend = variants_of(model, seed)[variant](known)
        fitted = time.perf_counter()
        answer = checked(name, recommend(held.users, max(at)), known, held.users, max(at))
        fit_s, score_s = fit_s + fitted - start, score_s + time.perf_counter() - fitted
        for metric, of_users in user_metrics(answer, held, ks=at).items():
            if not metric.startswith(PINS):
                values.setdefault(_title(metric), []).append(of_users)
    seeded = tuple(runs) if isinstance(model, Seeded) else ()
    row = Row(name, NEXT_DAYS, {m: np.stack(v) for m, v in values.items()}, seeded, variant, fit_s, score_s)
    progress(f"{name}: " + ", ".join(f"{m} {row.mean(m):.4f}" for m in row.values if m.endswith(f"@{at[0]}")))
    return row


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


def _title(metric: str) -> str:
    """`hit_rate@100/new_users` as `HR@100/new_users`."""
    name, _, rest = metric.partition("@")
    return f"{NAMES[name]}@{rest}"
