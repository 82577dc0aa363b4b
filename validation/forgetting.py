"""A user's rows and lines, found in files and taken out of them.

Every file is replaced whole and durably: killed at any instant, there is the old file or the new one, and the
same again does the rest.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from validation.events import ForgottenRecord, to_line
from validation.forgotten import Person
from validation.whole_files import sync_folder

USER_COLUMNS = ("user_id", "owner_id")
"""Columns that name a user: who acted, and whose a board is."""

_ROWS = 100_000

Wanted = Callable[[pa.Array], np.ndarray]
"""Which of a column's values name the user, (n,) bool."""


def by_lake_id(person: Person) -> Wanted:
    """For files in the lake's ids."""
    return lambda column: _flags(pc.equal(column, person.lake_id))


def by_own_id(person: Person) -> Wanted:
    """For files as the data set writes them."""

    def wanted(column: pa.Array) -> np.ndarray:
        if pa.types.is_floating(column.type):  # whole numbers beside nulls, as pandas writes them
            return _flags(pc.equal(column, float(person.own_id) if person.own_id.isdecimal() else math.nan))
        return _flags(pc.equal(column.cast(pa.string()), person.own_id))

    return wanted


def rows_of(file: Path, wanted: Wanted) -> int:
    """Rows of a Parquet file that name the user; 0 for a file without such a column."""
    columns = _columns(file)
    if not columns:
        return 0
    with pq.ParquetFile(file) as parquet:
        return sum(
            int(_named(batch, columns, wanted).sum())
            for batch in parquet.iter_batches(batch_size=_ROWS, columns=columns)
        )


def remove_rows(file: Path, wanted: Wanted, *, empty: bool = True) -> None:
    """Take the user's rows out of a Parquet file. A file that is left without rows goes, unless `empty`."""
    if not rows_of(file, wanted):
        return
    columns, kept = _columns(file), 0
    staged = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        with (
            pq.ParquetFile(file) as parquet,
            pq.ParquetWriter(staged, parquet.schema_arrow, compression="zstd") as writer,
        ):
            for batch in parquet.iter_batches(batch_size=_ROWS):
                rest = batch.filter(pa.array(~_named(batch, columns, wanted)))
                kept += rest.num_rows
                writer.write_batch(rest)
        if kept or empty:
            take_place(staged, file)
        else:
            file.unlink()
            sync_folder(file.parent)
    finally:
        staged.unlink(missing_ok=True)


def lines_of(file: Path, pattern: re.Pattern[bytes]) -> int:
    """Lines of a text file that match."""
    with file.open("rb") as lines:
        return sum(pattern.search(line) is not None for line in lines)


def remove_lines(file: Path, pattern: re.Pattern[bytes]) -> None:
    """Take the lines that match out of a text file."""
    _rewrite(file, (line for line in _read(file) if not pattern.search(line)))


def blank_lines(segment: Path, pattern: re.Pattern[bytes]) -> None:
    """Put a record of nothing, as long as it was, in the place of every line of the event log that matches.

    Lengths and the time of the last write stay, so that the ingest's cursors, and what a service still needs of
    the log, are right before and after.
    """
    status = segment.stat()
    nothing = to_line(ForgottenRecord())[:-1]
    lines = (
        nothing.ljust(len(line) - 1) + b"\n" if line.endswith(b"\n") and pattern.search(line) else line
        for line in _read(segment)
    )
    _rewrite(segment, lines, times=(status.st_atime_ns, status.st_mtime_ns))


def replace_word(file: Path, word: bytes, by: bytes) -> None:
    """Put `by` in place of `word` wherever a text file has it; one that does not is left alone."""
    if word in file.read_bytes():
        _rewrite(file, (line.replace(word, by) for line in _read(file)))


def user_pattern(own_id: str) -> re.Pattern[bytes]:
    """Text that names a user by a number: `"user_id": 7`, `user 7`, `user_id=7`."""
    before = rb"(?<![a-z])user(?:_?id)?[\"']?\s{0,2}[:= ]\s{0,2}[\"']?"
    return re.compile(before + re.escape(own_id.encode()) + rb"(?![\w.-])", re.I)


def _columns(file: Path) -> list[str]:
    names = pq.read_schema(file).names
    return [name for name in USER_COLUMNS if name in names]


def _named(batch: pa.RecordBatch, columns: list[str], wanted: Wanted) -> np.ndarray:
    flags = np.zeros(batch.num_rows, bool)
    for name in columns:
        flags |= wanted(batch.column(name))
    return flags


def _flags(column: pa.Array) -> np.ndarray:
    return pc.fill_null(column, False).to_numpy(zero_copy_only=False).astype(bool)


def _read(file: Path) -> Iterator[bytes]:
    with file.open("rb") as lines:
        yield from lines


def _rewrite(file: Path, lines: Iterator[bytes], times: tuple[int, int] | None = None) -> None:
    staged = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with staged.open("wb") as out:
            out.writelines(lines)
        if times is not None:
            os.utime(staged, ns=times)
        take_place(staged, file)
    finally:
        staged.unlink(missing_ok=True)


def take_place(staged: Path, file: Path) -> None:
    """Put `staged` where `file` is, once it is on disk; on return the name is as well."""
    with staged.open("rb") as written:
        os.fsync(written.fileno())
    staged.replace(file)
    sync_folder(file.parent)
