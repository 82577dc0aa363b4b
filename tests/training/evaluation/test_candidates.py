"""Candidates as files name them, and in the ids of a lake."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from training.evaluation.candidates import Candidates, CandidatesError, of_lake, read_candidates
from validation.ids import IdFormError, IdMap
from validation.tables import EntityKind


@pytest.mark.parametrize("name", ["c.parquet", "c.csv", "c.tsv"])
def test_tables_of_candidates(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"user_id": [1, 1, 2], "pin_id": [5, 6, 7], "held_out": [True, False, False]})
    path = tmp_path / name
    if name.endswith("parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if name.endswith("tsv") else ",")
    found = read_candidates(path)
    assert found.pins == {1: [5, 6], 2: [7]}
    assert found.held_out == {1: 5}


def test_ids_stay_text_where_they_are_text(tmp_path: Path) -> None:
    table = tmp_path / "c.csv"
    table.write_text("user_id,pin_id\n007,012\n")
    assert read_candidates(table).pins == {7: [12]}
    assert read_candidates(table, ("user_id", "pin_id")).pins == {"007": ["012"]}
    lines = tmp_path / "c.negative"
    lines.write_text("(007,1)\t012\n")
    found = read_candidates(lines, ("user_id",))
    assert (found.pins, found.held_out) == ({"007": [12]}, {"007": 1})


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CandidatesError, match="no such file"):
        read_candidates(tmp_path / "absent.csv")
    (tmp_path / "bad.negative").write_text("(1,2)\t3\n1 2 3\n")
    with pytest.raises(CandidatesError, match="line 2"):
        read_candidates(tmp_path / "bad.negative")
    (tmp_path / "bad.csv").write_text("user,pin\n1,2\n")
    with pytest.raises(CandidatesError, match="no column pin_id, user_id"):
        read_candidates(tmp_path / "bad.csv")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "text.parquet").write_text("nothing of the kind")
    for name in ("empty.csv", "text.parquet"):
        with pytest.raises(CandidatesError, match="not a table"):
            read_candidates(tmp_path / name)
    (tmp_path / "two.csv").write_text("user_id,pin_id,held_out\n1,2,True\n1,3,True\n")
    with pytest.raises(CandidatesError, match="user 1 has more than one held-out pin"):
        read_candidates(tmp_path / "two.csv")


@pytest.fixture
def ids(tmp_path: Path) -> IdMap:
    ids = IdMap(tmp_path / "ids.sqlite")
    ids.encode(EntityKind.USER, ["ann", "bob"])
    ids.encode(EntityKind.PIN, ["p", "q", "r"])
    return ids


def test_ids_of_the_data_set_become_the_lakes(ids: IdMap) -> None:
    given = Candidates({"bob": ["r", "unheard-of", "p"]}, {"bob": "q"})
    assert of_lake(given, ids) == Candidates({2: [3, 1]}, {2: 2})


def test_who_is_not_in_the_lake_is_named(ids: IdMap) -> None:
    with pytest.raises(CandidatesError, match=r"users that are not in the lake \(1\): eve"):
        of_lake(Candidates({"ann": ["p"], "eve": ["q"]}), ids)
    with pytest.raises(CandidatesError, match="held-out pins that are not in the lake"):
        of_lake(Candidates({"ann": ["p"]}, {"ann": "unheard-of"}), ids)
    with pytest.raises(IdFormError, match="user ids are integers here"):
        of_lake(Candidates({1: ["p"]}), ids)
