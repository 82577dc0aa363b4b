"""Small files that are there whole or as they were before, whoever dies or reads meanwhile."""

from __future__ import annotations

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Replace the file at `path` by `text`, UTF-8. Its folder must exist."""
    staged = path.with_suffix(f".{os.getpid()}.tmp")
    staged.write_text(text, encoding="utf-8")
    staged.replace(path)


def sync_folder(folder: Path) -> None:
    """Make a new, renamed or replaced entry of `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
