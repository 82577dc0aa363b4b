"""What stands in a home's stores and belongs to nothing that is kept, one item at a time, with its size."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from training.context import TrainingContext
from training.pinsage.checkpoint import FILE as CHECKPOINT
from training.pipelines.pinnability import SET
from training.pipelines.pinnerformer_users import TABLES as NIGHTLY
from training.pipelines.retrievers import PINNERFORMER
from training.registry import Registry
from training.release_parts import registry_of
from validation.manifest import Space

if TYPE_CHECKING:
    from training.retention import Kept

ABANDONED_S = 86_400.0
"""A file that a process was writing is left over once nobody has touched it for so long."""

_LEAVING = ".leaving.tmp"
"""End of the name of a folder that is being deleted."""

_COLLECTION = re.compile(r"^pins__(?P<model>[a-z][a-z0-9_]*)__(?P<version>[1-9][0-9]*)$")
_BESIDE = re.compile(rf"^{SET}_(?P<model>[a-z][a-z0-9_]*)_(?P<version>[1-9][0-9]*)$")
_RUN = re.compile(r"^(?P<model>[a-z][a-z0-9_]*)-(?P<inputs>[0-9a-f]{32})$")


@dataclass(frozen=True)
class Leftover:
    """One thing to clear away."""

    kind: str
    name: str
    bytes: int
    drop: Callable[[], None]
    """Clears it; harmless where another run did."""


def leftovers(ctx: TrainingContext, kept: Kept, models: Sequence[str]) -> Iterator[Leftover]:
    """Everything of `models` that is not kept, in the order in which it may go. Raises MilvusUnreachable."""
    yield from _checkpoints(ctx, models)  # while the versions that they became still say so
    yield from _collections(ctx, kept)
    yield from _versions(registry_of(ctx), kept, models)
    yield from _offline(ctx, kept)
    yield from _online(ctx, kept)
    yield from _replicas(Path(ctx.feast_home) / "replicas", kept)
    yield from _nightly(ctx, kept)
    yield from _training_sets(ctx, kept)
    yield from _abandoned(ctx)


def _collections(ctx: TrainingContext, kept: Kept) -> Iterator[Leftover]:
    from feature_repo.vectors.milvus import connect

    milvus = connect(ctx.milvus_uri)
    try:
        gone = [name for name in milvus.collections() if _not_kept(_space(_COLLECTION, name), kept)]
        sizes = {name: _collection_bytes(milvus.open(name)) for name in gone}
    finally:
        milvus.close()
    for name in gone:
        yield Leftover("collection", name, sizes[name], partial(_drop_collection, ctx.milvus_uri, name))


def _collection_bytes(index) -> int:  # type: ignore[no-untyped-def]  # feature_repo.vectors.collection.MilvusIndex
    return int(index.rows) * int(index.dim) * 4


def _drop_collection(uri: str, name: str) -> None:
    from feature_repo.vectors.milvus import connect

    milvus = connect(uri)
    try:
        if milvus.exists(name):
            milvus.drop(name)
    finally:
        milvus.close()


def _versions(registry: Registry, kept: Kept, models: Sequence[str]) -> Iterator[Leftover]:
    for model in models:
        gone = [version for version in registry.versions(model) if not kept.version(model, version)]
        for version in sorted({*gone, *registry.half_dropped(model)}):
            size = registry.files_size(model, version)
            yield Leftover("model", f"{model}@{version}", size, partial(registry.drop, model, version))


def _offline(ctx: TrainingContext, kept: Kept) -> Iterator[Leftover]:
    from feature_repo.online.spaces import offline_spaces

    for view, space, file in offline_spaces(ctx.features):
        if not kept.space(Space.parse(space)):
            yield _path("offline rows", f"{view} of {space}", file)


def _online(ctx: TrainingContext, kept: Kept) -> Iterator[Leftover]:
    from feature_repo.online.spaces import drop_online, online_spaces
    from feature_repo.store import open_store

    store = open_store(ctx.feast_home)
    for view, space, size in online_spaces(store):
        if not kept.space(Space.parse(space)):
            name = f"{view} of {space}"
            yield Leftover("online rows", name, size, partial(drop_online, store, view, space))


def _replicas(folder: Path, kept: Kept) -> Iterator[Leftover]:
    for path in _entries(folder):
        if _not_kept(_space(_COLLECTION, path.name), kept):
            yield _path("replica", path.name, path)


def _nightly(ctx: TrainingContext, kept: Kept) -> Iterator[Leftover]:
    """Users' vectors night by night: those of weights that no kept version has."""
    registry = registry_of(ctx)
    held = {registry.weights_of(model, v) for model, v in kept.versions if model == PINNERFORMER}
    for path in _entries(ctx.training_sets / NIGHTLY):
        number = path.name.removeprefix("v")
        if number.isdigit() and int(number) not in held and int(number) < kept.newest.get(PINNERFORMER, 0):
            yield _path("nightly vectors", f"{PINNERFORMER}@{number}", path)


def _training_sets(ctx: TrainingContext, kept: Kept) -> Iterator[Leftover]:
    """Rows that were joined with a space that goes."""
    for path in _entries(ctx.training_sets):
        if _not_kept(_space(_BESIDE, path.name), kept):
            yield _path("training set", path.name, path)


def _checkpoints(ctx: TrainingContext, models: Sequence[str]) -> Iterator[Leftover]:
    """Those of runs that ended in a version, or that nobody goes on with."""
    registry = registry_of(ctx)
    for path in _entries(ctx.training_sets):
        run, file = _RUN.match(path.name), path / CHECKPOINT
        if run is None or run["model"] not in models or not file.exists():
            continue
        if registry.find(run["model"], run["inputs"]) is not None or _quiet_for(file, ABANDONED_S):
            yield _path("checkpoint", path.name, path)


def _abandoned(ctx: TrainingContext) -> Iterator[Leftover]:
    """What processes that were killed had begun to write, or to delete."""
    home = Path(ctx.feast_home)
    for folder in (ctx.lake, ctx.features, ctx.training_sets, home / "replicas"):
        for path in sorted((*folder.rglob("*.tmp"), *folder.rglob("*.part"))):
            if path.name.endswith(_LEAVING) or _quiet_for(path, ABANDONED_S):
                yield _path("unfinished file", path.relative_to(folder.parent).as_posix(), path)


def _space(pattern: re.Pattern[str], name: str) -> Space | None:
    found = pattern.match(name)
    return None if found is None else Space(model=found["model"], version=int(found["version"]))


def _not_kept(space: Space | None, kept: Kept) -> bool:
    return space is not None and not kept.space(space)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _quiet_for(path: Path, seconds: float) -> bool:
    return time.time() - path.stat().st_mtime > seconds


def _path(kind: str, name: str, path: Path) -> Leftover:
    files = path.rglob("*") if path.is_dir() else (path,)
    size = sum(file.stat().st_size for file in files if file.is_file())
    return Leftover(kind, name, size, partial(_remove, path))


def _remove(path: Path) -> None:
    """Delete a file or folder; a folder first leaves its name, so that no reader finds half of it."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    leaving = path
    if not path.name.endswith(_LEAVING):
        leaving = path.with_name(f".{path.name}{_LEAVING}")
        shutil.rmtree(leaving, ignore_errors=True)
        path.rename(leaving)
    shutil.rmtree(leaving, ignore_errors=True)
