"""`corkboard evaluate` as a user runs it, on a home of a few users."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from infra.cli import app
from infra.evaluation import EvaluateConfig
from tests.training.data.lakes import write_lake
from training.evaluation import sasrec
from training.evaluation.leave_one_out_models import MODELS
from training.evaluation.temporal_models import models
from validation.ids import IdMap
from validation.tables import EntityKind

USERS, PINS, DAYS = 24, 30, 6
START = pd.Timestamp("2026-01-01", tz="UTC")
SAVE = 4


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose users, of two groups, save pins of their own half; ids were text at the door."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        mine = rng.permutation(PINS // 2) + PINS // 2 * (user % 2)
        for place, pin in enumerate(mine[: 2 * DAYS]):
            when = START + pd.Timedelta(days=place // 2, minutes=int(rng.integers(1, 1_000)))
            rows.append((f"user-{user}", f"pin-{pin}", when))
    return made(tmp_path_factory.mktemp("home"), rows)


def made(root: Path, saves: list[tuple[str, str, pd.Timestamp]]) -> Path:
    """A home with these saves in its lake, as an ingest leaves it."""
    ids = IdMap(root / "lake" / "ids.sqlite")
    titles = ["sour bread oven" if pin < PINS // 2 else "mountain bike road" for pin in range(PINS)]
    numbers = ids.encode(EntityKind.PIN, [f"pin-{pin}" for pin in range(PINS)])
    pins = pd.DataFrame({"pin_id": numbers, "title": titles}).assign(created_at=START - pd.Timedelta(days=1))
    actions = pd.DataFrame(saves, columns=["user_id", "pin_id", "timestamp"]).assign(action=SAVE)
    for column, kind in (("user_id", EntityKind.USER), ("pin_id", EntityKind.PIN)):
        actions[column] = ids.encode(kind, actions[column].tolist())
    actions["event_id"] = np.arange(1, len(actions) + 1)
    write_lake(root / "lake", {"pins": pins, "actions": actions})
    return root


def run(home: Path, *options: object) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "CORKBOARD_MILVUS_URI", "CORKBOARD_HOME", "BENTOML_HOME"):
            patch.setenv(name, "")  # the command sets them for its process; the test's own stays as it was
            patch.delenv(name)
        return CliRunner().invoke(app, ["--home", str(home), "evaluate", *map(str, options)])


def refused(home: Path, *options: object) -> str:
    answer = run(home, *options)
    assert answer.exit_code == 1, answer.output
    lines = answer.output.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in answer.output
    return lines[-1]


def test_temporal_with_everything_written(home: Path, tmp_path: Path) -> None:
    out, figure = tmp_path / "new" / "table.json", tmp_path / "new" / "table.png"
    answer = run(
        home, "--models", "popularity,rp3beta", "-m", "pixie", "--days", 1, "--at", "5,10", "--seeds", 2,
        "--against", "rp3beta", "--json", out, "--figure", figure,
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    assert "temporal: data tables, cut 2026-01-06, days 1, users 24" in answer.output
    assert "less rp3beta, user by user" in answer.output
    whole = json.loads(out.read_text())
    found = {row["model"]: row for row in whole["rows"]}
    assert list(found) == ["popularity", "rp3beta", "pixie"]
    assert found["pixie"]["seeds"] == [0, 1]
    assert found["rp3beta"]["seeds"] == []
    # a user has 5 new pins left in the half that all of hers come from: the walk finds them all
    assert found["pixie"]["metrics"]["Recall@5"]["mean"] == 1.0
    assert found["rp3beta"]["metrics"]["Recall@5"]["mean"] == 1.0
    assert found["popularity"]["metrics"]["Recall@5"]["mean"] < 0.9
    assert whole["settings"]["at"] == [5, 10]
    assert {d["model"] for d in whole["against"]["differences"]} == {"popularity", "pixie"}
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_leave_one_out_with_candidates_in_the_data_sets_own_ids(home: Path, tmp_path: Path) -> None:
    """Every user's candidates are pins of the other half: whoever knows halves is never wrong."""
    rows = [(f"user-{u}", f"pin-{p + PINS // 2 * ((u + 1) % 2)}") for u in range(USERS) for p in range(15)]
    path, out = tmp_path / "negatives.csv", tmp_path / "table.json"
    pd.DataFrame(rows, columns=["user_id", "pin_id"]).to_csv(path, index=False)
    answer = run(
        home, "--protocol", "leave-one-out", "-m", "popularity,rp3beta,pixie", "--candidates", path, "--k", 1,
        "--seeds", 2, "--json", out,
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    assert "leave-one-out: data tables, users 24, pins 30" in answer.output
    found = {
        (row["model"], row["ranking"]): row["metrics"]["HR@1"] for row in json.loads(out.read_text())["rows"]
    }
    assert len(found) == 6
    assert found["rp3beta", "sampled"]["mean"] == found["pixie", "sampled"]["mean"] == 1.0
    assert found["popularity", "sampled"]["mean"] < 0.8
    assert found["pixie", "sampled"]["by_seed"] == [1.0, 1.0]


def test_all_models_of_a_public_benchmarks_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file like MovieLens' u.data, without a home's tables."""
    monkeypatch.setattr(sasrec, "VENV", tmp_path)  # it has tests of its own
    rng = np.random.default_rng(1)
    lines = [
        f"{user}\t{1 + pin + 20 * (user % 2)}\t{rng.integers(1, 6)}\t{881_250_949 + i}"
        for user in range(1, 31)
        for i, pin in enumerate(rng.permutation(20)[:8])
    ]
    path, out = tmp_path / "u.data", tmp_path / "table.json"
    path.write_text("\n".join(lines) + "\n")
    answer = run(
        tmp_path / "empty", "--protocol", "leave-one-out", "--interactions", path,
        "--columns", "user_id,pin_id,,timestamp", "--seeds", 1, "--max-users", 20, "--json", out,
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    whole = json.loads(out.read_text())
    assert (whole["data"], whole["users"], whole["pins"]) == ("u.data", 20, 40)
    assert {row["model"] for row in whole["rows"]} | set(whole["skipped"]) == set(MODELS)
    assert set(whole["skipped"]) == {"sasrec"}


def test_help_names_every_model() -> None:
    words = set(
        re.findall(r"\w+", CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "300"}).output)
    )
    assert {*MODELS, *models()} <= words


def test_what_cannot_be_evaluated_says_what_can(home: Path, tmp_path: Path) -> None:
    assert "has no tables yet; run `corkboard ingest FOLDER`" in refused(tmp_path / "empty")
    assert "no model 'bert'; temporal has popularity, itemknn," in refused(home, "-m", "bert")
    assert "no model 'pinnersage'; leave-one-out has" in refused(
        home, "--protocol", "leave-one-out", "-m", "pinnersage"
    )
    assert "--against ease: add it to --models" in refused(home, "-m", "pixie", "--against", "ease")
    assert "no model named" in refused(home, "-m", ",")
    assert "--k: only under --protocol leave-one-out" in refused(home, "--k", 5)
    assert "--at, --days: only under --protocol temporal" in refused(
        home, "--protocol", "leave-one-out", "--days", 1, "--at", 5
    )
    assert "--at is x, -1; give whole numbers" in refused(home, "--at", "x,-1,5")
    assert "give one" in refused(home, "--protocol", "leave-one-out", "--columns", "user_id,pin_id,timestamp")
    assert "a figure ends in" in refused(home, "--figure", tmp_path / "table.txt")
    (tmp_path / "file").write_text("")
    for option in ("--json", "--figure"):
        lost = refused(home, "-m", "popularity", option, tmp_path / "file" / "table.png")
        assert "cannot be written" in lost
    assert "cannot be written" in refused(home, "--json", tmp_path)
    assert "it mixes at least two of" in refused(home, "-m", "pixie,blended", "--days", 1)
    assert "nothing to learn from; hold out fewer days" in refused(home, "--days", DAYS)


def test_candidates_of_strangers_are_named(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "negatives.csv"
    path.write_text("user_id,pin_id\nuser-1,pin-2\nstranger,pin-3\n")
    asked = ("--protocol", "leave-one-out", "--candidates", path)
    assert "users that are not in the lake (1): stranger" in refused(home, *asked)
    path.write_text("user_id,pin_id\nuser-1,pin-2\n")
    assert "the candidates name no pins for user" in refused(home, *asked, "-m", "popularity")


def test_nothing_held_out(tmp_path: Path) -> None:
    """One pin that everybody saves every day: nothing is new to anybody."""
    days = [START + pd.Timedelta(days=day) for day in range(DAYS)]
    home = made(tmp_path, [(f"user-{user}", "pin-1", day) for user in range(USERS) for day in days])
    assert "the data begins later: hold out fewer days" in refused(home, "-m", "popularity")
    assert "nothing to hold out" in refused(home, "-m", "popularity", "--protocol", "leave-one-out")


def test_configs_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="extra"):
        EvaluateConfig(protocol="temporal", depth=3)
    assert EvaluateConfig().protocol == "temporal"
