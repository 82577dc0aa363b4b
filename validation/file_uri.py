"""Where a registry's files lie, if that is on this machine."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse


def local_folder(uri: str) -> Path | None:
    """The folder of a file URI or a path, None for any other URI."""
    parts = urlparse(uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def folder_gone(uri: str) -> Path | None:
    """The folder of a file URI or a path, where there is none: somebody took it away."""
    folder = local_folder(uri)
    return folder if folder is not None and not folder.exists() else None


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite database's URI, which may go on with a query (`sqlite:////x.db?timeout=30`); None
    for any other URI."""
    path, _, _ = uri.partition("?")
    return Path(path.removeprefix("sqlite:///")) if path.startswith("sqlite:///") else None
