"""The loop closes: what the services logged becomes rows of the lake, once."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.validation.conftest import NOW, Door, actions, at, pins
from validation.errors import IngestBusy
from validation.events import ActionRecord, AnyRecord, CandidateRecord, ImpressionRecord, to_line
from validation.ingest import alone
from validation.ingest_events import LOCK, ingest_events
from validation.lake import LakeError
from validation.outcome import IngestReport
from validation.tables import EntityKind


def ms(**ago: float) -> int:
    return int(at(**ago).timestamp() * 1000)


def action(event_id: int, **fields: object) -> ActionRecord:
    return ActionRecord(
        **{
            "event_id": event_id,
            "user_id": 7,
            "pin_id": 1,
            "timestamp_ms": ms(minutes=event_id),
            "action": "save",
        }
        | fields
    )


def impression(event_id: int, **fields: object) -> ImpressionRecord:
    known = {"event_id": event_id, "user_id": 7, "pin_id": 2, "timestamp_ms": ms(minutes=9), "request_id": 55}
    return ImpressionRecord(**known | {"position": 3, "propensity": 0.25, "source": "pinnersage"} | fields)


def candidate(event_id: int, **fields: object) -> CandidateRecord:
    known = {"event_id": event_id, "user_id": 7, "pin_id": 2, "timestamp_ms": ms(minutes=9), "request_id": 55}
    known |= {"source": "pixie", "rank": 4, "score": -0.5, "stage": "light", "logged": 0.25, "release": 3}
    return CandidateRecord(**known | fields)


class Log:
    """An event log beside a door."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.folder = door.home / "events"
        self.folder.mkdir(parents=True)

    def append(self, segment: str, *records: AnyRecord | bytes) -> Path:
        path = self.folder / f"{segment}.jsonl"
        with path.open("ab") as file:
            for record in records:
                file.write(record if isinstance(record, bytes) else to_line(record))
        return path

    def ingest(self) -> IngestReport | None:
        home = self.door.home
        return ingest_events(
            self.folder, home / "lake", home / "quarantine", home / "reports", now=NOW, checkpoint=False
        )


@pytest.fixture
def log(door: Door) -> Log:
    door.open()
    return Log(door)


def test_records_become_rows(log: Log) -> None:
    log.append(
        "a",
        action(1, query="red chair", surface="search", duration_s=2.5, request_id=55),
        impression(2, query="red chair"),
    )
    report = log.ingest()
    assert {n: t.new for n, t in report.tables.items()} == {"impressions": 1, "actions": 1}
    row = log.door.lake.read("actions").set_index("event_id").loc[1]
    assert (row["user_id"], row["pin_id"], row["query"], row["surface"]) == (7, 1, "red chair", "search")
    assert (row["duration_s"], row["request_id"], row["timestamp"]) == (2.5, 55, at(minutes=1))
    seen = log.door.lake.read("impressions").iloc[0]
    assert (seen["position"], seen["propensity"], seen["source"], seen["request_id"]) == (
        3,
        0.25,
        "pinnersage",
        55,
    )
    assert seen["query"] == "red chair"


def test_an_impression_keeps_the_pin_it_was_searched_from(log: Log) -> None:
    log.append("a", impression(2, anchor=3), impression(3, pin_id=1))
    log.ingest()
    rows = log.door.lake.read("impressions").set_index("pin_id")
    assert rows["anchor"].to_dict() == {2: 3, 1: 0}, "0 is none"


def test_a_lake_from_before_a_column_takes_rows_that_have_it(log: Log) -> None:
    """The new column is null in the old rows, which are still known."""
    log.append("a", impression(2))
    log.ingest()
    (path,) = log.door.lake.files("impressions")
    old = pq.read_table(path)
    pq.write_table(old.drop_columns(["anchor", "query"]), path)
    assert log.door.lake.read("impressions")["anchor"].tolist() == [0]
    log.append("a", impression(2), impression(3, pin_id=1, anchor=3, query="lamp"))
    report = log.ingest()
    assert (report.tables["impressions"].new, report.tables["impressions"].duplicate) == (1, 1)
    rows = log.door.lake.read("impressions").set_index("pin_id")
    assert rows["anchor"].to_dict() == {2: 0, 1: 3} and len(rows) == 2
    assert rows["query"].to_dict() == {2: None, 1: "lamp"}


def test_only_what_is_new_is_read(log: Log) -> None:
    log.append("a", action(1))
    assert log.ingest().tables["actions"].read == 1
    assert log.ingest() is None
    log.append("a", action(2))
    log.append("b", action(3))
    assert log.ingest().tables["actions"].read == 2
    assert len(log.door.lake.read("actions")) == 4 + 3


def test_a_record_logged_twice_counts_once(log: Log) -> None:
    log.append("a", action(1), action(1))
    log.append("b", action(1))
    report = log.ingest()
    assert (report.tables["actions"].new, report.tables["actions"].duplicate) == (1, 2)
    assert report.refused == 0


def test_reading_the_whole_log_again_changes_nothing(log: Log) -> None:
    log.append("a", action(1), impression(2))
    log.ingest()
    before = log.door.files()
    (log.door.lake.path / "events.json").unlink()
    report = log.ingest()
    assert sum(t.new for t in report.tables.values()) == 0
    assert log.door.files() == before


def test_a_last_line_without_its_newline_waits(log: Log) -> None:
    whole = to_line(action(2))
    log.append("a", action(1), whole[:30])
    assert log.ingest().tables["actions"].read == 1
    log.append("a", whole[30:])
    assert log.ingest().tables["actions"].new == 1


def test_a_line_that_is_no_record_is_kept_apart_and_keeps_nothing_out(log: Log) -> None:
    log.append("a", action(1), b'{"kind": "thought"}\n', b"\xff\xfe torn\n", action(2))
    report = log.ingest()
    assert report.tables["actions"].new == 2
    kept = (log.door.home / "quarantine" / "events" / f"{report.id}.jsonl").read_bytes()
    assert kept == b'{"kind": "thought"}\n\xff\xfe torn\n'
    assert log.ingest() is None


def test_rows_of_unknown_pins_are_refused_like_any_other(log: Log) -> None:
    log.append("a", action(1, pin_id=99), action(2, action="yawn"), action(3))
    report = log.ingest()
    assert report.tables["actions"].quarantined == {"unknown pin": 1, "unknown action": 1}


def test_ids_go_back_through_the_map(door: Door) -> None:
    door.write(
        pins=pins(pin_id=["p1", "p2", "p3"]),
        actions=actions(pin_id=["p1", "p2", "p1", "p3"], user_id=["u", "v", "u", "w"]),
    )
    door.open()
    log = Log(door)
    ids = door.lake.id_map()
    newcomer = ids.assign(EntityKind.USER, "new")
    pin = ids.lookup(EntityKind.PIN, "p3")
    log.append("a", action(1, user_id=newcomer, pin_id=pin), action(2, user_id=9999, pin_id=pin))
    report = log.ingest()
    assert report.tables["actions"].quarantined == {"null user_id": 1}
    row = door.lake.read("actions").set_index("event_id").loc[1]
    assert (row["user_id"], row["pin_id"]) == (newcomer, pin)


def test_an_ingest_that_fails_reads_the_same_records_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append("a", action(1))
    with monkeypatch.context() as patch:
        patch.setattr("validation.ingest.commit", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            log.ingest()
    assert log.ingest().tables["actions"].new == 1


def test_a_log_needs_a_lake(door: Door) -> None:
    with pytest.raises(LakeError, match="corkboard ingest"):
        Log(door).ingest()


def test_a_second_reader_of_the_log_leaves_the_first_one_alone(log: Log) -> None:
    log.append("a", action(1))
    lake = log.door.lake
    staged = lake.path / ".events" / "actions"
    with alone(lake, LOCK):
        staged.mkdir(parents=True)
        with pytest.raises(IngestBusy):
            log.ingest()
        assert staged.is_dir()
    assert log.ingest().tables["actions"].new == 1


def test_candidates_have_a_table_of_their_own(log: Log) -> None:
    """A row a pin and source; what is logged again, or under an id that no pin has, does not enter."""
    log.append("candidates-00000001", candidate(1), candidate(2, source="dcm", rank=0), candidate(1))
    log.append("b", candidate(3, pin_id=99), impression(4))
    report = log.ingest()
    found = report.tables["candidates"]
    assert (found.read, found.new, found.duplicate) == (4, 2, 1)
    assert found.quarantined == {"unknown pin": 1}
    rows = log.door.lake.read("candidates").set_index("source")
    assert rows["rank"].to_dict() == {"dcm": 0, "pixie": 4}
    assert (rows.loc["pixie", "score"], rows.loc["pixie", "stage"], rows.loc["pixie", "logged"]) == (
        -0.5,
        "light",
        0.25,
    )
    assert rows["release"].tolist() == [3, 3] and log.door.lake.days("candidates") == [at(minutes=9).date()]
    assert log.ingest() is None
