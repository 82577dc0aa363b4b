"""The files of a release's parts: which they were when it was made, and that they are still those."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from training.registry import Registry, VersionDropped
from training.release_parts import ReleaseError
from validation.file_digests import digests_of
from validation.manifest import Part, ReleaseManifest
from validation.part_files import mend_for, unlike_released


def released_files(registry: Registry, part: Part) -> Path:
    """Folder of a part's files, which are those that its release was made of, as far as that keeps digests.

    Raises ReleaseError naming files that are not, or where none can be had; VersionDropped.
    """
    folder, wrong = _found(registry, part)
    if wrong:
        raise ReleaseError(
            f"{part.name} is not what was released: {', '.join(wrong)}; {mend_for(part.model, folder)}"
        )
    return folder


def check_unchanged(registry: Registry, parts: Iterable[Part]) -> None:
    """Hold parts that were just measured to the digests that they had before.

    Under the ledger's lock nobody changes them until it is let go: `corkboard forget` takes it as well. Raises
    ReleaseError, VersionDropped.
    """
    for part in parts:
        _, wrong = _found(registry, part)
        if wrong:
            raise ReleaseError(
                f"{part.name} changed while the release was measured, as `corkboard forget` makes graphs do:"
                f" {', '.join(wrong)}; run `corkboard release` again"
            )


def with_digests(
    registry: Registry, parts: Mapping[str, Part], before: Iterable[ReleaseManifest]
) -> dict[str, Part]:
    """The parts, by role, with the digests of their files. `before` are the releases, the newest first, whose
    digests of these versions stand: the files of a version never change. None is read that is older than every
    version whose digests are not found yet.

    Raises ReleaseError where they did, cannot be read, or where there are none; VersionDropped.
    """
    known: dict[str, dict[str, str]] = {}
    for release in before:
        for part in release.parts.values():
            if part.files is not None:
                known.setdefault(part.name, part.files)
        sought = [part for part in parts.values() if part.name not in known]
        if all(registry.made_at(part.model, part.version) > release.created_at for part in sought):
            break
    out = {}
    for role, part in parts.items():
        stated = part.model_copy(update={"files": known.get(part.name)})
        folder = released_files(registry, stated)
        with _reading(part):
            found = stated.files or digests_of(folder)
        if not found:
            raise ReleaseError(
                f"{part.name} has no files (in {folder}); run `corkboard train --model {part.model} --force`"
            )
        out[role] = stated.model_copy(update={"files": found})
    return out


def _found(registry: Registry, part: Part) -> tuple[Path, list[str]]:
    """Folder of a part's files, and which of them are not those that its digests are of."""
    with _reading(part):
        folder = registry.download(part.model, part.version)
        return folder, unlike_released(part, folder)


@contextmanager
def _reading(part: Part) -> Iterator[None]:
    """Raises ReleaseError naming the part for whatever is raised meanwhile, but for VersionDropped."""
    try:
        yield
    except VersionDropped:
        raise
    except Exception as error:
        # Registries and disks fail in ways of their own; without its files there is no part.
        raise ReleaseError(f"the files of {part.name} cannot be read: {error}") from error
