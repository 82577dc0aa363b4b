"""The append-only record of every promotion and rollback (MLflow keeps no history of an alias).

One JSON object a line, flushed to disk before any alias moves. The last line is what the aliases should say:
if the process dies in between, the next one finishes the move.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from pydantic import AwareDatetime, ValidationError

from validation.gate_results import GateResult
from validation.manifest import Frozen
from validation.whole_files import sync_folder


class LedgerBroken(RuntimeError):
    """A line of the ledger cannot be read; nothing is promoted until it is mended."""


class Move(StrEnum):
    PROMOTE = "promote"
    ROLLBACK = "rollback"


class LedgerEntry(Frozen):
    """One move of the champion alias and the state it leads to."""

    at: AwareDatetime
    move: Move
    champion: int
    """Release version that is champion after the move."""
    previous: int | None
    """Release version a rollback would return to after the move."""
    replaced: int | None
    """Champion before the move."""
    by: str
    """Operating system user and host."""
    git_commit: str
    """Of the code that moved it."""
    override: str | None = None
    """Why it was promoted although gates failed."""
    gates: tuple[GateResult, ...] = ()

    @property
    def failed(self) -> tuple[GateResult, ...]:
        """Gates that did not pass (an override was given, or this is a rollback)."""
        return tuple(g for g in self.gates if not g.passed)


class Ledger:
    """The ledger at `path`; the file and its folder appear with the first line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Every line, oldest first.

        A last line without its newline was never acknowledged (the process died writing it) and does not
        count. Raises LedgerBroken naming any other line that does not parse.
        """
        if not self.path.exists():
            return ()
        lines = self.path.read_bytes().split(b"\n")[:-1]
        out = []
        for number, line in enumerate(lines, start=1):
            try:
                out.append(LedgerEntry.model_validate_json(line))
            except ValidationError as error:
                raise LedgerBroken(f"{self.path}, line {number} is not a ledger entry: {error}") from error
        return tuple(out)

    def last(self) -> LedgerEntry | None:
        """The newest entry, what the aliases should say."""
        entries = self.entries()
        return entries[-1] if entries else None

    def append(self, entry: LedgerEntry) -> None:
        """Add one line and return once it is on disk. Hold `lock` around reading and appending."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _cut_torn_line(descriptor)
            _write_all(descriptor, entry.model_dump_json().encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync_folder(self.path.parent)

    def champions(self) -> tuple[int, ...]:
        """The champions a rollback would walk back along, oldest first; the last one is champion now.

        A promotion adds its version and a rollback takes the last one off, so two rollbacks in a row go back
        two releases, never forth to the one just left.
        """
        line: list[int] = []
        for entry in self.entries():
            if not line and entry.replaced is not None:
                line.append(entry.replaced)  # it became champion before this ledger began
            if entry.move is Move.PROMOTE:
                line.append(entry.champion)
            else:
                line.pop()
        return tuple(line)

    def rolled_back(self) -> frozenset[int]:
        """The versions that a rollback left and that no promotion has put out again."""
        left: set[int] = set()
        for entry in self.entries():
            if entry.move is Move.ROLLBACK and entry.replaced is not None:
                left.add(entry.replaced)
            left.discard(entry.champion)
        return frozenset(left)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One at a time among the processes that share this ledger's file: who moves an alias, registers a
        release, or changes or clears files that releases are made of."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield


def _cut_torn_line(descriptor: int) -> None:
    """Drop what a dead writer left after the last newline."""
    length = os.fstat(descriptor).st_size
    if length == 0:
        return
    tail = b""
    at = length
    while at > 0 and b"\n" not in tail:
        step = min(4096, at)
        at -= step
        tail = os.pread(descriptor, step, at) + tail
    kept = at + tail.rfind(b"\n") + 1
    if kept < length:
        os.ftruncate(descriptor, kept)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
