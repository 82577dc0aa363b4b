"""Ids taken out of a version's graph: nobody is found by them, and everybody else still is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from infra import forget_graphs
from infra.forget import _graphs
from infra.forget_graphs import named, unname
from tests.training.models.graphs import random_graph
from tests.training.planted_releases import is_locked
from training.models.pixie import PixieSettings, ReleasedPixie
from validation.file_digests import altered, digests_of
from validation.forgotten import Forgotten, Person
from validation.manifest import MANIFEST_FILE, RELEASE_MODEL


@pytest.mark.parametrize("gone", [slice(0, 1), slice(0, 3), slice(4, 6), slice(-1, None)])
def test_rows_stay_and_are_found_by_the_names_that_are_left(tmp_path: Path, gone: slice) -> None:
    graph = random_graph()
    ReleasedPixie(PixieSettings(), graph).save(tmp_path / "v")
    boards = np.sort(graph.board_ids)
    theirs = boards[gone].tolist()
    person = Person(own_id="7", lake_id=int(boards[5]), boards=tuple(theirs))
    assert named(tmp_path / "v", person) == len(theirs)
    unname(tmp_path / "v", person, ())
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
        unname(tmp_path, Person(own_id="7", lake_id=1, boards=tuple(graph.board_ids[:1].tolist())), ())
    assert sorted(tmp_path.rglob("*")) == before


def released(tmp_path: Path) -> tuple[Path, Path, Person]:
    """A graph's folder, the manifest of a release that holds it, and whose boards are in it."""
    folder, manifest, graph = tmp_path / "v", tmp_path / "manifest.json", random_graph()
    ReleasedPixie(PixieSettings(), graph).save(folder)
    manifest.write_text(json.dumps(digests_of(folder), indent=2))
    return folder, manifest, Person(own_id="7", lake_id=1, boards=tuple(graph.board_ids[:2].tolist()))


def test_the_release_holds_the_digest_of_the_graph_that_is_left(tmp_path: Path) -> None:
    folder, manifest, person = released(tmp_path)
    other = tmp_path / "other.json"
    other.write_text("{}\n")
    stamp = other.stat()
    unname(folder, person, [other, manifest])
    assert altered(folder, json.loads(manifest.read_text())) == []
    assert (other.stat().st_ino, other.stat().st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)


def test_killed_before_the_file_is_replaced_the_release_is_refused_until_it_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    folder, manifest, person = released(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(forget_graphs, "take_place", dies)
        with pytest.raises(KeyboardInterrupt):
            unname(folder, person, [manifest])
    assert altered(folder, json.loads(manifest.read_text())) == ["graph/board_ids.npy is another file"]
    assert named(folder, person) == 2
    unname(folder, person, [manifest])
    assert altered(folder, json.loads(manifest.read_text())) == [] and named(folder, person) == 0


def test_who_was_half_forgotten_goes_first_so_that_the_release_is_whole_after_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    folder, written, first = released(tmp_path)
    manifest = tmp_path / "run" / RELEASE_MODEL / MANIFEST_FILE
    manifest.parent.mkdir(parents=True)
    written.rename(manifest)
    second = Person(own_id="8", lake_id=2, boards=tuple(random_graph().board_ids[3:5].tolist()))
    Forgotten().begun(first).begun(second).save(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(forget_graphs, "take_place", dies)
        with pytest.raises(KeyboardInterrupt):
            unname(folder, first, [manifest])
    _graphs(tmp_path, tmp_path / "ledger.jsonl", second, Forgotten.of(tmp_path).under_way()).remove()
    assert altered(folder, json.loads(manifest.read_text())) == []
    assert named(folder, first) == named(folder, second) == 0


def test_graphs_are_replaced_under_the_ledgers_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*_: object) -> None:
        assert is_locked(ledger)
        raise KeyboardInterrupt

    _, _, person = released(tmp_path)
    ledger = tmp_path / "releases" / "ledger.jsonl"
    monkeypatch.setattr(forget_graphs, "unname", held)
    with pytest.raises(KeyboardInterrupt):
        _graphs(tmp_path, ledger, person, ()).remove()
    assert not is_locked(ledger)


def test_a_graph_that_was_damaged_stays_refused(tmp_path: Path) -> None:
    folder, manifest, person = released(tmp_path)
    file = folder / "graph" / "board_ids.npy"
    ids = np.load(file)
    ids[np.argmax(ids)] += 1
    np.save(file, ids)
    unname(folder, person, [manifest])
    assert named(folder, person) == 0
    assert altered(folder, json.loads(manifest.read_text())) == ["graph/board_ids.npy is another file"]
