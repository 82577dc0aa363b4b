"""Leave-one-out: each user's newest pin is held out, everything else is learned from; who ranks it how high?

The protocol of the classical implicit-feedback papers, so that models here can be set beside published
numbers. A held-out pin is ranked among all pins the user does not have (full), or among candidates that a
file names for the user (sampled; hit rates are then much higher, and comparable only for the same file).
Metrics are HR@k and NDCG@k. Pins of equal score are ranked in random order, in expectation: a constant model
gains nothing by its ties.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from training.context import Progress, silent
from training.evaluation.candidates import Candidates, named, read_candidates
from training.evaluation.report import Report, Row
from training.evaluation.seeded import Seeded, runs_of, variants_of
from training.models.baselines import Scorer
from validation.tables import BOARD_ID, PIN_ID, TIMESTAMP, USER_ID

FULL, SAMPLED = "full", "sampled"
BATCH = 256
"""Users scored at once."""


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
    users: NDArray[np.int64]
    """(n,) row of each pair of `matrix`, oldest pair first."""
    pins: NDArray[np.int64]
    """(n,) its column."""

    @classmethod
    def of(
        cls,
        users: NDArray[np.int64],
        pins: NDArray[np.int64],
        contexts: NDArray[np.int64],
        shape: tuple[int, int],
    ) -> TrainSet:
        """From distinct (user, pin) pairs, oldest first, and the context of each, < 0 where it has none."""
        matrix = sparse.csr_matrix((np.ones(len(users), np.float32), (users, pins)), shape=shape)
        placed = contexts >= 0
        edges = (users[placed], pins[placed], contexts[placed])
        return cls(matrix, *(e.astype(np.int32) for e in edges), users, pins)


Fit = Callable[[TrainSet], Scorer]
"""Learns from a train set; the scorer takes user rows."""


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
    models: Mapping[str, Fit | Sequence[Fit] | Seeded[Fit]],
    candidates: Candidates | Path | None = None,
    *,
    k: int = 10,
    seeds: Sequence[int] = (7,),
    max_users: int | None = None,
    tuning_users: int = 1_000,
    sample_seed: int = 7,
    against: str | None = None,
    progress: Progress = silent,
) -> Report:
    """Every model's HR@k and NDCG@k, ranking all pins, and with `candidates` also those only.

    A model given as several fits is tuned first: each variant learns from the training part less every user's
    newest pin there, and the one with the best NDCG@k over `tuning_users` users is fitted on all of it, chosen
    for each ranking by itself and, for a seeded model, under the first of `seeds`. So no choice sees a
    held-out pin. A seeded model is then fitted under each of `seeds`. `max_users` evaluates a sample; users
    are drawn under `sample_seed`. Raises LeaveOneOutError for unusable input, and for a model whose scores
    have the wrong shape or are NaN.
    """
    if k < 1:
        raise LeaveOneOutError(f"k is {k}; it must be at least 1")
    if isinstance(candidates, Path):
        candidates = read_candidates(candidates)
    if candidates:
        _check_users(interactions, candidates)
    parts = split(interactions, candidates.held_out if candidates else None)
    if max_users is not None:
        parts = _sampled(parts, max_users, sample_seed)
    columns = _columns(parts, candidates, parts.users, parts.held_out) if candidates else None
    rows: list[Row] = []
    for name, model in models.items():
        runs = runs_of(model, seeds)
        start = time.perf_counter()
        variants = variants_of(model, runs[0])
        best = {FULL: 0, SAMPLED: 0}
        if len(variants) > 1:
            progress(f"{name}: choosing among {len(variants)} variants")
            best = _tuned(name, variants, parts, candidates, k, tuning_users, sample_seed)
        tuned_s = time.perf_counter() - start
        for variant in dict.fromkeys(best.values()):
            measured = _measured(name, model, variant, runs, parts, k, columns, tuned_s)
            rows += (row for row in measured if best[row.ranking] == variant)
        for row in (row for row in rows if row.model == name):
            progress(f"{name}, {row.ranking}: " + ", ".join(f"{m} {row.mean(m):.4f}" for m in metrics(k)))
    rankings = {FULL: "the held-out pin ranked among every pin the user does not have"}
    facts = {
        "users": len(parts.users),
        "pins": len(parts.pin_ids),
        "interactions": int(parts.train.matrix.nnz),
        "skipped_users": parts.skipped,
    }
    if columns is not None:
        facts["candidates"] = round(float(np.mean([len(c) for c in columns])))
        rankings[SAMPLED] = f"the held-out pin ranked among {facts['candidates']:,} given candidates"
    return Report("leave-one-out", rankings, metrics(k), facts, tuple(rows), against=against)


def metrics(k: int) -> tuple[str, str]:
    """Names of what is measured."""
    return f"HR@{k}", f"NDCG@{k}"


def _measured(
    name: str,
    model: Fit | Sequence[Fit] | Seeded[Fit],
    variant: int,
    runs: Sequence[int],
    parts: Split,
    k: int,
    columns: list[NDArray[np.int64]] | None,
    tuned_s: float,
) -> list[Row]:
    """A row a ranking of one variant, fitted under every seed of `runs`."""
    gains: dict[str, list[NDArray[np.float64]]] = {}
    fit_s, score_s = tuned_s, 0.0
    for seed in runs:
        start = time.perf_counter()
        scorer = variants_of(model, seed)[variant](parts.train)
        fitted = time.perf_counter()
        for ranking, of_users in _gains(name, scorer, parts, k, columns).items():
            gains.setdefault(ranking, []).append(of_users)
        fit_s, score_s = fit_s + fitted - start, score_s + time.perf_counter() - fitted
    seeds = tuple(runs) if isinstance(model, Seeded) else ()
    return [
        Row(
            name,
            ranking,
            dict(zip(metrics(k), np.stack(g).transpose(2, 0, 1), strict=True)),
            seeds,
            variant,
            fit_s,
            score_s,
        )
        for ranking, g in gains.items()
    ]


def _check_users(interactions: pd.DataFrame, candidates: Candidates) -> None:
    """Raise LeaveOneOutError naming users of `candidates` who have no interactions."""
    known = set(interactions[USER_ID].tolist()) if USER_ID in interactions else set()
    unknown = [user for user in candidates.pins if user not in known]
    if unknown:
        raise LeaveOneOutError(named("the candidates name users without interactions", unknown))


def _sampled(parts: Split, users: int, seed: int) -> Split:
    """At most `users` of the evaluated users, drawn evenly."""
    if users >= len(parts.users):
        return parts
    chosen = np.sort(np.random.default_rng(seed).choice(len(parts.users), users, replace=False))
    return replace(parts, users=parts.users[chosen], held_out=parts.held_out[chosen])


def _tuned(
    name: str,
    variants: Sequence[Fit],
    parts: Split,
    candidates: Candidates | None,
    k: int,
    users: int,
    seed: int,
) -> dict[str, int]:
    """The variant with the best NDCG under each protocol, on an inner leave-one-out of the train set.

    Under the sampled one the inner pin is ranked among the user's given candidates, less the one that is held
    out. Where users are left with one pin each there is nothing to tune on, and the first variant stands.
    """
    if not (np.diff(parts.train.matrix.indptr)[parts.users] > 1).any():
        return dict.fromkeys((FULL, SAMPLED), 0)
    inner = _sampled(_inner(parts), users, seed)
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
    held = np.full(train.matrix.shape[0], -1)
    held[users] = parts.newest[users]
    pairs = train.matrix.tocoo()
    kept = held[pairs.row] != pairs.col
    matrix = sparse.csr_matrix((pairs.data[kept], (pairs.row[kept], pairs.col[kept])), shape=pairs.shape)
    edges = held[train.edge_users] != train.edge_pins
    left = [e[edges] for e in (train.edge_users, train.edge_pins, train.edge_contexts)]
    earlier = held[train.users] != train.pins
    left += [train.users[earlier], train.pins[earlier]]
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
