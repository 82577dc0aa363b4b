"""The command line answers at once, and an error that can be mended is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli import app

HEAVY = (
    *("torch", "pandas", "numpy", "pyarrow", "feast", "mlflow", "bentoml", "pymilvus"),
    *("great_expectations", "duckdb", "sklearn", "xgboost", "faiss", "numba"),
)
COMMANDS = (
    *("ingest", "train", "release", "promote", "rollback", "history", "diff", "gc", "evaluate"),
    *("up", "down", "status", "demo", "datasets", "replay", "forget"),
)


@pytest.mark.parametrize("command", [(), *((c,) for c in COMMANDS), ("datasets", "world")])
def test_help_answers(command: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, [*command, "--help"])
    assert answer.exit_code == 0
    assert "Usage" in answer.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom infra.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_ingest_wants_exactly_one_source(tmp_path) -> None:
    answer = CliRunner().invoke(app, ["--home", str(tmp_path), "ingest"])
    assert answer.exit_code == 2


def test_a_home_that_is_no_folder_is_named(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.touch()
    answer = CliRunner().invoke(app, ["--home", str(taken), "history"])
    assert answer.exit_code == 1
    assert f"{taken} cannot be a home" in answer.output


def test_nothing_is_started_to_clear_a_home_in_which_nothing_was_trained(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["--home", str(tmp_path), "gc"])
    assert answer.exit_code == 0 and "nothing was trained" in answer.output
    assert not (tmp_path / "milvus").exists()
