"""The release that a home served last, and where its files lie: what a service goes by while MLflow is down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict


def note_of(home: Path, role: str) -> Path:
    """Where the home's processes of one role note what they serve."""
    return home / "run" / f"served-{role}.json"


def notes(home: Path) -> Iterator[Path]:
    """The notes that a home has; none before it served a release."""
    return (home / "run").glob("served-*.json")


class KeptRelease(BaseModel):
    """One process role's note; it is served again where it can be, and nothing is lost with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alias: str
    version: int
    folders: dict[str, str]
    """`model@version` -> the folder that the registry gave for it, of all that the release is made of."""

    @classmethod
    def read(cls, path: Path) -> KeptRelease | None:
        """The note at `path`; None where there is none that can be read."""
        try:
            return cls.model_validate_json(path.read_text())
        except (OSError, ValueError):
            return None

    def save(self, path: Path) -> None:
        """Replace the note at `path`, whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        staged.write_text(self.model_dump_json(indent=2))
        staged.replace(path)


def nothing_noted() -> int | None:
    """`served_last` of a process that has no note to go by."""
    return None
