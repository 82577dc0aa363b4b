"""Files that are others than they were are named, each with what became of it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from validation import file_digests
from validation.file_digests import altered, digest_of, digests_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "graph").mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(range(256)) * 5_000)
    (tmp_path / "graph" / "ids.npy").write_bytes(b"ids")
    (tmp_path / "graph" / "empty").touch()
    return tmp_path


def test_every_file_has_the_digest_of_its_bytes(folder: Path) -> None:
    (folder / ".staged.npy").write_text("left by who was killed")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "index").write_text("")
    assert digests_of(folder) == {
        path: hashlib.sha256((folder / path).read_bytes()).hexdigest()
        for path in ("graph/empty", "graph/ids.npy", "weights.bin")
    }
    assert digests_of(folder / "nowhere") == {}


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[700_000] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: None, []),
        (lambda folder: flip(folder / "weights.bin"), ["weights.bin is another file"]),
        (lambda folder: os.truncate(folder / "weights.bin", 9), ["weights.bin is another file"]),
        (lambda folder: (folder / "graph" / "ids.npy").unlink(), ["graph/ids.npy is missing"]),
        (lambda folder: (folder / "graph" / "more").touch(), ["graph/more was not there"]),
        (
            lambda folder: (folder / "weights.bin").rename(folder / "other.bin"),
            ["weights.bin is missing", "other.bin was not there"],
        ),
    ],
    ids=["nothing", "a bit", "the end", "a file gone", "a file more", "another name"],
)
def test_what_changed_is_named(folder: Path, harm: Callable[[Path], object], said: list[str]) -> None:
    before = digests_of(folder)
    harm(folder)
    assert altered(folder, before) == said


def test_a_file_is_read_again_only_where_it_may_have_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    read = file_digests._read
    monkeypatch.setattr(file_digests, "_read", lambda file: reads.append(file) or read(file))
    file = folder / "weights.bin"
    monkeypatch.setattr(file_digests, "SETTLED_NS", 10**15)
    digest_of(file)
    digest_of(file)
    assert len(reads) == 2, "written a moment ago, it may have been written again within its time's grain"
    monkeypatch.setattr(file_digests, "SETTLED_NS", 0)
    os.utime(file, (1, 1))
    before = digest_of(file)
    assert digest_of(file) == before and len(reads) == 3
    time.sleep(0.02)  # the clock of files is coarse
    flip(file)
    os.utime(file, (1, 1))
    assert digest_of(file) != before and len(reads) == 4, "a copy may leave size and time as they were"
