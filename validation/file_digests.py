"""Whether the files of a folder are those that they were: a SHA-256 of each, by its path below the folder.

Hidden files are no part of a folder: what a copy or a replacement that was cut short leaves is one.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from validation.file_stamp import SETTLED_NS, file_stamp


def digest_of(file: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits. One that did not change since this process read it is not read
    again. Raises OSError."""
    stamp = file_stamp(file)
    if time.time_ns() - stamp[1] < SETTLED_NS:
        return _read(file)
    return _remembered(file, stamp)


def digests_of(folder: Path) -> dict[str, str]:
    """`digest_of` each file below `folder`, by its path there; nothing of a folder that is not there. Raises
    OSError."""
    found = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {path: digest_of(found[path]) for path in sorted(found) if not _hidden(path)}


def altered(folder: Path, before: Mapping[str, str]) -> list[str]:
    """What is not as `before`, the digests that were, says; a few words for each file. Raises OSError."""
    found = digests_of(folder)
    return [
        *(f"{path} is missing" for path in before if path not in found),
        *(f"{path} is another file" for path in before if found.get(path, before[path]) != before[path]),
        *(f"{path} was not there" for path in found if path not in before),
    ]


def _hidden(path: str) -> bool:
    return any(name.startswith(".") for name in path.split("/"))


@lru_cache(maxsize=1024)
def _remembered(file: Path, stamp: tuple[int, ...]) -> str:
    """`stamp` tells the file from what it was."""
    return _read(file)


def _read(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
