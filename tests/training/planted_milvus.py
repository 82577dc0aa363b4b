"""Collections as files, in place of a Milvus: what a crash leaves of them can be looked at without a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feature_repo.vectors import milvus
from feature_repo.vectors.index import CollectionMissing
from tests.training.planted_releases import DIM, ROWS


@dataclass(frozen=True)
class FileMilvus:
    """As much of `Milvus` as retention asks for."""

    folder: Path

    def collections(self) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in self.folder.iterdir()))

    def exists(self, name: str) -> bool:
        return (self.folder / name).exists()

    def open(self, name: str) -> FileIndex:
        if not self.exists(name):
            raise CollectionMissing(name)
        return FileIndex()

    def drop(self, name: str) -> None:
        (self.folder / name).unlink()

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class FileIndex:
    rows: int = ROWS
    dim: int = DIM


def build(home: Path, collections: int) -> None:
    """`pins__content__1` to that of the last release."""
    folder = home / "collections"
    folder.mkdir()
    for number in range(1, collections + 1):
        (folder / f"pins__content__{number}").touch()


def stands_in(home: Path) -> None:
    """From now on this process finds the home's files where it asks for a Milvus."""
    milvus.connect = lambda uri, **_: FileMilvus(home / "collections")  # type: ignore[assignment,return-value]
