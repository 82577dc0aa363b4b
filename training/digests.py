"""What pipelines tell by whether anything changed: digests of files and of values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest_files(paths: Iterable[Path]) -> str:
    """Content digest of files and folders (32 hex digits): equal files give equal digests wherever they lie.

    What Python and numba keep in `__pycache__` is no part of it: a run must not change its own code's digest.
    """
    total = hashlib.sha256()
    for root in sorted(paths):
        files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if _counted(p))
        for file in files:
            with file.open("rb") as handle:
                content = hashlib.file_digest(handle, "sha256").hexdigest()
            name = file.name if file == root else file.relative_to(root.parent).as_posix()
            total.update(f"{name}\0{content}\n".encode())
    return total.hexdigest()[:32]


def _counted(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def digest_of(*parts: object) -> str:
    """Digest of values by their text (32 hex digits), for combining digests, parameters and versions."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]
