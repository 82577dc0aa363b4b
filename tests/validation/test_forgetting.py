"""Files that a user is taken out of are replaced for good."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from validation import forgetting
from validation.forgetting import by_own_id, remove_lines, remove_rows
from validation.forgotten import Person


def test_a_file_takes_its_place_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are on disk before the name is moved, and the moved name before anything else is done."""
    synced: list[tuple[str, str]] = []

    def note(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        synced.append((kind, log.read_text()))

    log = tmp_path / "service.log"
    log.write_text("user 7\nuser 8\n")
    monkeypatch.setattr(os, "fsync", note)
    remove_lines(log, re.compile(b"user 7"))
    assert synced == [("file", "user 7\nuser 8\n"), ("folder", "user 8\n")]


def test_a_file_left_without_rows_goes_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On return the folder is on disk without it."""
    file = tmp_path / "part.parquet"
    pq.write_table(pa.table({"user_id": [7, 7]}), file)
    synced: list[tuple[Path, bool]] = []
    monkeypatch.setattr(forgetting, "sync_folder", lambda folder: synced.append((folder, file.exists())))
    remove_rows(file, by_own_id(Person(own_id="7", lake_id=7)), empty=False)
    assert synced == [(tmp_path, False)]
