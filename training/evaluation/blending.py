"""Several sources as one list: weighted reciprocal rank fusion, weights by ensemble selection.

    score(pin) = sum over sources of weight / (damping + rank)   rank from 1; nothing where a source lacks it

(Cormack, Clarke and Buettcher, SIGIR 2009, whose damping is 60.) A blend hands on k pins in all, as each of its
sources alone does. Weights are chosen on days before the held-out ones: sources are added one by one, with
replacement, each time the one whose addition finds most (Caruana et al., ICML 2004).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.evaluation.retrieval import HeldOut
from training.models.source_lists import DAMPING

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LISTED = 300
"""Pins each source is asked for at least, as the funnel asks: one that several sources name far down may be
among the first of all."""
ROUNDS = 20
"""Additions of a source: weights come in twentieths."""


def fused(lists: Sequence[Ints], weights: Floats, k: int, damping: int = DAMPING) -> Ints:
    """The k pins of highest score, best first, (u, k), zero-padded; equal ones as sources taking turns would
    bring them, as they are served (`source_lists.fuse`).

    `lists` are each source's pins for the same users, (u, n) each, distinct, best first, zero-padded.
    """
    if not len(lists) or len(lists) != len(weights):
        raise ValueError(f"{len(lists)} lists cannot be blended by {len(weights)} weights")
    out = np.zeros((len(lists[0]), k), np.int64)
    for row, of_user in zip(out, zip(*lists, strict=True), strict=True):
        pins, scores = _scored(of_user, damping)
        total = (weights @ scores).astype(np.float32)
        best = np.lexsort((_turns(of_user), -total))[:k]
        best = best[total[best] > 0]
        row[: len(best)] = pins[best]
    return out


def chosen_weights(lists: Sequence[Ints], held: HeldOut, k: int) -> Floats:
    """A weight for each source, (S,), summing to 1, by the recall of `held` among the first k.

    `lists` are each source's own pins for `held.users`. Of all rounds the first that found the most counts.
    Where no source finds anything all weigh the same.
    """
    pins, scores, wanted = _together(lists, held)
    worth = 1.0 / np.diff(held.offsets)  # of a held-out pin, what it is of its user's recall

    def recall(total: NDArray[np.float32]) -> float:
        if k >= total.shape[1]:
            hits = wanted & (total > 0)
        else:
            least = np.partition(total, total.shape[1] - k, axis=1)[:, total.shape[1] - k]
            hits = wanted & (total >= least[:, None]) & (total > 0)
        return float(hits.sum(axis=1) @ worth)

    given = np.zeros(len(lists))
    best, most = given, 0.0
    total = np.zeros(pins.shape, np.float32)
    for _ in range(ROUNDS):
        found = [recall(total + of_source) for of_source in scores]
        added = int(np.argmax(found))
        total += scores[added]
        given = given + (np.arange(len(lists)) == added)
        if found[added] > most:
            best, most = given, found[added]
    return best / best.sum() if most > 0 else np.full(len(lists), 1 / len(lists))


def _scored(of_user: Sequence[Ints], damping: int = DAMPING) -> tuple[Ints, Floats]:
    """(distinct pins of all the lists (n,), what each source gives each (S, n)) of one user."""
    pins, place = np.unique(np.concatenate(of_user), return_inverse=True)
    scores = np.zeros((len(of_user), len(pins)))
    start = 0
    for source, listed in enumerate(of_user):
        scores[source, place[start : start + len(listed)]] = 1 / (damping + 1 + np.arange(len(listed)))
        start += len(listed)
    there = pins != 0
    return pins[there], scores[:, there]


def _turns(of_user: Sequence[Ints]) -> Ints:
    """When sources taking turns would first bring each pin of `_scored`, (n,)."""
    in_turns = np.argsort(np.concatenate([np.arange(len(of)) for of in of_user]), kind="stable")
    pins, first = np.unique(np.concatenate(of_user)[in_turns], return_index=True)
    return first[pins != 0]


def _together(lists: Sequence[Ints], held: HeldOut) -> tuple[Ints, NDArray[np.float32], NDArray[np.bool_]]:
    """Everybody's `_scored`, padded: pins (u, n), scores (S, u, n), and which pins are held out (u, n)."""
    each = [_scored(of_user) for of_user in zip(*lists, strict=True)]
    widest = max(len(pins) for pins, _ in each)
    pins = np.zeros((len(each), widest), np.int64)
    scores = np.zeros((len(lists), len(each), widest), np.float32)
    wanted = np.zeros(pins.shape, bool)
    for user, (of_user, given) in enumerate(each):
        pins[user, : len(of_user)] = of_user
        scores[:, user, : len(of_user)] = given
        wanted[user] = np.isin(pins[user], held.pins[held.offsets[user] : held.offsets[user + 1]])
    return pins, scores, wanted & (pins != 0)
