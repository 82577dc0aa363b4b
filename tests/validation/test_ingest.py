"""The door as a whole: idempotent, incremental, all or nothing, and no row is lost."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

import validation.ingest as ingest_module
from tests.validation.conftest import NOW, Door, actions, at, impressions, judgements, pins, times
from validation import source as source_module
from validation import staging
from validation.errors import BadContractFile, EmptyTable, IngestBusy, MixedIds
from validation.ids import IdForm
from validation.outcome import IngestReport
from validation.tables import LEARNED_TABLES, EntityKind


def balanced(report: IngestReport) -> bool:
    """No row of the source is unaccounted for."""
    return all(t.read == t.new + t.updated + t.duplicate + t.refused for t in report.tables.values())


def test_a_clean_source_enters_whole(door: Door) -> None:
    report = door.open()
    assert {name: t.new for name, t in report.tables.items()} == {"pins": 3, "actions": 4}
    assert report.refused == 0
    assert report.absent == (
        "topics",
        "users",
        "boards",
        "follows",
        "ads",
        "query_judgements",
        "impressions",
        "candidates",
    )
    assert door.lake.exists()
    assert door.lake.contract().vector_dims == {"visual_embedding": 2}
    assert sum(report.actions_by_day.values()) == 4


def test_the_same_source_again_changes_nothing(door: Door) -> None:
    door.write(impressions=impressions())
    door.open()
    before = door.files()
    report = door.open()
    assert [(t.new, t.updated, t.duplicate) for t in report.tables.values()] == [
        (0, 0, 3),
        (0, 0, 3),
        (0, 0, 4),
    ]
    assert door.files() == before


def test_new_rows_are_added_and_untouched_days_stay_untouched(door: Door) -> None:
    door.open()
    before = door.files()
    door.remove("pins")
    more = {n: [*c, c[0]] if isinstance(c, list) else c for n, c in actions().items()}
    more["timestamp"] = times(*actions()["timestamp"].to_pylist(), at(minutes=5))
    door.write(actions=more)
    report = door.open()
    assert (report.tables["actions"].new, report.tables["actions"].duplicate) == (1, 4)
    assert len(door.lake.read("actions")) == 5
    changed = {name for name, body in door.files().items() if before.get(name) != body}
    assert changed == {"lake/actions/day=2026-03-10/part.parquet"}


def test_any_split_into_ingests_gives_the_same_lake(new_door: Callable[[str], Door]) -> None:
    rng = np.random.default_rng(3)
    n = 200
    table = pa.table(
        {
            "user_id": rng.integers(1, 9, n),
            "pin_id": rng.integers(1, 4, n),
            "action": rng.choice(["save", "hide", "click"], n),
            "timestamp": times(*(at(minutes=int(m)) for m in rng.integers(1, 5000, n))),
        }
    )
    whole, parts = new_door("whole"), new_door("parts")
    whole.write(actions=table)
    whole.open()
    for start in (120, 0, 60):
        parts.write(actions=table.slice(start, 80))
        parts.open()
    assert whole.files().keys() == parts.files().keys()
    assert whole.lake.read("actions").equals(parts.lake.read("actions"))
    assert whole.lake.digest() == parts.lake.digest()


def test_the_size_of_batches_does_not_show(
    new_door: Callable[[str], Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tables() -> dict:
        return {
            "pins": pins(pin_id=[1, 2, 1], title=["old", "lamp", "new"]),
            "actions": actions(user_id=["d", "c", "b", "a"], event_id=[5, 6, 5, 7]),
            "impressions": impressions(user_id=["d", "z", "a"]),
        }

    large, small = new_door("large"), new_door("small")
    large.write(**tables())
    one = large.open()
    monkeypatch.setattr(source_module, "BATCH_ROWS", 1)
    monkeypatch.setattr(source_module, "BATCH_ROWS_WIDE", 1)
    small.write(**tables())
    two = small.open()
    assert one.tables["actions"].model_dump(exclude={"quarantine"}) == two.tables["actions"].model_dump(
        exclude={"quarantine"}
    )
    for table in tables():
        assert large.lake.read(table).equals(small.lake.read(table))
    assert large.refused(one, "actions") == small.refused(two, "actions")


def test_refused_rows_are_kept_as_they_came(door: Door) -> None:
    bad = actions(
        user_id=["ann", "bob", "cid", "dee"],
        action=["save", "repinn", "click", "x"],
        note=["p", "q", "r", "s"],
    )
    door.write(actions=bad)
    report = door.open()
    rows = door.refused(report, "actions")
    assert [(r["user_id"], r["action"], r["note"], r["reason"], r["source_row"]) for r in rows] == [
        ("bob", "repinn", "q", "unknown action", 1),
        ("dee", "x", "s", "unknown action", 3),
    ]
    assert {r["source_file"] for r in rows} == {"actions.parquet"}
    assert report.tables["actions"].quarantined == {"unknown action": 2}
    assert balanced(report)


def test_a_refused_row_enters_once_its_fault_is_mended(door: Door) -> None:
    door.write(actions=actions(pin_id=[1, 2, 1, 4]))
    assert door.open().tables["actions"].quarantined == {"unknown pin": 1}
    door.write(pins=pins(pin_id=[4, 5, 6]))
    assert door.open().tables["actions"].new == 1


def test_of_entities_the_last_row_stays(door: Door) -> None:
    door.write(pins=pins(pin_id=[1, 2, 1], title=["first", "lamp", "last"]))
    report = door.open()
    assert report.tables["pins"].quarantined == {"duplicate pin_id": 1}
    assert door.refused(report, "pins")[0]["title"] == "first"
    frame = door.lake.read("pins").set_index("pin_id")
    assert frame["title"].to_dict() == {1: "last", 2: "lamp"}
    door.write(pins=pins(pin_id=[2, 9, 1], title=["LAMP", "vase", "last"]))
    report = door.open()
    outcome = report.tables["pins"]
    assert (outcome.new, outcome.updated, outcome.duplicate) == (1, 1, 1)
    titles = door.lake.read("pins").set_index("pin_id")["title"].to_dict()
    assert titles == {1: "last", 2: "LAMP", 9: "vase"}


def test_queries_that_read_the_same_are_one_and_the_last_judgement_stays(door: Door) -> None:
    door.write(query_judgements=judgements(pin_id=[1, 1, 2]))
    report = door.open()
    assert report.tables["query_judgements"].quarantined == {"duplicate query + pin_id": 1}
    kept = door.lake.read("query_judgements")
    assert kept.to_dict("records") == [
        {"query": "red chair", "pin_id": 1, "relevance": 0.5},
        {"query": "lamp", "pin_id": 2, "relevance": 1.0},
    ]
    before = door.lake.digest(LEARNED_TABLES)
    door.write(query_judgements=judgements(query=["Lamp", "red chair", "rug"], relevance=[2, 0.5, 0]))
    assert door.open().tables["query_judgements"].new == 3
    assert door.lake.digest(LEARNED_TABLES) == before, "what was learned still holds"
    assert door.lake.digest() != before


def test_of_events_the_first_row_stays(door: Door) -> None:
    door.write(actions=actions(event_id=[5, 6, 5, 7]))
    report = door.open()
    assert report.tables["actions"].quarantined == {"duplicate event_id": 1}
    assert door.refused(report, "actions")[0]["user_id"] == 8
    assert door.lake.read("actions").set_index("event_id")["user_id"].to_dict() == {5: 7, 6: 7, 7: 9}


def test_an_event_id_that_comes_again_on_another_day_is_refused(door: Door) -> None:
    door.write(actions=actions(event_id=[5, 6, 7, 8]))
    door.open()
    moved = actions(event_id=[5, 16, 17, 18], timestamp=times(*[at(days=5)] * 4))
    door.write(actions=moved)
    report = door.open()
    assert report.tables["actions"].quarantined == {"duplicate event_id": 1}
    assert len(door.lake.read("actions")) == 7


def test_equal_rows_are_harmless_duplicates(door: Door) -> None:
    table = pa.table(actions())
    door.write(actions=pa.concat_tables([table, table]))
    report = door.open()
    assert (report.tables["actions"].new, report.tables["actions"].duplicate) == (4, 4)
    assert report.refused == 0


def test_one_impression_a_request_and_pin_across_days(door: Door) -> None:
    door.write(impressions=impressions(pin_id=[1, 1, 1], request_id=[100, 100, 101]))
    assert door.open().tables["impressions"].quarantined == {"duplicate request_id + pin_id": 1}
    door.write(impressions=impressions(timestamp=times(*[at(days=3)] * 3)))
    report = door.open()
    assert report.tables["impressions"].quarantined == {"duplicate request_id + pin_id": 2}
    frame = door.lake.read("impressions")
    assert not frame.duplicated(["request_id", "pin_id"]).any()


def test_of_follows_the_first_stays(door: Door) -> None:
    door.write(
        follows={
            "user_id": [1, 1, 1],
            "timestamp": times(at(days=3), at(days=2), at(days=1)),
            "topic_id": [5, 5, None],
            "board_id": pa.array([None, None, 5], pa.int64()),
        }
    )
    report = door.open()
    assert report.tables["follows"].new == 2
    assert door.lake.read("follows")["timestamp"].tolist() == [at(days=3), at(days=1)]


def test_string_ids_are_numbered_once_and_map_back(door: Door) -> None:
    door.write(
        pins=pins(pin_id=["p1", "p2", "p3"], topics=[["home"], ["home", "art"], []]),
        actions=actions(pin_id=["p1", "p2", "p1", "p9"], user_id=["u", "v", "u", "w"]),
    )
    report = door.open()
    assert report.tables["actions"].quarantined == {"unknown pin": 1}
    contract = door.lake.contract()
    assert contract.string_ids == {EntityKind.PIN, EntityKind.USER, EntityKind.TOPIC}
    frame = door.lake.read("actions")
    ids = door.lake.id_map()
    assert ids.decode(EntityKind.PIN, frame["pin_id"]) == ["p2", "p1", "p1"]
    assert ids.lookup(EntityKind.USER, "w") is None
    assert ids.lookup(EntityKind.PIN, "p9") is None
    before = door.files()
    door.open()
    assert door.files() == before


def test_the_form_of_ids_is_fixed_by_the_first_ingest(door: Door) -> None:
    door.open()
    door.write(actions=actions(user_id=["a", "b", "c", "d"]))
    before = door.files()
    with pytest.raises(MixedIds, match="user ids are strings, the lake has them as integers"):
        door.open()
    assert door.files() == before


def test_a_refused_ingest_does_not_fix_the_form_of_ids(door: Door) -> None:
    clean = {"pins": pins(), "actions": actions()}
    door.write(
        pins=pins(pin_id=["a", "b", "c"], topics=[["t"], ["u"], []]),
        actions=actions(pin_id=["a", "b", "a", "c"], user_id=list("wxyz"), action=["?"] * 4),
    )
    with pytest.raises(EmptyTable):
        door.open()
    assert all(door.lake.id_map().form(kind) is None for kind in EntityKind)
    door.write(**clean)
    assert door.open().tables["actions"].new == 4
    assert door.lake.id_map().form(EntityKind.PIN) is IdForm.INTEGER
    assert door.lake.contract().string_ids == frozenset()


def test_an_event_of_1970_does_not_move_the_first_day(door: Door) -> None:
    old = times(at(hours=1), datetime(1970, 1, 1, 0, 5, tzinfo=UTC), at(hours=2), at(hours=3))
    door.write(actions=actions(timestamp=old))
    report = door.open()
    assert report.tables["actions"].quarantined == {"timestamp before 2005-01-01T00:00:00Z": 1}
    assert door.lake.interval()[0] == datetime(2026, 3, 10, tzinfo=UTC)


def test_a_data_set_may_declare_how_old_it_is(door: Door) -> None:
    door.write(actions=actions(timestamp=times(*[datetime(1997, 9, 20, tzinfo=UTC)] * 4)))
    with pytest.raises(EmptyTable, match=r"timestamp before 2005.*set `earliest` in contract\.yaml"):
        door.open()
    (door.source / "contract.yaml").write_text("earliest: 1995-01-01\n")
    assert door.open().tables["actions"].new == 4
    assert door.lake.contract().earliest == datetime(1995, 1, 1, tzinfo=UTC)


def test_the_dimension_of_vectors_is_fixed_by_the_first_ingest(door: Door) -> None:
    door.open()
    door.write(pins=pins(pin_id=[7, 8, 9], visual_embedding=[[1.0, 2, 3], [3.0, 4, 5], [5.0, 6]]))
    report = door.open()
    assert report.tables["pins"].quarantined == {"visual_embedding is not of dimension 2": 2}


def test_an_action_of_the_future_waits(door: Door) -> None:
    door.write(actions=actions(timestamp=times(at(hours=-1), at(hours=1), at(hours=2), at(minutes=-4))))
    report = door.open()
    assert report.tables["actions"].quarantined == {"timestamp in the future": 1}
    assert door.open(now=NOW + timedelta(hours=2)).tables["actions"].new == 1


def test_a_table_of_which_nothing_may_enter_is_refused_whole(door: Door) -> None:
    door.write(actions=actions(action=["a", "b", "c", "d"]))
    with pytest.raises(EmptyTable) as refusal:
        door.open()
    assert "all 4 rows of actions are refused: unknown action (4)" in str(refusal.value)
    assert "found 'a', 'b', 'c', 'd', allowed are closeup, click," in str(refusal.value)
    assert "contract.yaml" in str(refusal.value)
    assert not door.lake.exists()
    assert door.files() == {}
    assert not list((door.home / "quarantine").rglob("*.parquet"))


def test_a_vocabulary_may_grow_and_not_change(door: Door) -> None:
    declared = "vocabulary: {actions: {%s}}"
    file = door.source / "contract.yaml"
    file.write_text(declared % "view: neutral, buy: positive")
    door.write(actions=actions(action=["view", "buy", "view", "save"]))
    assert door.open().tables["actions"].quarantined == {"unknown action": 1}
    file.write_text(declared % "view: neutral, buy: positive, save: positive")
    assert door.open().tables["actions"].new == 1
    for changed in (
        "buy: positive, view: neutral",
        "view: positive, buy: positive",
        "view: neutral, x: positive",
    ):
        file.write_text(declared % changed)
        with pytest.raises(BadContractFile, match="does not begin with the lake's"):
            door.open()
    file.unlink()
    assert door.open().tables["actions"].duplicate == 4


def test_two_ingests_at_once_are_refused(door: Door) -> None:
    door.open()
    with (door.lake.path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(IngestBusy, match="another ingest"):
            door.open()
    door.open()


@pytest.mark.parametrize("failing_write", [1, 2, 3])
def test_an_ingest_killed_while_writing_is_completed_by_the_next(
    door: Door, new_door: Callable[[str], Door], monkeypatch: pytest.MonkeyPatch, failing_write: int
) -> None:
    whole = new_door("whole")
    whole.open()
    writes = 0
    real = staging.Path.replace

    def replace(self: object, target: object) -> object:
        nonlocal writes
        writes += str(target).endswith("part.parquet")
        if writes == failing_write:
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(staging.Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            door.open()
    assert not door.lake.exists()
    assert balanced(door.open())
    assert door.lake.digest() == whole.lake.digest()
    assert not (door.lake.path / ".staging").exists()
    assert not list(door.lake.path.rglob("*.tmp"))


def test_every_ingest_has_its_own_report(door: Door) -> None:
    first, second = door.open(), door.open()
    assert first.id != second.id
    assert IngestReport.model_validate_json(first.page.with_suffix(".json").read_text()) == first
    assert second.page.exists()


def test_progress_is_told_in_lines(door: Door) -> None:
    lines: list[str] = []
    ingest_module.ingest(
        door.source,
        door.home / "lake",
        door.home / "quarantine",
        door.home / "reports",
        now=NOW,
        progress=lines.append,
        checkpoint=False,
    )
    assert "Reading actions: 4 rows" in lines
    assert "Writing pins: 3 new rows" in lines
