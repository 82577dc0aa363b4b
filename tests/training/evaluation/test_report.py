"""The table says what was measured, in text and in JSON, and is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from training.evaluation.figure import FigureError, draw
from training.evaluation.report import Report, ReportError, Row


@pytest.fixture
def report() -> Report:
    plain = {"HR@5": np.array([[0.0, 1.0, 0.0, 1.0]]), "HR@9": np.array([[1.0, 1.0, 0.0, 1.0]])}
    walk = {
        "HR@5": np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]),
        "HR@9": np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]),
        "HR@5/new_users": np.array([[1.0], [1.0]]),
    }
    rows = (Row("plain", "all", plain, (), 0, 1.0, 2.0), Row("walk", "all", walk, (0, 1), 1, 3.0, 4.0))
    return Report(
        "temporal",
        {"all": "among all pins"},
        ("HR@5", "HR@9"),
        {"users": 4, "cut": "2026-01-01"},
        rows,
        {"ease": "too many pins"},
        against="plain",
        settings={"seeds": 2},
    )


def test_the_table(report: Report) -> None:
    lines = report.table().splitlines()
    assert lines[0] == "temporal: users 4, cut 2026-01-01"
    assert lines[2] == "all: among all pins"
    blocks = [i for i, line in enumerate(lines) if line.startswith("  model")]
    assert [lines[i].split()[1] for i in blocks] == ["HR@5", "HR@9"]  # a block a list length
    assert lines[blocks[0] + 1].split()[:4] == ["walk", "0.8750", "0.2450", "0.1768"]  # best first
    assert lines[blocks[0] + 2].split()[:4] == ["plain", "0.5000", "0.5658", "-"]
    assert lines[blocks[0] + 3] == "  less plain, user by user"
    assert lines[blocks[0] + 4].split()[:2] == ["walk", "+0.3750"]
    assert "level: HR@9" in lines[blocks[1] + 4]
    assert "over 2 seeds" in lines[-2]
    assert "run once: plain" in lines[-2]
    assert lines[-1] == "left out: ease: too many pins"


def test_the_best_by_the_first_column_stands_first_and_long_names_shift_nothing() -> None:
    one = {"HR@5": np.array([[0.0, 1.0]]), "MRR@5": np.array([[1.0, 1.0]])}
    other = {"HR@5": np.array([[1.0, 1.0]]), "MRR@5": np.array([[0.0, 1.0]])}
    rows = (Row("a", "all", one, (), 0, 1.0, 2.0), Row("a_very_long_model_name", "all", other, (), 0, 1.0, 2.0))
    table = Report("search", {"all": "all"}, ("HR@5", "MRR@5"), {}, rows, against="a").table().splitlines()
    at = next(i for i, line in enumerate(table) if line.startswith("  model"))
    assert [line.split()[0] for line in table[at + 1 : at + 3]] == ["a_very_long_model_name", "a"]
    assert len({len(line) for line in table[at : at + 3]}) == 1


def test_the_json_holds_everything_but_single_users(report: Report) -> None:
    whole = json.loads(report.to_json())
    assert (whole["protocol"], whole["users"], whole["settings"]) == ("temporal", 4, {"seeds": 2})
    plain, walk = whole["rows"]
    assert plain["metrics"]["HR@5"]["seeds"] is None
    assert walk["metrics"]["HR@5"]["by_seed"] == [0.75, 1.0]
    assert walk["metrics"]["HR@5"]["mean"] == 0.875
    assert walk["metrics"]["HR@5/new_users"]["users"] == 1
    assert whole["skipped"] == {"ease": "too many pins"}
    found = {(d["model"], d["metric"]): d for d in whole["against"]["differences"]}
    assert found["walk", "HR@5"]["mean"] == 0.375
    assert found["walk", "HR@9"]["level"] is True


def test_rows_that_are_not_there(report: Report) -> None:
    assert report.row("walk").variant == 1
    with pytest.raises(ReportError, match=r"no all row of 'ease'; models are \['plain', 'walk'\]"):
        report.row("ease")


def test_it_is_drawn(report: Report, tmp_path: Path) -> None:
    draw(report, tmp_path / "deep" / "table.png")
    assert (tmp_path / "deep" / "table.png").read_bytes().startswith(b"\x89PNG")
    draw(report, tmp_path / "table.svg", "HR@9")
    assert b"<svg" in (tmp_path / "table.svg").read_bytes()
    with pytest.raises(FigureError, match=r"ends in \.png"):
        draw(report, tmp_path / "table.txt")
