"""Ids taken out of a version's graph: nobody is found by them, and everybody else still is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra import forget_graphs
from infra.forget_graphs import named, unname
from tests.training.models.graphs import random_graph
from training.models.pixie import PixieSettings, ReleasedPixie
from validation.forgotten import Person


@pytest.mark.parametrize("gone", [slice(0, 1), slice(0, 3), slice(4, 6), slice(-1, None)])
def test_rows_stay_and_are_found_by_the_names_that_are_left(tmp_path: Path, gone: slice) -> None:
    graph = random_graph()
    ReleasedPixie(PixieSettings(), graph).save(tmp_path / "v")
    boards = np.sort(graph.board_ids)
    theirs = boards[gone].tolist()
    person = Person(own_id="7", lake_id=int(boards[5]), boards=tuple(theirs))
    assert named(tmp_path / "v", person) == len(theirs)
    unname(tmp_path / "v", person)
    assert named(tmp_path / "v", person) == 0
    left = ReleasedPixie.load(tmp_path / "v").graph
    others = np.setdiff1d(boards, theirs)
    assert (left.board_index_of(others) == graph.board_index_of(others)).all()
    assert (left.board_index_of([*theirs, 0]) == -1).all()
    assert (left.edge_list()[1] == graph.edge_list()[1]).all()


def test_what_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(staged: Path, file: Path) -> None:
        raise OSError("no space is left")

    graph = random_graph()
    ReleasedPixie(PixieSettings(), graph).save(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(forget_graphs, "take_place", full)
    with pytest.raises(OSError, match="no space"):
        unname(tmp_path, Person(own_id="7", lake_id=1, boards=tuple(graph.board_ids[:1].tolist())))
    assert sorted(tmp_path.rglob("*")) == before
