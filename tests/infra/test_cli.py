"""The command line answers at once, and an error that can be mended is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from infra import jobs, local
from infra.cli import app
from infra.commands import state
from infra.console import console
from training.ledger import Ledger, LedgerEntry, Move
from training.registry import Registry
from validation.gate_results import GateResult

HEAVY = (
    *("torch", "pandas", "numpy", "pyarrow", "feast", "mlflow", "bentoml", "pymilvus"),
    *("great_expectations", "duckdb", "sklearn", "xgboost", "faiss", "numba"),
)
COMMANDS = {
    "": "ingest train retrain tune release promote rollback history diff gc evaluate calibration replay forget"
    " up down status demo datasets events",
    "datasets": "world complete-journey",
    "events": "replay compact",
}
"""Group -> its commands, in the order of the help."""


@pytest.mark.parametrize("group", COMMANDS)
def test_the_help_of_every_command_answers(group: str) -> None:
    told = get_command(app) if not group else get_command(app).commands[group]  # type: ignore[attr-defined]
    assert list(told.commands) == COMMANDS[group].split()  # type: ignore[attr-defined]
    for name in ("", *told.commands):  # type: ignore[attr-defined]
        answer = CliRunner().invoke(app, [*filter(None, (group, name)), "--help"])
        assert answer.exit_code == 0 and "Usage" in answer.stdout, name


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


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "retrain",
        "tune ads_multi_tower --trials 1",
        "demo",
        "datasets world",
        "datasets complete-journey",
    ],
)
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused_at_once(tmp_path: Path, command: str, seed: int) -> None:
    answer = CliRunner().invoke(app, ["--home", str(tmp_path), *command.split(), "--seed", str(seed)])
    assert answer.exit_code == 2 and "--seed" in answer.output and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.touch()
    command = (
        f"--home {tmp_path / 'home'} datasets world --size tiny --users 2 --pins 9 --days 1 --out {taken / 'x'}"
    )
    answer = CliRunner().invoke(app, command.split(), env={"COLUMNS": "300"})
    assert answer.exit_code == 1 and f"error: {taken}" in answer.output and "Not a directory" in answer.output


def test_a_home_that_is_no_folder_is_named(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.touch()
    answer = CliRunner().invoke(app, ["--home", str(taken), "history"])
    assert answer.exit_code == 1
    assert f"{taken} cannot be a home" in answer.output


@pytest.mark.parametrize("command", ["history", "status"])
def test_no_home_is_not_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(app, ["--home", "", command])
    assert answer.exit_code == 1 and "error: --home '' names no folder; give one" in answer.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "mend"), [("ports.json", "remove it to claim"), ("run/homefeed.json", "stop homefeed by hand")]
)
@pytest.mark.parametrize(
    ("command", "text"), [("status", "{"), ("down", "{"), ("down", "[]"), ("status", '{"pid": "x"}')]
)
def test_garbage_in_a_file_of_the_home_is_named(
    tmp_path: Path, file: str, mend: str, command: str, text: str
) -> None:
    garbage = tmp_path / file
    garbage.parent.mkdir(exist_ok=True)
    garbage.write_text(text)
    answer = CliRunner().invoke(app, ["--home", str(tmp_path), command], env={"COLUMNS": "300"})
    assert answer.exit_code == 1 and f"error: {garbage} cannot be read" in answer.output
    assert mend in answer.output


def test_nothing_is_started_to_clear_a_home_in_which_nothing_was_trained(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["--home", str(tmp_path), "gc"])
    assert answer.exit_code == 0 and "nothing was trained" in answer.output
    assert not (tmp_path / "milvus").exists()


@pytest.mark.parametrize("command", [("events", "compact"), ("evaluate", "--task", "search")])
def test_without_a_lake_the_first_step_is_named(tmp_path: Path, command: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, ["--home", str(tmp_path), *command], env={"COLUMNS": "300"})
    assert (
        answer.exit_code == 1
        and "corkboard ingest DIR" in answer.output
        and "leave-one-out" not in answer.output
    )


@pytest.mark.parametrize(
    ("named", "words"),
    [(("1", "1"), "release 1 against release 1 is one release"), (("0", "2"), "Invalid value for 'a'")],
)
def test_what_cannot_be_compared_is_said_before_the_home_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: tuple[str, str], words: str
) -> None:
    monkeypatch.setattr(state.State, "home", property(lambda self: pytest.fail("the home was opened")))
    command = ["--home", str(tmp_path), "diff", "--measure", *named]
    answer = CliRunner().invoke(app, command, env={"COLUMNS": "300"})
    assert answer.exit_code == 2 and words in answer.output


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("diff 1 2 --measure", "there is no release 1; releases: none"),
        ("promote 1", "there is no release 1; releases: none"),
        ("promote", "no release is the challenger"),
    ],
)
def test_nothing_is_started_for_a_release_that_does_not_exist(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    give_registry: Callable[[Path], Registry],
    command: str,
    words: str,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(local, "ensure_milvus", lambda home: pytest.fail("Milvus was started"))
    give_registry(tmp_path)
    answer = CliRunner().invoke(app, ["--home", str(tmp_path), *command.split()], env={"COLUMNS": "300"})
    assert answer.exit_code == 1 and words in answer.output


def test_nothing_is_started_for_a_step_that_there_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "need_lake", lambda home: None)
    monkeypatch.setattr(local, "ensure_milvus", lambda home: pytest.fail("Milvus was started"))
    command = ["--home", str(tmp_path), "train", "--model", "pixy"]
    answer = CliRunner().invoke(app, command, env={"COLUMNS": "300"})
    assert answer.exit_code == 1 and "unknown step pixy; the steps are features, content, " in answer.output


def test_a_line_in_a_pipe_is_one_line() -> None:
    code = "from infra.console import say; say('word ' * 60)"
    bare = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=bare)
    assert len(told.stdout.splitlines()) == 1 and told.stdout.split() == ["word"] * 60


@pytest.mark.parametrize("override", [None, "the AUC of ads is one day's"])
def test_the_history_fits_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str | None
) -> None:
    monkeypatch.setattr(console, "width", 80)
    made = datetime(2026, 3, 1, 12, tzinfo=UTC)
    gates = tuple(
        GateResult(name=f"gate {n}", value=1, bound=1, n=1, passed=n < 120, message="") for n in range(125)
    )
    entry = LedgerEntry(
        at=made, move=Move.PROMOTE, champion=12, previous=9, replaced=9, by="someone@somewhere",
        git_commit="0" * 40, gates=gates if override else gates[:120], override=override,
    )  # fmt: skip
    Ledger(tmp_path / "releases" / "ledger.jsonl").append(entry)
    answer = CliRunner().invoke(app, ["--home", str(tmp_path), "history"])
    head, first, *_ = answer.output.splitlines()
    titles = ["when", "(UTC)", "move", "champion", "before", "by", "gates", *(["override"] if override else [])]
    assert head.split() == titles
    assert first.startswith("2026-03-01 12:00:00  promote  12        9       someone@")


@pytest.mark.parametrize(
    ("left", "words"), [((7,), "(lake ids 7)"), (tuple(range(1, 8)), "1, 2, 3, 4, 5, ...)")]
)
def test_users_left_out_of_a_message_are_hinted_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: tuple[int, ...], words: str
) -> None:
    from feature_repo.jobs import replay
    from feature_repo.online.reader import OnlineFeatures

    monkeypatch.setattr(OnlineFeatures, "open", lambda root: None)
    found = replay.Replayed(9, 9, left, left)
    monkeypatch.setattr(replay, "replay_sequences", lambda *given, **more: found)
    answer = CliRunner().invoke(app, ["--home", str(tmp_path), "events", "replay"], env={"COLUMNS": "300"})
    assert answer.exit_code == 1 and words in answer.output
