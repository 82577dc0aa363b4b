"""Boards, or users, that a version's graph names at the other end of its edges: counted, and left unnamed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.models.pixie.released import GRAPH, SETTINGS, PixieSettings
from validation.file_digests import digest_of
from validation.forgetting import replace_word, take_place
from validation.forgotten import Person

NOBODY = -1
"""Below every id: stands where no other id comes before."""


def named(folder: Path, person: Person) -> int:
    """How many ids of the version in `folder` are the person's: their boards, or themselves where edges lead to
    users."""
    return int(_theirs(_ids(folder), folder, person).sum())


def unname(folder: Path, person: Person, manifests: Sequence[Path]) -> None:
    """Take those ids out of the version; its edges stay, as counts that name nobody.

    A row that loses its id gets the one before it in order, which a search finds at its own row: the order of
    the ids is what it was, and one file is replaced, whole and durably. Where release manifests of `manifests`
    hold the file's digest they hold the new one before; killed between the two, services refuse those releases
    until the same again, before anybody else is taken out, replaces the file. A file that was damaged is none
    that they hold, and stays refused. The digest in the graph's own files stays that of the graph as it was
    built.
    """
    ids, order = _ids(folder), np.load(folder / GRAPH / "board_order.npy")
    rising = np.where(_theirs(ids, folder, person), NOBODY, ids)[order]
    left = np.empty_like(ids)
    left[order] = np.maximum.accumulate(rising)
    file = _file(folder)
    staged = file.with_name(f".{os.getpid()}.{file.name}")  # numpy wants the suffix
    try:
        np.save(staged, left, allow_pickle=False)
        before, after = digest_of(file).encode(), digest_of(staged).encode()
        for manifest in manifests:
            replace_word(manifest, before, after)
        take_place(staged, file)
    finally:
        staged.unlink(missing_ok=True)


def _theirs(ids: NDArray[np.int64], folder: Path, person: Person) -> NDArray[np.bool_]:
    """Which of `ids` (n,) name the person."""
    context = PixieSettings.model_validate_json((folder / SETTINGS).read_text()).context
    theirs = {"board": person.boards, "user": (person.lake_id,)}.get(context, ())
    return np.isin(ids, np.array(theirs, np.int64))


def _ids(folder: Path) -> NDArray[np.int64]:
    return np.load(_file(folder), allow_pickle=False)


def _file(folder: Path) -> Path:
    return folder / GRAPH / "board_ids.npy"
