"""Settling duplicates, against a dictionary that does the same one row at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from validation.settle import Status, contains, settle


def naive(keys: list[int], content: list[int], known: dict[int, int], first_stays: bool) -> list[int]:
    status = []
    for i, (key, body) in enumerate(zip(keys, content, strict=True)):
        mine = [j for j, k in enumerate(keys) if k == key]
        winner = mine[0] if first_stays else mine[-1]
        if first_stays and key in known:
            stays = known[key]
            status.append(Status.DUPLICATE if body == stays else Status.CONFLICT)
        elif i != winner:
            status.append(Status.DUPLICATE if body == content[winner] else Status.CONFLICT)
        elif key not in known:
            status.append(Status.NEW)
        else:
            status.append(Status.DUPLICATE if body == known[key] else Status.UPDATED)
    return status


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 6), st.integers(0, 2)), max_size=25),
    st.dictionaries(st.integers(-3, 9), st.integers(0, 2), max_size=8),
    st.booleans(),
)
def test_settling_is_the_rule_row_by_row(
    rows: list[tuple[int, int]], known: dict[int, int], first: bool
) -> None:
    keys, content = [k for k, _ in rows], [c for _, c in rows]
    status = settle(
        np.array(keys, np.int64),
        np.array(content, np.uint64),
        np.array(list(known), np.int64),
        np.array(list(known.values()), np.uint64),
        first_stays=first,
    )
    assert status.tolist() == naive(keys, content, known, first)


@settings(deadline=None)
@given(st.lists(st.integers(0, 20)), st.lists(st.integers(-2, 22)))
def test_contains_is_membership(known: list[int], wanted: list[int]) -> None:
    found = contains(np.sort(np.array(known, np.int64)), np.array(wanted, np.int64))
    assert found.tolist() == [w in known for w in wanted]
