"""The files of a release's part: those that its release keeps digests of, or what to do about others."""

from __future__ import annotations

from pathlib import Path

from validation.file_digests import altered
from validation.manifest import Part


def unlike_released(part: Part, folder: Path) -> list[str]:
    """What in `folder` is not what `part` was released with, a few words for each file; nothing where its
    release keeps no digests. Raises OSError."""
    return [] if part.files is None else altered(folder, part.files)


def mend_for(part: Part, folder: Path) -> str:
    """What to do about files of `part` in `folder` that are not the released ones, or cannot be made out."""
    return (
        f"run `corkboard forget` again if one was cut short, else put back the files in {folder}, or run"
        f" `corkboard train --model {part.model} --force` and `corkboard release`"
    )
