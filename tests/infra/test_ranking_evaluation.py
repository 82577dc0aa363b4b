"""`corkboard evaluate --task ranking` as a user runs it, on planted rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.infra.test_evaluation import run
from tests.training.evaluation.planted_rows import planted
from tests.training.test_registry import log_of
from training.registry import Registry


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("home")
    planted(root / "training_sets" / "pinnability", days=4, requests=80)
    return root


def test_the_table_the_json_and_the_diagrams(home: Path, tmp_path: Path):
    (tmp_path / "utility.yaml").write_text("weights: {save: 3, hide: -4}")
    options = ("--models", "pinnability_logistic,logistic_no_position", "--utility", tmp_path / "utility.yaml")
    files = ("--json", tmp_path / "all.json", "--figure", tmp_path / "reliability.png")
    result = run(home, "--task", "ranking", *options, *files, "--against", "pinnability_logistic")
    assert result.exit_code == 0, result.output
    assert "change: AUC less that of pinnability_logistic" in result.output
    assert "left out: report" in result.output and "HIT@3" in result.output
    whole = json.loads((tmp_path / "all.json").read_text())
    assert whole["facts"]["utility"] == {"save": 3.0, "hide": -4.0}
    assert [row["model"] for row in whole["rows"]] == ["pinnability_logistic", "logistic_no_position"]
    assert all(row["heads"][0]["auc"] > 0.75 for row in whole["rows"])
    assert (tmp_path / "reliability.png").stat().st_size > 1000


def test_more_days_test(home: Path, tmp_path: Path):
    options = ("--models", "pinnability_logistic", "--days", 1, "--json", tmp_path / "one.json")
    assert run(home, "--task", "ranking", *options).exit_code == 0
    facts = json.loads((tmp_path / "one.json").read_text())["facts"]
    assert facts["test"].startswith("2026-03-04") and facts["validation"].startswith("2026-03-03")


def test_fewer_rows_are_the_newest(home: Path, tmp_path: Path):
    options = ("--models", "pinnability_logistic", "--max-rows", 700, "--json", tmp_path / "few.json")
    assert run(home, "--task", "ranking", *options).exit_code == 0
    facts = json.loads((tmp_path / "few.json").read_text())["facts"]
    assert facts["training rows"] == 640 and facts["train"].startswith("2026-03-02")


def test_the_table_goes_into_the_card_of_the_newest_transact(
    tmp_path: Path, give_registry: Callable[[Path], Registry]
):
    planted(tmp_path / "training_sets" / "pinnability", days=3, requests=40)
    registry = give_registry(tmp_path)
    version = registry.log_model_version(log_of(tmp_path / "log", name="transact"))
    result = run(tmp_path, "--task", "ranking", "--models", "pinnability_logistic", "--card")
    assert result.exit_code == 0, result.output
    assert f"the table is in the card of transact@{version}" in result.output
    card = registry.version("transact", version).description
    assert "Known limits." in card and "## Against other rankers" in card
    assert "pinnability_logistic" in card and "HIT@3" in card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "ranking", "--models", "mlp"), "no ranker 'mlp'; there are pinnability_logistic"),
        (("--task", "ranking", "--at", 2, "--max-users", 9), "--at, --max-users means nothing"),
        (("--task", "ranking", "--days", 4), "training, validation and test need at least"),
        (("--task", "ranking", "--card"), "holds no transact; run `corkboard train -m transact`"),
        (("--card",), "--card means nothing under --task retrieval"),
        (("--max-rows", 5), "--max-rows means nothing under --task retrieval"),
        (("--task", "ranking", "--figure", "x.txt"), "a figure ends in"),
    ],
)
def test_what_cannot_be_asked_for_is_named(home: Path, options: tuple, message: str):
    result = run(home, *options)
    assert result.exit_code == 1 and message in " ".join(result.output.split())


def test_a_home_without_rows_says_what_to_run(tmp_path: Path):
    result = run(tmp_path, "--task", "ranking")
    assert result.exit_code == 1 and "run `corkboard train`" in " ".join(result.output.split())
