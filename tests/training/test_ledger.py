"""The ledger keeps every move, survives a torn line, and knows whom a rollback returns to."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.ledger import Ledger, LedgerBroken, LedgerEntry, Move
from validation.gate_results import GateResult


def entry(champion: int, replaced: int | None = None, move: Move = Move.PROMOTE) -> LedgerEntry:
    return LedgerEntry(
        at=datetime(2026, 5, 1, tzinfo=UTC),
        move=move,
        champion=champion,
        previous=replaced,
        replaced=replaced,
        by="ann@here",
        git_commit="abc",
        override="the index is being rebuilt",
        gates=(
            GateResult(name="ranker/auc", value=0.5, bound=0.55, n=10, passed=False, message="ranker/auc: low"),
        ),
    )


def test_entries_come_back_as_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "releases" / "ledger.jsonl")
    assert ledger.entries() == () and ledger.last() is None and ledger.champions() == ()
    first, second = entry(1), entry(2, replaced=1)
    ledger.append(first)
    before = ledger.path.read_bytes()
    ledger.append(second)
    assert ledger.entries() == (first, second)
    assert ledger.path.read_bytes().startswith(before), "lines are only ever added"
    assert second.failed[0].name == "ranker/auc"


def test_a_torn_line_never_happened(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(entry(1))
    whole = ledger.path.read_bytes()
    line = entry(2, replaced=1).model_dump_json().encode()
    for cut in (1, len(line) // 2, len(line)):
        ledger.path.write_bytes(whole + line[:cut])
        assert [e.champion for e in ledger.entries()] == [1]
        ledger.append(entry(3, replaced=1))
        assert [e.champion for e in ledger.entries()] == [1, 3]


def test_a_torn_first_line_never_happened(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.path.write_bytes(b'{"at": "2026')
    assert ledger.entries() == ()
    ledger.append(entry(1))
    assert [e.champion for e in ledger.entries()] == [1]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(entry(1))
    with ledger.path.open("ab") as file:
        file.write(b'{"champion": 2}\n')
    with pytest.raises(LedgerBroken, match="line 2"):
        ledger.entries()


@settings(deadline=None, max_examples=30)  # every append waits for the disk
@given(moves=st.lists(st.integers(0, 3), max_size=25))
def test_champions_are_a_stack(tmp_path_factory: pytest.TempPathFactory, moves: list[int]) -> None:
    """Against a plain list: promotions push, rollbacks pop (never the last one)."""
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.jsonl")
    line: list[int] = []
    left: set[int] = set()
    for at, move in enumerate(moves, start=1):
        if move == 0 and len(line) > 1:
            leaving = line.pop()
            left.add(leaving)
            ledger.append(entry(line[-1], replaced=leaving, move=Move.ROLLBACK))
        else:
            ledger.append(entry(at, replaced=line[-1] if line else None))
            line.append(at)
    assert ledger.champions() == tuple(line) and ledger.rolled_back() == left
    assert (ledger.last().champion if line else None) == (line[-1] if line else None)  # type: ignore[union-attr]


def test_what_is_put_out_again_is_no_longer_rolled_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for made in (entry(1), entry(2, replaced=1), entry(1, replaced=2, move=Move.ROLLBACK)):
        ledger.append(made)
    assert ledger.rolled_back() == {2}
    ledger.append(entry(2, replaced=1))
    assert ledger.rolled_back() == frozenset()


def test_a_champion_older_than_the_ledger_can_be_returned_to(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(entry(9, replaced=4))
    assert ledger.champions() == (4, 9)


def _append_many(path: str, first: int) -> None:
    ledger = Ledger(Path(path))
    for i in range(20):
        with ledger.lock():
            last = ledger.last()
            ledger.append(entry(first + i, replaced=last.champion if last else None))


def test_processes_take_turns(tmp_path: Path) -> None:
    """Every entry replaces the one before it: nobody read a state that somebody else was changing."""
    path = tmp_path / "ledger.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(str(path), n * 100 + 1)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    entries = Ledger(path).entries()
    assert len(entries) == 60
    assert [e.replaced for e in entries] == [None, *[e.champion for e in entries[:-1]]]
