"""`corkboard forget`: nothing of the user is left, everybody else stays, and the user does not come back."""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from infra import forget, local
from infra.cli import app
from infra.home import Home
from tests.training import planted_releases as planted
from training.models.pin_board_graph import from_edges
from training.models.pixie import PixieSettings, ReleasedPixie
from validation.events import ActionRecord, ForgottenRecord, ImpressionRecord, from_line, to_line
from validation.file_digests import altered, digests_of
from validation.ingest import ingest, silent
from validation.ingest_events import ingest_events
from validation.lake import Lake
from validation.lease import Lease, leases_of
from validation.manifest import MANIFEST_FILE, RELEASE_MODEL, Part, ReleaseManifest
from validation.tables import EntityKind

pytestmark = pytest.mark.slow

ANN, BEN = "ann-7f3a", "ben-1c55"
DAY = datetime(2026, 3, 2, tzinfo=UTC)
END = DAY + timedelta(days=2)
SPACE = "content@1"


def tables() -> dict[str, pd.DataFrame]:
    """Two users with a board each; a bad row of either."""
    times = [DAY + timedelta(hours=h) for h in (1, 2, 3, 25, 26)]
    acted = {
        "user_id": [ANN, BEN, ANN, BEN, ANN],
        "pin_id": [1, 2, 3, 1, 2],
        "action": ["save", "click", "closeup", "save", "save"],
        "timestamp": times,
        "board_id": ["anns", None, None, "bens", "anns"],
    }
    bad = pd.DataFrame(
        {"user_id": [ANN, BEN], "pin_id": [1, 99], "action": ["stare", "click"], "timestamp": [times[0]] * 2}
    )
    shown = {"request_id": [1, 2, 3], "user_id": [ANN, BEN, ANN], "pin_id": [1, 2, 3], "position": 0}
    return {
        "pins": pd.DataFrame({"pin_id": [1, 2, 3], "created_at": DAY - timedelta(days=9), "title": "a pin"}),
        "actions": pd.concat([pd.DataFrame(acted), bad], ignore_index=True),
        "impressions": pd.DataFrame(shown | {"timestamp": times[:3]}),
        "boards": pd.DataFrame({"board_id": ["anns", "bens"], "user_id": [ANN, BEN], "title": ["mine", "his"]}),
        "follows": pd.DataFrame({"user_id": [ANN, BEN], "timestamp": times[:2], "board_id": ["bens", "anns"]}),
        "users": pd.DataFrame({"user_id": [ANN, BEN], "country": ["DE", "FR"]}),
    }


def bring_in(home: Home, source: Path, progress: Callable[[str], None] = silent) -> None:
    folders = (home.lake, home.quarantine, home.reports)
    ingest(source, *folders, now=END, progress=progress, checkpoint=False)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Path]:
    """A home after a day of its life, with its rows online, a log, a training set; and its tables."""
    from feature_repo.jobs import UserInterests, build_features, write_user_interests
    from feature_repo.store import apply, materialize, open_store

    folder = tmp_path_factory.mktemp("forget")
    home, source = Home.at(folder / "home"), folder / "tables"
    source.mkdir()
    for name, frame in tables().items():
        frame.to_parquet(source / f"{name}.parquet")
    bring_in(home, source)
    lake = Lake(home.lake)
    build_features(lake, home.features, as_of=END)
    ann, ben = lake.id_map().encode(EntityKind.USER, [ANN, BEN], assign=False).tolist()
    some = np.array([1, 2]), np.array([0.5, 0.5]), np.array([1, 1]), np.eye(2, dtype=np.float32)
    write_user_interests(home.features, SPACE, [UserInterests(user, *some) for user in (ann, ben)], END)
    store = open_store(home.root)
    apply(store)
    materialize(store)
    home.events.mkdir()
    at = int(END.timestamp() * 1000)
    for stream, lines in {
        "actions": [
            ActionRecord(event_id=9 + i, user_id=user, pin_id=3, timestamp_ms=at, action="click")
            for i, user in enumerate((ann, ben, ann))
        ],
        "impressions": [
            ImpressionRecord(event_id=30, user_id=ann, pin_id=1, timestamp_ms=at, request_id=7, position=0)
        ],
    }.items():
        (home.events / f"{stream}-00000001.jsonl").write_bytes(b"".join(map(to_line, lines)))
        (home.events / f"{stream}.lock").touch()
    rows = home.training_sets / "pinnability"
    rows.mkdir(parents=True)
    pd.DataFrame({"user_id": [ann, ben], "label": [1, 0]}).to_parquet(rows / "day=2026-03-02.parquet")
    home.run.mkdir()
    for context, edges in (("board", boards_of(lake)), ("user", [ann, ben])):
        graph = from_edges(np.array([1, 2]), np.array(edges), pin_ids=np.arange(1, 4))
        folder = home.mlflow_artifacts / f"by {context}"
        ReleasedPixie(PixieSettings(context=context), graph).save(folder)
        part = Part(model="pixie", version=1, files=digests_of(folder))
        manifest = home.mlflow_artifacts / f"of {context}" / RELEASE_MODEL / MANIFEST_FILE
        manifest.parent.mkdir(parents=True)
        manifest.write_text(planted.manifest(1, parts={"pixie": part}).model_dump_json(indent=2))
    (home.run / "homefeed.log").write_text(f"a line\nrequest of user {ANN} failed\n")
    return home, source


@pytest.fixture
def home(template: tuple[Home, Path], tmp_path: Path) -> Home:
    shutil.copytree(template[0].root, tmp_path / "home")
    return Home.at(tmp_path / "home")


def boards_of(lake: Lake) -> list[int]:
    """Lake ids of Ann's board and of Ben's."""
    return lake.id_map().encode(EntityKind.BOARD, ["anns", "bens"], assign=False).tolist()


def naming(home: Home, own_id: str) -> list[str]:
    """Files, of any kind, that hold the user's own id as it is."""
    files = (file for file in home.root.rglob("*") if file.is_file())
    return [file.name for file in files if own_id.encode() in file.read_bytes()]


def rows_by_file(home: Home, user: int) -> dict[str, int]:
    """Rows of a lake id in every Parquet file with users but the quarantine's."""
    found = {}
    for file in home.root.rglob("*.parquet"):
        names = {"user_id", "owner_id"} & set(pq.read_schema(file).names)
        if names and home.quarantine not in file.parents:
            frame = pd.read_parquet(file)
            found[str(file.relative_to(home.root))] = sum(int((frame[name] == user).sum()) for name in names)
    return found


def lake_id(home: Home, own_id: str) -> int:
    return Lake(home.lake).id_map().lookup(EntityKind.USER, own_id) or 0


def stored(home: Home, user: int) -> int:
    from feature_repo.jobs.forget import online_rows
    from feature_repo.store import open_store

    return online_rows(open_store(home.root), user, [])


def test_nothing_of_the_user_is_left_and_everybody_else_is(home: Home) -> None:
    ann, ben = lake_id(home, ANN), lake_id(home, BEN)
    boards = boards_of(Lake(home.lake))
    before, sizes = rows_by_file(home, ben), {f.name: f.stat().st_size for f in home.events.iterdir()}
    bens = stored(home, ben)
    assert ann and sum(rows_by_file(home, ann).values()) > 8 and stored(home, ann) >= 4 and naming(home, ANN)
    answer = CliRunner().invoke(app, ["--home", str(home.root), "forget", ANN])
    assert answer.exit_code == 0, answer.output
    assert naming(home, ANN) == [] and not any(rows_by_file(home, ann).values()) and stored(home, ann) == 0
    left = rows_by_file(home, ben)
    assert {name: count for name, count in before.items() if count} == {n: c for n, c in left.items() if c}
    assert stored(home, ben) == bens and BEN in {Lake(home.lake).id_map().decode(EntityKind.USER, [ben])[0]}
    assert "user_id" in pq.read_schema(next(home.quarantine.rglob("*.parquet"))).names
    assert naming(home, BEN), "his refused row is kept"
    assert {f.name: f.stat().st_size for f in home.events.iterdir()} == sizes, "cursors stay right"
    lines = (home.events / "actions-00000001.jsonl").read_bytes().splitlines(keepends=True)
    assert [isinstance(from_line(line), ForgottenRecord) for line in lines] == [True, False, True]
    for context, (hers, his) in (("board", boards), ("user", [ann, ben])):
        folder = home.mlflow_artifacts / f"by {context}"
        released = home.mlflow_artifacts / f"of {context}" / RELEASE_MODEL / MANIFEST_FILE
        part = ReleaseManifest.model_validate_json(released.read_text()).parts["pixie"]
        assert altered(folder, part.files or {}) == []
        graph = ReleasedPixie.load(folder).graph
        assert graph.board_index_of([hers])[0] == -1 and hers not in graph.board_ids
        assert graph.ids_of(graph.pins_of(graph.board_index_of([his])[0])).tolist() == [2]


def test_rows_that_come_again_stay_out_unless_allowed(home: Home, template: tuple[Home, Path]) -> None:
    assert forget.run(home, ANN)
    said: list[str] = []
    ingest(
        template[1], home.lake, home.quarantine, home.reports, now=END, progress=said.append, checkpoint=False
    )
    assert "actions: 4 rows of forgotten users are dropped" in said
    report = ingest_events(home.events, home.lake, home.quarantine, home.reports, now=END, checkpoint=False)
    assert report is not None and report.tables["actions"].new == 1, "Ben's event alone"
    assert naming(home, ANN) == [] and lake_id(home, ANN) == 0
    assert forget.run(home, ANN, allow_again=True)
    bring_in(home, template[1])
    again = lake_id(home, ANN)
    assert again > lake_id(home, BEN), "the number of old is not given out again"
    assert (Lake(home.lake).read("actions", ["user_id"])["user_id"] == again).sum() == 3


@pytest.mark.parametrize("step", [0, 3, 7])
def test_killed_at_a_step_the_next_run_finishes(home: Home, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    real, calls = forget.remove_rows, iter(range(1000))

    def dies(file: Path, wanted: Callable, **given: bool) -> None:
        if next(calls) == step:
            raise KeyboardInterrupt
        real(file, wanted, **given)

    with monkeypatch.context() as patch:
        patch.setattr(forget, "remove_rows", dies)
        with pytest.raises(KeyboardInterrupt):
            forget.run(home, ANN)
    assert forget.run(home, ANN)
    assert naming(home, ANN) == []


def test_what_is_left_fails_the_command(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget, "blank_lines", lambda file, pattern: None)
    answer = CliRunner().invoke(app, ["--home", str(home.root), "forget", ANN])
    assert answer.exit_code == 1 and "event log" in answer.output
    assert forget.run.__module__ == "infra.forget" and lake_id(home, ANN) == 0
    monkeypatch.undo()
    assert forget.run(home, ANN), "the lake id is remembered until all is gone"


def test_services_that_run_refuse_it(home: Home) -> None:
    with (home.events / "actions.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(forget.StillServing, match="actions"):
            forget.run(home, ANN)
    assert naming(home, ANN)


def test_a_user_whom_nobody_knows_is_no_error(home: Home) -> None:
    answer = CliRunner().invoke(app, ["--home", str(home.root), "forget", "nobody-at-all"])
    assert answer.exit_code == 0 and "unknown" in answer.output
    assert not (home.lake / "forgotten.json").exists()


@pytest.fixture
def counted(tmp_path: Path) -> tuple[Home, Path]:
    """A home whose users are numbers, 7 and 8, and its tables; a bad row of either."""
    home, source = Home.at(tmp_path / "counted"), tmp_path / "tables"
    source.mkdir()
    numbers = {ANN: 7, BEN: 8}
    for name, frame in tables().items():
        if "user_id" in frame:
            frame["user_id"] = frame["user_id"].map(numbers)
        frame.to_parquet(source / f"{name}.parquet")
    bring_in(home, source)
    return home, source


def test_zeros_before_a_number_name_the_same_user(
    counted: tuple[Home, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forget, "_online", lambda home, person: [])
    home, source = counted
    assert forget.run(home, "007")
    refused = pd.concat(pd.read_parquet(file) for file in home.quarantine.rglob("actions*/*.parquet"))
    assert set(refused["user_id"].astype(int)) == {8}, "his refused row is kept, hers is found"
    bring_in(home, source)
    assert set(Lake(home.lake).read("actions", ["user_id"])["user_id"]) == {8}


@pytest.mark.parametrize("wrong", ["", " ", "ann", "7.0", "0"])
def test_an_id_that_nobody_can_have_is_refused_by_name(counted: tuple[Home, Path], wrong: str) -> None:
    with pytest.raises(forget.UnusableId, match=re.escape(repr(wrong))):
        forget.run(counted[0], wrong)


def test_a_blank_id_is_refused_where_ids_are_text(home: Home) -> None:
    answer = CliRunner().invoke(app, ["--home", str(home.root), "forget", ""])
    assert answer.exit_code == 1 and "blank" in answer.output and "Traceback" not in answer.output


def test_a_service_that_runs_is_named_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    status = local.Status("homefeed", "ready", 1, "", None)
    monkeypatch.setattr(local, "status", lambda home: [status])
    lease = Lease.take(leases_of(home.root), "homefeed")
    lease.hold([1])
    with pytest.raises(forget.StillServing, match=r"^homefeed of "):
        forget.run(home, ANN)
    lease.close()
