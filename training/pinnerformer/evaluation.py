"""Recall@10, interest entropy@50 and P90 coverage@10 of users' vectors on what they did later (section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from training.pinnerformer.timelines import Timelines

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

RETRIEVED = 100
RECALL_AT, ENTROPY_AT, COVERAGE_AT = 10, 50, 10
COVERED = 0.9
_BLOCK = 512


@dataclass(frozen=True)
class Positives:
    """Held-out labels, one a (user, pin), by user."""

    users: Ints  # (h,) places in the timelines, ascending
    pin_rows: Ints  # (h,)
    asked_ms: Ints  # (h,) the user's first action on the pin: what was known strictly before may be used

    def __len__(self) -> int:
        return len(self.users)

    def of_users(self, chosen: NDArray[np.bool_]) -> Positives:
        """Those of the chosen users, (U,) bool."""
        kept = chosen[self.users]
        return Positives(self.users[kept], self.pin_rows[kept], self.asked_ms[kept])


@dataclass(frozen=True)
class Quality:
    """How well one set of vectors retrieves."""

    recall_at_10: float
    """Share of all held-out positives among their user's first ten of the index."""
    recall_at_100: float
    hit_rate_at_100: float
    """Share of users with any of their positives among the first hundred."""
    interest_entropy_at_50: float
    """Entropy, in nats, of the topics of a user's first fifty, mean over users."""
    p90_coverage_at_10: float
    """Smallest share of the index that makes up nine tenths of all users' first ten."""
    users: int
    positives: int

    def named(self, prefix: str = "") -> dict[str, float]:
        """Flat metrics for the registry."""
        return {prefix + f.name: float(getattr(self, f.name)) for f in fields(self)}


def held_out(timelines: Timelines, cut_ms: int, end_ms: int, candidates: NDArray[np.integer]) -> Positives:
    """Labels of [cut, end) on candidate pins that the user first acted on from the cut on.

    Users without any action before the cut are left out: they have no vector.
    """
    rows = timelines.label_rows
    times, first = timelines.arrays.times_ms[rows], timelines.first_ms[rows]
    pins, owners = timelines.arrays.pin_rows[rows].astype(np.int64), timelines.owners[rows]
    began = np.full(len(timelines), np.iinfo(np.int64).max)
    some = np.diff(timelines.offsets) > 0
    began[some] = timelines.arrays.times_ms[timelines.offsets[:-1][some]]
    kept = (first >= cut_ms) & (times < end_ms) & np.isin(pins, candidates) & (began[owners] < cut_ms)
    rows, pins, owners, first = rows[kept], pins[kept], owners[kept], first[kept]
    order = np.lexsort((rows, pins, owners))
    pins, owners, first = pins[order], owners[order], first[order]
    new = np.ones(len(pins), np.bool_)
    new[1:] = (pins[1:] != pins[:-1]) | (owners[1:] != owners[:-1])
    return Positives(owners[new], pins[new], first[new])


def top_pins(
    users: Floats,
    pins: Floats,
    candidates: NDArray[np.integer],
    known: list[NDArray[np.integer]],
    count: int,
) -> Ints:
    """Rows of each user's `count` best candidates by inner product, without those `known`, (n, count).

    `users` (n, D); `pins` (p, D) of the whole catalogue; `known` one array of catalogue rows a user. Padded
    with -1; equal scores by row.
    """
    place = np.full(len(pins), -1, np.int64)
    place[candidates] = np.arange(len(candidates))
    index = np.ascontiguousarray(pins[candidates].T)
    out = np.full((len(users), count), -1, np.int64)
    k = min(count, len(candidates))
    for start in range(0, len(users), _BLOCK):
        scores = users[start : start + _BLOCK] @ index
        for i, rows in enumerate(known[start : start + _BLOCK]):
            at = place[rows[rows >= 0]]
            scores[i, at[at >= 0]] = -np.inf
        best = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        found = np.where(np.take_along_axis(scores, best, axis=1) > -np.inf, candidates[best], -1)
        out[start : start + _BLOCK, :k] = found
    return out


def known_pins(timelines: Timelines, users: Ints, ends: Ints) -> list[NDArray[np.integer]]:
    """Catalogue rows that each of `users` (places) acted on in its rows before `ends`."""
    starts = timelines.offsets[:-1][users]
    return [timelines.arrays.pin_rows[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


def quality(top: Ints, users: Ints, positives: Positives, topics: Ints, index: int) -> Quality:
    """Metrics of the lists `top` (n, RETRIEVED) of `users` (places, ascending, all that have positives).

    `topics` (p,) is the first topic of each catalogue row, 0 for none; `index` how many pins were searched.
    Raises ValueError where there is nothing held out.
    """
    if len(positives) == 0:
        raise ValueError("no held-out positives: hold out more days, or bring more actions")
    at = np.searchsorted(users, positives.users)
    found = top[at] == positives.pin_rows[:, None]  # (h, RETRIEVED)
    hit = np.zeros(len(users), np.bool_)
    hit[at[found.any(axis=1)]] = True
    return Quality(
        recall_at_10=float(found[:, :RECALL_AT].any(axis=1).mean()),
        recall_at_100=float(found.any(axis=1).mean()),
        hit_rate_at_100=float(hit[np.unique(at)].mean()),
        interest_entropy_at_50=float(np.mean([interest_entropy(row, topics) for row in top[:, :ENTROPY_AT]])),
        p90_coverage_at_10=p90_coverage(top[:, :COVERAGE_AT], index),
        users=len(np.unique(at)),
        positives=len(positives),
    )


def interest_entropy(rows: Ints, topics: Ints) -> float:
    """Entropy in nats of the topics of one list; pins without a topic are passed over."""
    seen = topics[rows[rows >= 0]]
    _, counts = np.unique(seen[seen > 0], return_counts=True)
    if len(counts) == 0:
        return 0.0
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())


def p90_coverage(top: Ints, index: int) -> float:
    """Smallest share of an index of `index` pins that makes up nine tenths of the lists `top`; NaN if empty."""
    _, counts = np.unique(top[top >= 0], return_counts=True)
    if len(counts) == 0:
        return float("nan")
    reached = np.cumsum(np.sort(counts)[::-1])
    return float((np.searchsorted(reached, COVERED * reached[-1] - 1e-9) + 1) / index)


def popular_pins(timelines: Timelines, cut_ms: int, candidates: NDArray[np.integer], days: int = 30) -> Ints:
    """Candidates by how many labels they had in the `days` before `cut_ms`, most first, ties by row."""
    labels = timelines.labels
    inside = (labels.times_ms < cut_ms) & (labels.times_ms >= cut_ms - days * 86_400_000)
    size = int(max(candidates.max(initial=0), labels.pin_rows.max(initial=0))) + 1
    counts = np.bincount(labels.pin_rows[inside], minlength=size)[candidates]
    return candidates[np.argsort(-counts, kind="stable")]


def popular_lists(order: Ints, known: list[NDArray[np.integer]], count: int) -> Ints:
    """The first `count` of `order` for every user without those it knows, (n, count), padded with -1."""
    out = np.full((len(known), count), -1, np.int64)
    for row, rows in zip(out, known, strict=True):
        head = order[: count + len(rows)]
        fresh = head[~np.isin(head, rows)][:count]
        row[: len(fresh)] = fresh
    return out
