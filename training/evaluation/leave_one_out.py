"""Leave-one-out: each user's newest pin is held out, everything else is learned from; who ranks it how high?

The protocol of the classical implicit-feedback papers, so that models here can be set beside published
numbers. A held-out pin is ranked among all pins the user does not have (full), or among candidates that a
file names for the user (sampled; hit rates are then much higher, and comparable only for the same file).
Metrics are HR@k and NDCG@k. Pins of equal score are ranked in random order, in expectation: a constant model
gains nothing by its ties.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from training.models.baselines import Scorer
from validation.tables import BOARD_ID, PIN_ID, TIMESTAMP, USER_ID

FULL, SAMPLED = "full", "sampled"
HELD_OUT = "held_out"
BATCH = 256
"""Users scored at once."""

_NEGATIVE_LINE = re.compile(r"\(\s*([^,()]+?)\s*,\s*([^,()]+?)\s*\)")


class LeaveOneOutError(ValueError):
    """Interactions or candidates that the protocol cannot use."""


@dataclass(frozen=True)
class TrainSet:
    """What a model may learn from, in rows of `users` and columns of `pins`."""

    matrix: sparse.csr_matrix
    """float32 (users, pins), 1 where the user has the pin."""
    edge_users: NDArray[np.int32]
    """(e,) rows: who made each pin-context edge."""
    edge_pins: NDArray[np.int32]
    """(e,) columns."""
    edge_contexts: NDArray[np.int32]
    """(e,) boards from 0 where the interactions name them, else users."""

    @classmethod
    def of(
        cls,
        users: NDArray[np.int64],
        pins: NDArray[np.int64],
        contexts: NDArray[np.int64],
        shape: tuple[int, int],
    ) -> TrainSet:
        """From distinct (user, pin) pairs and the context of each, < 0 where it has none."""
        matrix = sparse.csr_matrix((np.ones(len(users), np.float32), (users, pins)), shape=shape)
        placed = contexts >= 0
        edges = (users[placed], pins[placed], contexts[placed])
        return cls(matrix, *(e.astype(np.int32) for e in edges))


Fit = Callable[[TrainSet], Scorer]
"""Learns from a train set; the scorer takes user rows."""


@dataclass(frozen=True)
class Candidates:
    """Pins to rank for each user, in the data set's own ids."""

    pins: Mapping[Any, Sequence[Any]]
    held_out: Mapping[Any, Any] = field(default_factory=dict)
    """The held-out pin of each user, where the file says which it is; else the newest is."""


@dataclass(frozen=True)
class Split:
    """A train set and one held-out pin for each evaluated user."""

    train: TrainSet
    users: NDArray[np.int64]
    """(n,) rows of the evaluated users."""
    held_out: NDArray[np.int64]
    """(n,) column of each one's held-out pin."""
    user_ids: NDArray[Any]
    pin_ids: NDArray[Any]
    newest: NDArray[np.int64]
    """(all users,) column of each user's newest pin in the train set, -1 for none: what tuning holds out."""
    skipped: int
    """Users with fewer than two pins: learned from, not evaluated."""


@dataclass(frozen=True)
class Row:
    """One model under one protocol."""

    model: str
    protocol: str
    hr: float
    hr_error: float
    """Half the width of the 95 % interval over users."""
    ndcg: float
    ndcg_error: float
    variant: int
    """Which of the model's variants the inner leave-one-out chose, from 0."""
    fit_s: float
    score_s: float
    """CPU-bound wall seconds of the choice and fit, and of scoring."""


@dataclass(frozen=True)
class Report:
    """Every model in one table."""

    k: int
    users: int
    pins: int
    interactions: int
    skipped_users: int
    candidates: int
    """Mean candidates a user under the sampled protocol, 0 without it."""
    rows: tuple[Row, ...]

    def row(self, model: str, protocol: str = FULL) -> Row:
        """Raises KeyError where the report has no such row."""
        for row in self.rows:
            if (row.model, row.protocol) == (model, protocol):
                return row
        raise KeyError(f"no {protocol} row of {model!r}; models are {sorted({r.model for r in self.rows})}")

    def table(self) -> str:
        """The report as text, best NDCG first within each protocol."""
        lines = [f"leave-one-out: {self.users:,} users, {self.pins:,} pins, {self.interactions:,} interactions"]
        for protocol in dict.fromkeys(row.protocol for row in self.rows):
            among = "every pin the user does not have"
            if protocol == SAMPLED:
                among = f"{self.candidates:,} given candidates"
            lines += ["", f"{protocol}: the held-out pin ranked among {among}"]
            titles = f"{f'HR@{self.k}':>10}{'±':>9}{f'NDCG@{self.k}':>11}{'±':>9}{'fit s':>9}{'score s':>9}"
            lines.append(f"  {'model':<14}{titles}")
            rows = [row for row in self.rows if row.protocol == protocol]
            for r in sorted(rows, key=lambda r: -r.ndcg):
                numbers = f"{r.hr:10.4f}{r.hr_error:9.4f}{r.ndcg:11.4f}{r.ndcg_error:9.4f}"
                lines.append(f"  {r.model:<14}{numbers}{r.fit_s:9.1f}{r.score_s:9.1f}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The report as one JSON object; floats as measured."""
        rows = [row.__dict__ for row in self.rows]
        return json.dumps({**{k: v for k, v in self.__dict__.items() if k != "rows"}, "rows": rows})


def read_candidates(path: Path) -> Candidates:
    """Candidates from a file.

    Parquet, CSV or TSV with columns `user_id` and `pin_id`, a row a candidate, and optionally `held_out`,
    true on the row of the held-out pin; or the text form of the NCF data sets, a line a user:
    `(user,held-out)`, then pins, separated by tabs. Raises LeaveOneOutError naming what is wrong.
    """
    if not path.exists():
        raise LeaveOneOutError(f"{path}: no such file of candidates")
    if path.suffix == ".parquet":
        return _from_frame(pd.read_parquet(path), path)
    with path.open() as lines:
        first = lines.readline()
    if first.startswith("("):
        return _from_negatives(path)
    return _from_frame(pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ","), path)


def _from_frame(frame: pd.DataFrame, path: Path) -> Candidates:
    missing = {USER_ID, PIN_ID} - set(frame.columns)
    if missing:
        raise LeaveOneOutError(
            f"{path}: no column {', '.join(sorted(missing))}; it has {', '.join(frame.columns)}"
        )
    held: dict[Any, Any] = {}
    if HELD_OUT in frame:
        rows = frame[frame[HELD_OUT].astype(bool)]
        if rows[USER_ID].duplicated().any():
            user = rows.loc[rows[USER_ID].duplicated(), USER_ID].iloc[0]
            raise LeaveOneOutError(f"{path}: user {user} has more than one held-out pin")
        held = dict(zip(rows[USER_ID], rows[PIN_ID], strict=True))
    return Candidates({user: list(pins) for user, pins in frame.groupby(USER_ID, sort=False)[PIN_ID]}, held)


def _from_negatives(path: Path) -> Candidates:
    pins: dict[Any, list[Any]] = {}
    held: dict[Any, Any] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        head, *rest = line.rstrip().split("\t")
        pair = _NEGATIVE_LINE.fullmatch(head.strip())
        if pair is None:
            raise LeaveOneOutError(f"{path}, line {number}: expected (user,pin) first, found {head!r}")
        user, positive = (_number(text) for text in pair.groups())
        held[user] = positive
        pins[user] = [_number(text) for text in rest]
    return Candidates(pins, held)


def _number(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text


def split(interactions: pd.DataFrame, held_out: Mapping[Any, Any] | None = None) -> Split:
    """Hold out each user's newest pin, or the one `held_out` names.

    `interactions` has user_id, pin_id, timestamp (anything that sorts) and optionally board_id; a pair counts
    once, at its first time, so that the held-out pin is new to the user. Equal times keep the order of the
    rows. With `held_out`, users outside it are learned from only, and a named pin need not occur (the test
    files of some data sets are apart). Raises LeaveOneOutError for a missing column, a null, or no user who
    could be evaluated.
    """
    needed = [USER_ID, PIN_ID, *([] if held_out else [TIMESTAMP])]
    missing = [c for c in needed if c not in interactions]
    if missing:
        raise LeaveOneOutError(f"interactions have no column {', '.join(missing)}")
    if interactions[needed].isna().any().any():
        raise LeaveOneOutError("interactions hold nulls in " + ", ".join(needed))
    ordered = interactions.sort_values(TIMESTAMP, kind="stable") if TIMESTAMP in interactions else interactions
    ordered = ordered.drop_duplicates([USER_ID, PIN_ID], keep="first")
    named = [] if not held_out else list(held_out.values())
    pin_ids = np.unique(np.concatenate([ordered[PIN_ID].to_numpy(), np.array(named, ordered[PIN_ID].dtype)]))
    user_ids, user = np.unique(ordered[USER_ID].to_numpy(), return_inverse=True)
    pin = np.searchsorted(pin_ids, ordered[PIN_ID].to_numpy())
    sizes = np.bincount(user, minlength=len(user_ids))
    if held_out:
        known = {u: i for i, u in enumerate(user_ids.tolist())}
        users = np.array(sorted(known[u] for u in held_out if u in known), np.int64)
        pins = np.searchsorted(pin_ids, np.array([held_out[u] for u in user_ids[users].tolist()]))
        own = np.zeros(len(user_ids), np.int64)
        own[users] = pins
        tested = np.isin(user, users) & (own[user] == pin)
        enough = sizes[users] - np.bincount(user[tested], minlength=len(user_ids))[users] > 0
        users, pins = users[enough], pins[enough]
        skipped = len(held_out) - len(users)
        tested &= np.isin(user, users)
    else:
        last = np.zeros(len(user_ids), np.int64)
        last[user] = np.arange(len(user))  # the newest row of each user wins
        users = np.flatnonzero(sizes > 1)
        pins = pin[last[users]]
        skipped = len(user_ids) - len(users)
        tested = np.zeros(len(user), bool)
        tested[last[users]] = True
    if not len(users):
        raise LeaveOneOutError("no user has two pins, so there is nothing to hold out")
    contexts = user if BOARD_ID not in ordered else pd.factorize(ordered[BOARD_ID])[0]  # -1 for a null
    kept = ~tested
    newest = np.full(len(user_ids), -1)
    newest[user[kept]] = pin[kept]
    train = TrainSet.of(user[kept], pin[kept], contexts[kept], (len(user_ids), len(pin_ids)))
    return Split(train, users, pins.astype(np.int64), user_ids, pin_ids, newest, skipped)


def evaluate(
    interactions: pd.DataFrame,
    models: Mapping[str, Fit | Sequence[Fit]],
    candidates: Candidates | Path | None = None,
    *,
    k: int = 10,
    max_users: int | None = None,
    tuning_users: int = 1_000,
    seed: int = 7,
    progress: Callable[[str], None] = lambda message: None,
) -> Report:
    """Every model's HR@k and NDCG@k, ranking all pins, and with `candidates` also those only.

    A model given as several fits is tuned first: each variant learns from the training part less every user's
    newest pin there, and the one with the best NDCG@k over `tuning_users` seeded users is fitted on all of
    it, chosen for each protocol by itself. So no choice sees a held-out pin. `max_users` evaluates a seeded
    sample. Raises LeaveOneOutError for unusable input, and for a model whose scores have the wrong shape or
    are NaN.
    """
    if k < 1:
        raise LeaveOneOutError(f"k is {k}; it must be at least 1")
    if isinstance(candidates, Path):
        candidates = read_candidates(candidates)
    parts = split(interactions, candidates.held_out if candidates else None)
    if max_users is not None and max_users < len(parts.users):
        chosen = np.sort(np.random.default_rng(seed).choice(len(parts.users), max_users, replace=False))
        parts = replace(parts, users=parts.users[chosen], held_out=parts.held_out[chosen])
    columns = _columns(parts, candidates, parts.users, parts.held_out) if candidates else None
    rows: list[Row] = []
    for name, fits in models.items():
        variants = list(fits) if isinstance(fits, Sequence) else [fits]
        start = time.perf_counter()
        best = {FULL: 0, SAMPLED: 0}
        if len(variants) > 1:
            best = _tuned(name, variants, parts, candidates, k, tuning_users, seed)
        tuned = time.perf_counter() - start
        for variant in dict.fromkeys(best.values()):
            start = time.perf_counter()
            scorer = variants[variant](parts.train)
            fitted = time.perf_counter()
            gains = _gains(name, scorer, parts, k, columns)
            seconds = tuned + fitted - start, time.perf_counter() - fitted
            for protocol, of_users in gains.items():
                if best[protocol] == variant:
                    hr, ndcg = (_mean(of_users[:, i]) for i in (0, 1))
                    rows.append(Row(name, protocol, *hr, *ndcg, variant, *seconds))
                    progress(f"{name}, {protocol}: HR@{k} {hr[0]:.4f}, NDCG@{k} {ndcg[0]:.4f}")
    rows.sort(key=lambda row: row.protocol == SAMPLED)
    given = 0 if columns is None else round(float(np.mean([len(c) for c in columns])))
    size = len(parts.users), len(parts.pin_ids), parts.train.matrix.nnz
    return Report(k, *size, parts.skipped, given, tuple(rows))


def _tuned(
    name: str,
    variants: list[Fit],
    parts: Split,
    candidates: Candidates | None,
    k: int,
    users: int,
    seed: int,
) -> dict[str, int]:
    """The variant with the best NDCG under each protocol, on an inner leave-one-out of the train set.

    Under the sampled one the inner pin is ranked among the user's given candidates, less the one that is held
    out.
    """
    inner = _inner(parts)
    if users < len(inner.users):
        chosen = np.sort(np.random.default_rng(seed).choice(len(inner.users), users, replace=False))
        inner = replace(inner, users=inner.users[chosen], held_out=inner.held_out[chosen])
    columns = None
    if candidates:
        outer = dict(zip(parts.users.tolist(), parts.held_out.tolist(), strict=True))
        columns = _columns(inner, candidates, inner.users, inner.held_out)
        columns = [c[c != outer[u]] for u, c in zip(inner.users.tolist(), columns, strict=True)]
    gains = [_gains(name, fit(inner.train), inner, k, columns) for fit in variants]
    return {protocol: int(np.argmax([g[protocol][:, 1].mean() for g in gains])) for protocol in gains[0]}


def _inner(parts: Split) -> Split:
    """The train set less every evaluated user's newest pin there."""
    train = parts.train
    sizes = np.diff(train.matrix.indptr)
    users = parts.users[sizes[parts.users] > 1]
    if not len(users):
        raise LeaveOneOutError("users are left with one pin each: nothing to tune on; give one variant a model")
    held = np.full(train.matrix.shape[0], -1)
    held[users] = parts.newest[users]
    pairs = train.matrix.tocoo()
    kept = held[pairs.row] != pairs.col
    matrix = sparse.csr_matrix((pairs.data[kept], (pairs.row[kept], pairs.col[kept])), shape=pairs.shape)
    edges = held[train.edge_users] != train.edge_pins
    left = (e[edges] for e in (train.edge_users, train.edge_pins, train.edge_contexts))
    return replace(parts, train=TrainSet(matrix, *left), users=users, held_out=held[users])


def _columns(
    parts: Split, candidates: Candidates, users: NDArray[np.int64], held_out: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Columns to rank for each user: the given pins that exist, and the held-out one."""
    place = {pin: i for i, pin in enumerate(parts.pin_ids.tolist())}
    columns = []
    for user, held in zip(parts.user_ids[users].tolist(), held_out, strict=True):
        if user not in candidates.pins:
            raise LeaveOneOutError(f"the candidates name no pins for user {user}")
        known = [place[pin] for pin in candidates.pins[user] if pin in place]
        columns.append(np.unique(np.array([*known, held], np.int64)))
    return columns


def _gains(
    name: str, scorer: Scorer, parts: Split, k: int, columns: list[NDArray[np.int64]] | None
) -> dict[str, NDArray[np.float64]]:
    """(hit, discounted gain) of each user, (n, 2), among all pins, and among `columns` where given."""
    matrix = parts.train.matrix
    full = np.zeros((len(parts.users), 2))
    gains = {FULL: full} if columns is None else {FULL: full, SAMPLED: np.zeros_like(full)}
    for start in range(0, len(parts.users), BATCH):
        users = parts.users[start : start + BATCH]
        scores = np.asarray(scorer(users), np.float32)
        if scores.shape != (len(users), matrix.shape[1]):
            raise LeaveOneOutError(f"{name} scored {scores.shape}, expected {(len(users), matrix.shape[1])}")
        if np.isnan(scores).any():
            raise LeaveOneOutError(f"{name} gave NaN scores")
        for i, user in enumerate(users):
            own = scores[i, parts.held_out[start + i]]
            row = scores[i].copy()
            row[matrix.indices[matrix.indptr[user] : matrix.indptr[user + 1]]] = -np.inf
            full[start + i] = gain(int((row > own).sum()), int((row == own).sum()) - 1, k)
            if columns is not None:
                among = scores[i, columns[start + i]]
                gains[SAMPLED][start + i] = gain(int((among > own).sum()), int((among == own).sum()) - 1, k)
    return gains


def gain(above: int, ties: int, k: int) -> tuple[float, float]:
    """Expected (hit, 1 / log2(rank + 2)) within the first k, `above` pins being better and `ties` others
    equal.
    """
    ranks = np.arange(above, min(above + max(ties, 0) + 1, k))
    chance = 1.0 / (max(ties, 0) + 1)
    return len(ranks) * chance, float((1.0 / np.log2(ranks + 2.0)).sum() * chance)


def _mean(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean over users, and half its 95 % interval."""
    if len(values) < 2:
        return float(values.mean()), float("nan")
    return float(values.mean()), float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))
