"""Which makers answer, and which one loads the next release: never one that others wait for.

There is one maker more than answer. A new release is loaded by the one that stands by, beside and not within
those that answer; then it answers, one of the others stands by and loads, and so on until all hold it. So a
swap costs no request its turn at an interpreter, and going back to the release before loads nothing.

While it loads nothing, the one that stands by takes the request that finds all others at one each: it shares
their cores, where it would have waited for one of them to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

STAND_BY = 1
"""Makers beside those that answer: the next release is loaded there."""


class Seen(Protocol):
    """A maker as the service knows it."""

    number: int
    release: int | None
    """What it serves; None before its first load."""
    loads: int | None
    """What it loads; None where it loads nothing."""


M = TypeVar("M", bound=Seen)


def able(makers: Sequence[M], wanted: int | None) -> list[M]:
    """The makers that can answer now, those of the wanted release first."""
    found = [m for m in makers if m.release is not None and m.loads is None]
    found.sort(key=lambda m: (m.release != wanted, m.number))
    return found


def answering(makers: Sequence[M], wanted: int | None, count: int) -> list[M]:
    """The makers that answer now, `count` at most, by rising number."""
    return sorted(able(makers, wanted)[:count], key=lambda m: m.number)


def next_to_load(makers: Sequence[M], wanted: int, count: int) -> M | None:
    """The maker that is to load the wanted release now; None while another does, and where all hold it.

    A maker that holds nothing yet keeps nobody waiting and loads at once. One that answers is taken only where
    another stands by for it: a release that ends whoever loads it must not end them all.
    """
    without = [m for m in makers if m.release != wanted and m.loads is None]
    for maker in without:
        if maker.release is None:
            return maker
    if not without or any(m.loads is not None for m in makers):
        return None
    busy = answering(makers, wanted, count)
    standing_by = [m for m in without if m not in busy]
    if standing_by:
        return standing_by[0]
    return without[0] if len(makers) >= count + STAND_BY else None
