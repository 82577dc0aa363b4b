"""The files of a release's part: those that its release keeps digests of, or what to do about others."""

from __future__ import annotations

from pathlib import Path

from validation.file_digests import altered
from validation.manifest import RELEASE_MODEL, Part


def unlike_released(part: Part, folder: Path) -> list[str]:
    """What in `folder` is not what `part` was released with, a few words for each file; nothing where its
    release keeps no digests. Raises OSError."""
    return [] if part.files is None else altered(folder, part.files)


def mend_for(model: str, folder: Path) -> str:
    """What to do about a model's files in `folder` that are others than they were, unreadable or gone."""
    anew = "`corkboard release`"
    if model != RELEASE_MODEL:
        anew = f"`corkboard train --model {model} --force` and {anew}"
    return (
        f"run `corkboard forget` again if one was cut short, else put back the files in {folder}, or run {anew}"
    )
