"""Which makers answer, and which one loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bentos import rotation


@dataclass
class Planted:
    number: int
    release: int | None
    loads: int | None


def makers(*releases: int | None, loads: int | None = None) -> list[Planted]:
    """Makers of these releases; the one numbered `loads` loads another."""
    return [Planted(number, release, 9 if number == loads else None) for number, release in enumerate(releases)]


def answering(seen: Sequence[Planted], wanted: int | None, count: int) -> list[int]:
    return [maker.number for maker in rotation.answering(seen, wanted, count)]


def next_to_load(seen: Sequence[Planted], wanted: int, count: int) -> int | None:
    chosen = rotation.next_to_load(seen, wanted, count)
    return None if chosen is None else chosen.number


def test_as_many_answer_as_are_to_and_one_stands_by() -> None:
    assert answering(makers(1, 1, 1), 1, 2) == [0, 1]
    assert answering(makers(1, 1, 1, loads=0), 1, 2) == [1, 2]
    assert answering(makers(None, None, 1), 1, 2) == [2]
    assert answering(makers(None), 1, 2) == []


def test_those_of_the_wanted_release_answer_first() -> None:
    assert answering(makers(1, 1, 2), 2, 2) == [0, 2]
    assert answering(makers(2, 1, 2), 2, 2) == [0, 2]


def test_those_that_hold_nothing_load_at_once_and_all_together() -> None:
    assert next_to_load(makers(None, None, None), 1, 2) == 0
    assert next_to_load(makers(None, None, None, loads=0), 1, 2) == 1
    assert next_to_load(makers(1, 1, None, loads=0), 2, 2) == 2


def test_a_release_goes_round_with_as_many_answering_all_the_way() -> None:
    held: list[int | None] = [1, 1, 1]
    order = []
    while (number := next_to_load(makers(*held), 2, 2)) is not None:
        loading = makers(*held, loads=number)
        assert len(answering(loading, 2, 2)) == 2
        assert next_to_load(loading, 2, 2) is None, "one at a time"
        held[number] = 2
        order.append(number)
    assert held == [2, 2, 2]
    assert order == [2, 1, 0], "who stands by loads first"


def test_none_that_answers_is_taken_without_another_for_it() -> None:
    assert next_to_load(makers(1), 2, 2) is None
    assert next_to_load(makers(1, 1), 2, 2) is None, "who stands by may have ended with that very release"
    assert next_to_load(makers(1, 1, 2), 2, 2) == 1
    assert next_to_load(makers(1, 1, 2, loads=1), 2, 2) is None
