"""Several sources at the price of one: how much of one list each may fill, and the list.

A blend has k pins in all where each of its sources alone has k, so it can only win by asking each source for
less. Shares are chosen on days before the held-out ones (`chosen_shares`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.evaluation.retrieval import HeldOut

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SLICES = 20
"""Equal slices of a list that are given away one by one: shares come in twentieths."""


def chosen_shares(lists: Sequence[Ints], held: HeldOut, k: int) -> Floats:
    """The share of k pins that each source may fill, (S,), summing to 1; by greedy choice on `held`.

    `lists` are each source's own (u, >= k) pins for `held.users`, zero-padded. The k pins are given away in
    `SLICES` slices: each goes to the source whose next pins add the most recall to what is found so far, the
    earlier source where several add the same. Where no source finds anything all get the same.
    """
    slices = min(SLICES, k)
    ends = np.round(np.arange(slices + 1) * k / slices)
    ranks = np.stack([held_out_ranks(listed[:, :k], held) for listed in lists])  # (S, h)
    worth = 1.0 / np.diff(held.offsets)[held.owner]  # (h,) what a held-out pin is of its user's recall
    given = np.zeros(len(lists), np.int64)
    found = np.zeros(len(held.pins), bool)
    for _ in range(slices):
        new = (ranks < ends[given + 1][:, None]) & ~found
        gains = new @ worth
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        given[best] += 1
        found |= new[best]
    return given / given.sum() if given.any() else np.full(len(lists), 1 / len(lists))


def held_out_ranks(listed: Ints, held: HeldOut) -> Floats:
    """Rank from 0 of each held-out pin in its user's list, (h,); infinite where it is not there."""
    rows, at = np.nonzero(listed[held.owner] == held.pins[:, None])
    ranks = np.full(len(held.pins), np.inf)
    ranks[rows] = at
    return ranks


def blended(lists: Sequence[Ints], shares: Floats, k: int) -> Ints:
    """The sources' pins in turns by share, each pin once, (u, k), zero-padded.

    The pin at rank r (from 0) of a source with share s has its turn at (r + 1/2) / s, so that every beginning
    of the list holds the shares too. Where a source has no more pins the others fill its place; one without a
    share fills none. With equal shares this is round robin.
    """
    if not len(lists) or len(lists) != len(shares):
        raise ValueError(f"{len(lists)} lists cannot be blended by {len(shares)} shares")
    kept = [(listed, share) for listed, share in zip(lists, shares, strict=True) if share > 0]
    turns = np.concatenate([(np.arange(listed.shape[1]) + 0.5) / share for listed, share in kept])
    order = np.argsort(turns, kind="stable")
    pins = np.concatenate([listed for listed, _ in kept], axis=1)[:, order]
    out = np.zeros((len(pins), k), np.int64)
    for row, listed in zip(out, pins, strict=True):
        listed = listed[listed != 0]
        _, first = np.unique(listed, return_index=True)
        distinct = listed[np.sort(first)][:k]
        row[: len(distinct)] = distinct
    return out
