"""What tells a file that changed from one that did not, at the price of a stat."""

from __future__ import annotations

import os
from pathlib import Path

SETTLED_NS = 1_000_000_000
"""A file that changed later than this before a look may change again and look the same: its time is coarse."""


def file_stamp(file: str | Path) -> tuple[int, ...]:
    """Time of its content, time of any change, which nobody can set back, size and inode. Raises OSError as
    `stat` does."""
    found = os.stat(file)
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
