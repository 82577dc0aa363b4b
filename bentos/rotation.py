"""Which makers answer, and which one loads the next release: never one that others wait for.

There is one maker more than answer. A new release is loaded by the one that stands by, beside and not within
those that answer; then it answers, one of the others stands by and loads, and so on until all hold it. So a
swap costs no request its turn at an interpreter, and going back to the release before loads nothing.

While it loads nothing, the one that stands by takes the request that finds all others at one each: it shares
their cores, where it would have waited for one of them to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STAND_BY = 1
"""Makers beside those that answer: the next release is loaded there."""


@dataclass(frozen=True)
class Seen:
    """A maker as the service knows it."""

    number: int
    release: int | None
    """What it serves; None before its first load."""
    loads: bool = False


def able(makers: Sequence[Seen], wanted: int | None) -> list[int]:
    """Numbers of the makers that can answer now, those of the wanted release first."""
    found = [m for m in makers if m.release is not None and not m.loads]
    found.sort(key=lambda m: (m.release != wanted, m.number))
    return [m.number for m in found]


def answering(makers: Sequence[Seen], wanted: int | None, count: int) -> list[int]:
    """Numbers of the makers that answer now, `count` at most, by rising number."""
    return sorted(able(makers, wanted)[:count])


def next_to_load(makers: Sequence[Seen], wanted: int, count: int) -> int | None:
    """The maker that is to load the wanted release now; None while another does, and where all hold it.

    A maker that holds nothing yet keeps nobody waiting and loads at once. One that answers is taken only where
    another stands by for it: a release that ends whoever loads it must not end them all.
    """
    without = [m for m in makers if m.release != wanted and not m.loads]
    for maker in without:
        if maker.release is None:
            return maker.number
    if not without or any(m.loads for m in makers):
        return None
    busy = answering(makers, wanted, count)
    standing_by = [m.number for m in without if m.number not in busy]
    if standing_by:
        return standing_by[0]
    return without[0].number if len(makers) >= count + STAND_BY else None
