"""Which of several rows with one key stays: the rule that makes an ingest idempotent.

Events are facts: the first one stays, and one already in the lake stays before any other. Entities are
descriptions: the last one stays, and replaces what the lake had. In both cases a row that equals the one that
stays is a harmless duplicate, and one that differs is refused, so that nothing is lost unseen.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Status(IntEnum):
    """What becomes of a row."""

    REFUSED = 0
    """Failed a row check."""
    NEW = 1
    UPDATED = 2
    """Replaces the lake's row of the same key."""
    DUPLICATE = 3
    """Equals, in every column, the row that stays."""
    CONFLICT = 4
    """Shares its key with a row that stays, and differs from it."""


def settle(
    keys: np.ndarray,
    content: np.ndarray,
    known_keys: np.ndarray,
    known_content: np.ndarray,
    *,
    first_stays: bool,
) -> np.ndarray:
    """The Status of every incoming row: (n,) int8.

    `keys` (n,) int64 and `content` (n,) uint64 fingerprints are in the order of arrival, `known_keys` (m,)
    distinct int64 and `known_content` (m,) uint64 describe rows of the lake (those with other keys may be
    left out).
    """
    status = np.full(len(keys), Status.CONFLICT, np.int8)
    if not len(keys):
        return status
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    ends = np.concatenate([starts[1:], [len(ranked)]]) - 1
    winners = order[starts if first_stays else ends]  # (groups,)
    group = np.empty(len(keys), np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(np.concatenate([starts, [len(ranked)]])))

    known, place = _find(known_keys, keys[winners])
    known_here = known_content[place] if len(known_content) else np.zeros(len(winners), np.uint64)
    stays = np.where(known, known_here, content[winners]) if first_stays else content[winners]

    status[content == stays[group]] = Status.DUPLICATE
    same = known & (known_here == content[winners])
    status[winners[~known]] = Status.NEW
    if not first_stays:
        status[winners[known & ~same]] = Status.UPDATED
    return status


def contains(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which of `wanted` are in `known`, which is sorted: (n,) bool. The fast case of numpy.isin."""
    found = np.zeros(len(wanted), bool)
    if len(known):
        # Asked in order, neighbours share the cache lines of the search: five times faster on 20 million.
        order = np.argsort(wanted)
        asked = wanted[order]
        found[order] = known[np.minimum(np.searchsorted(known, asked), len(known) - 1)] == asked
    return found


def _find(known: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of `wanted` is in `known`, and its place there (0 where it is not)."""
    if not len(known):
        return np.zeros(len(wanted), bool), np.zeros(len(wanted), np.int64)
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)
    found = known[order[at]] == wanted
    return found, np.where(found, order[at], 0)
