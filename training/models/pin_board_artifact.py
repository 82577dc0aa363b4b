"""A pin-board graph on disk: one folder of graph.json and a .npy an array, written once and mapped read-only.

Kernels that walk a graph check no bounds, so what could send them out of its arrays is found here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

Arrays = Mapping[str, NDArray[np.generic]]

FORMAT = 1
MANIFEST = "graph.json"

_TYPES = {
    "pin_ids": np.int64,
    "board_ids": np.int64,
    "pin_labels": np.uint16,
    "board_labels": np.uint16,
    "pin_order": np.int32,
    "board_order": np.int32,
    "pin_boards": np.int32,
    "board_pins": np.int32,
    "pin_edge_labels": np.uint16,
    "board_edge_labels": np.uint16,
}
_OFFSETS = ("pin_offsets", "board_offsets")
"""int32, or int64 where there are too many edges for it."""


class GraphError(ValueError):
    """Edges, ids or files that make no graph."""


class GraphInfo(BaseModel):
    """What a graph says about itself; kept beside the arrays and shown in model cards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context: str = "board"
    """What stands at the other end of an edge: board, or the context that takes its place."""
    as_of_ms: int | None = None
    """Saves before this Unix time (ms) are in; None where the edges carried no times."""
    languages: tuple[str, ...] = ()
    """Language of codes 1, 2, ...; code 0 is unknown."""
    topics: tuple[int, ...] = ()
    """Topic id of codes 1, 2, ...; code 0 is unknown."""
    notes: tuple[str, ...] = ()
    """How edges were chosen and pruned, a line each."""


def frozen(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """A read-only view: a graph is shared by threads, and one array type means one compiled kernel."""
    view = np.ascontiguousarray(array).view(np.ndarray)
    if view.flags.writeable:
        view = view.view()
        view.flags.writeable = False
    return view


def write_artifact(path: Path, arrays: Arrays, info: GraphInfo, counts: Mapping[str, int]) -> str:
    """Write `arrays` by name, `info` and `counts` into the folder `path`; returns the digest of the arrays.

    Written beside and renamed, so that a reader sees a whole artifact or none. Raises GraphError where `path`
    exists: artifacts are never rewritten.
    """
    if path.exists():
        raise GraphError(f"{path} exists already; a graph artifact is never rewritten, choose a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    for name, array in arrays.items():
        np.save(staged / f"{name}.npy", array, allow_pickle=False)
    digest = digest_of(arrays)
    manifest = {"format": FORMAT, "digest": digest, "info": info.model_dump(mode="json")}
    (staged / MANIFEST).write_text(json.dumps({**manifest, **counts}, indent=2) + "\n")
    staged.rename(path)
    return digest


def digest_of(arrays: Arrays) -> str:
    """16 hex digits over names, types, shapes and contents."""
    sha = hashlib.sha256()
    for name, array in arrays.items():
        sha.update(f"{name} {array.dtype} {array.shape}".encode())
        sha.update(memoryview(array).cast("B") if array.size else b"")
    return sha.hexdigest()[:16]


def read_artifact(
    path: Path, *, resident: bool = False
) -> tuple[dict[str, NDArray[np.generic]], GraphInfo, dict[str, Any]]:
    """(arrays by name, what the graph says of itself, its manifest) of the folder `path`, mapped read-only.

    `resident` copies the arrays into memory. Raises GraphError naming a file that is missing or damaged, or of
    another format.
    """
    manifest = _manifest(path)
    arrays = {name: _read(path / f"{name}.npy", resident) for name in (*_TYPES, *_OFFSETS)}
    return arrays, GraphInfo.model_validate(manifest["info"]), manifest


def _manifest(path: Path) -> dict:
    """graph.json of the artifact, its format checked."""
    file = path / MANIFEST
    if not file.exists():
        raise GraphError(f"{path} holds no graph artifact ({MANIFEST} is missing)")
    try:
        manifest = json.loads(file.read_text())
        GraphInfo.model_validate(manifest["info"])
    except (json.JSONDecodeError, KeyError, ValidationError) as wrong:
        raise GraphError(f"{file} is damaged: {wrong}") from wrong
    if manifest.get("format") != FORMAT:
        raise GraphError(
            f"{file}: format {manifest.get('format')}, this code reads {FORMAT}; build the graph anew"
        )
    return manifest


def _read(file: Path, resident: bool) -> NDArray[np.generic]:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as wrong:
        raise GraphError(f"{file} is missing or damaged: {wrong}") from wrong
    return frozen(np.array(array) if resident else np.asarray(array))


def check_artifact(path: Path, arrays: Arrays) -> None:
    """Raises GraphError where an array of the artifact at `path` could send a walk out of bounds."""
    for name, dtype in _TYPES.items():
        array = arrays[name]
        if array.dtype != dtype or array.ndim != 1:
            raise GraphError(f"{path / name}.npy holds {array.dtype} {array.shape}, expected a row of {dtype}")
    edges = len(arrays["pin_boards"])
    for what, other, ends in (("pin", "board", "pin_boards"), ("board", "pin", "board_pins")):
        offsets, order = arrays[f"{what}_offsets"], arrays[f"{what}_order"]
        nodes, others = len(arrays[f"{what}_ids"]), len(arrays[f"{other}_ids"])
        sound = offsets.dtype in (np.int32, np.int64) and len(offsets) == nodes + 1 and len(order) == nodes
        sound = sound and len(arrays[ends]) == edges and len(arrays[f"{what}_edge_labels"]) in (0, edges)
        if not sound or not _in_bounds(offsets, arrays[ends], others) or not _in_range(order, nodes):
            raise GraphError(f"{path}: rows of {what}s point outside the graph; the artifact is damaged")


@numba.njit(cache=True, nogil=True)
def _in_bounds(offsets, ends, others):
    if offsets[0] != 0 or offsets[-1] != len(ends):
        return False
    for i in range(len(offsets) - 1):
        if offsets[i] > offsets[i + 1]:
            return False
    return _in_range(ends, others)


@numba.njit(cache=True, nogil=True)
def _in_range(indexes, limit):
    sound = True
    for i in indexes:
        sound &= (i >= 0) & (i < limit)
    return sound
