"""The files of a release's part: those that its release keeps digests of, or what to do about others."""

from __future__ import annotations

from pathlib import Path

from validation.file_digests import altered
from validation.manifest import RELEASE_MODEL, Part


class FilesGone(FileNotFoundError):
    """A version whose files somebody took away: the registry answers, and its folder is not there."""

    @classmethod
    def of(cls, model: str, version: int, folder: Path, file: str = "") -> FilesGone:
        """Of a version whose folder is not there, or does not hold `file`."""
        return cls(f"{model}@{version} has no {file or 'files'}; {mend_for(model, folder)}")


def unlike_released(part: Part, folder: Path) -> list[str]:
    """What in `folder` is not what `part` was released with, a few words for each file; nothing where its
    release keeps no digests. Raises OSError."""
    return [] if part.files is None else altered(folder, part.files)


def mend_for(model: str, folder: Path) -> str:
    """What to do about a model's files in `folder` that are others than they were, unreadable or gone."""
    anew = "`corkboard release`"
    if model != RELEASE_MODEL:
        anew = f"`corkboard train --model {model} --force` and {anew}"
    moved = "" if folder.exists() else "`corkboard status` if the home was moved, "
    return (
        f"run {moved}`corkboard forget` again if one was cut short, else put back the files in {folder}, "
        f"or run {anew}"
    )
