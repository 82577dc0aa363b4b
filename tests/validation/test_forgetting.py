"""Files that a user is taken out of are replaced for good."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from validation.forgetting import remove_lines


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
