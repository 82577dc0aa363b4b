"""What is refused before a row is read: each fault is a named error that names the place and the mend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.validation.conftest import Door, actions, at, pins
from validation.errors import (
    BadContractFile,
    ContractError,
    EmptyTable,
    MissingColumn,
    MissingTable,
    MixedIds,
    NaiveTimestamp,
    UnreadableFile,
    WrongType,
)
from validation.ids import IdForm
from validation.source import open_source, read_contract, write_contract
from validation.tables import Contract, EntityKind, Polarity, Vocabulary

NAIVE = pa.array([at().replace(tzinfo=None)] * 4, pa.timestamp("us"))


def without(columns: dict[str, Any], name: str) -> dict[str, Any]:
    return {n: c for n, c in columns.items() if n != name}


FAULTS = [
    ({"actions": without(actions(), "pin_id")}, MissingColumn, r"actions: required column pin_id is missing"),
    ({"actions": actions(timestamp=NAIVE)}, NaiveTimestamp, r"actions.timestamp .* without zone; give UTC"),
    (
        {"actions": actions(timestamp=[1, 2, 3, 4])},
        WrongType,
        r"actions.timestamp is int64; expected a timestamp",
    ),
    (
        {"actions": actions(user_id=[1.0, 2.0, 3.0, None])},
        WrongType,
        r"user_id is double; ids are int64 or string",
    ),
    ({"actions": actions(action=[1, 2, 3, 4])}, WrongType, r"actions.action is int64; expected string"),
    ({"actions": actions(duration_s=["1"] * 4)}, WrongType, r"duration_s is string; expected float"),
    (
        {"pins": pins(topics=["10", "11", "12"])},
        WrongType,
        r"pins.topics is string; expected a list of int64",
    ),
    (
        {"pins": pins(visual_embedding=[[1], [2], [3]])},
        WrongType,
        r"visual_embedding .*expected a list of float",
    ),
    ({"pins": pins(title=[1, 2, 3])}, WrongType, r"pins.title is int64; expected string"),
    (
        {"actions": actions(pin_id=["1", "2", "3", "4"])},
        MixedIds,
        r"actions.pin_id holds strings .* pins.pin_id holds integers",
    ),
    ({"actions": {n: c[:0] for n, c in actions().items()}}, ContractError, r"actions"),
]


@pytest.mark.parametrize(("tables", "error", "message"), FAULTS)
def test_a_fault_of_form_is_a_named_error_and_nothing_enters(
    door: Door, tables: dict[str, Any], error: type[Exception], message: str
) -> None:
    door.write(**tables)
    with pytest.raises(error, match=message):
        door.open()
    assert not door.lake.exists()
    assert not door.lake.has("pins")


def test_an_empty_table_says_so(door: Door) -> None:
    door.write(actions=pa.table(actions()).slice(0, 0))
    with pytest.raises(EmptyTable, match="actions has no rows"):
        door.open()


def test_the_needed_tables_are_asked_for(door: Door) -> None:
    door.remove("actions")
    with pytest.raises(MissingTable, match="has no actions; every data set needs pins and actions"):
        door.open()


def test_an_empty_folder_says_what_was_expected(door: Door) -> None:
    door.remove("actions", "pins")
    with pytest.raises(MissingTable, match=r"holds no contract table; expected <table>\.parquet"):
        door.open()


def test_a_folder_that_is_not_there(door: Door) -> None:
    with pytest.raises(MissingTable, match="is not a folder"):
        open_source(door.source / "elsewhere")


@pytest.mark.parametrize("damage", [b"", b"not parquet at all", None])
def test_a_file_that_is_not_parquet_is_named(door: Door, damage: bytes | None) -> None:
    path = door.source / "actions.parquet"
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(UnreadableFile, match=r"actions\.parquet"):
        door.open()
    assert not door.lake.exists()


def test_a_file_torn_in_its_middle_lets_nothing_enter(door: Door) -> None:
    path = door.source / "actions.parquet"
    whole = bytearray(path.read_bytes())
    whole[4:200] = bytes(196)
    path.write_bytes(whole)
    with pytest.raises(UnreadableFile, match=r"actions\.parquet"):
        door.open()
    assert not door.lake.has("pins")


def test_a_table_may_be_a_folder_of_files_that_differ_in_optional_columns(door: Door) -> None:
    door.remove("actions")
    folder = door.source / "actions" / "year=2026"
    folder.mkdir(parents=True)
    table = pa.table(actions(duration_s=[1.0, 2.0, 3.0, 4.0]))
    pq.write_table(table.slice(0, 1), folder / "a.parquet")
    pq.write_table(table.slice(1).drop_columns(["duration_s"]), folder / "b.parquet")
    report = door.open()
    assert report.tables["actions"].new == 4
    assert sorted(door.lake.read("actions")["duration_s"].dropna()) == [1.0]


def test_a_fault_in_one_of_many_files_names_that_file(door: Door) -> None:
    door.remove("actions")
    folder = door.source / "actions"
    folder.mkdir()
    pq.write_table(pa.table(actions()), folder / "a.parquet")
    pq.write_table(pa.table(without(actions(), "action")), folder / "b.parquet")
    with pytest.raises(MissingColumn, match=r"actions/b\.parquet: required column action"):
        door.open()


def test_a_table_twice_is_refused(door: Door) -> None:
    (door.source / "pins").mkdir()
    pq.write_table(pa.table(pins()), door.source / "pins" / "a.parquet")
    with pytest.raises(UnreadableFile, match="holds both"):
        door.open()


def test_unknown_tables_and_columns_are_noted_and_left_alone(door: Door) -> None:
    door.write(weather={"day": ["a"]}, pins=pins(colour=["r", "g", "b"]))
    report = door.open()
    assert report.unknown == ("weather",)
    assert report.tables["pins"].unused_columns == ("colour",)


def test_forms_are_found(door: Door) -> None:
    door.write(actions=actions(user_id=["a", "b", "c", "d"]))
    forms = open_source(door.source).forms
    assert forms[EntityKind.USER] is IdForm.STRING
    assert forms[EntityKind.PIN] is IdForm.INTEGER


def test_the_contract_file_round_trips(door: Door) -> None:
    contract = Contract(
        name="shop",
        vocabulary=Vocabulary(actions={"view": Polarity.NEUTRAL, "buy": Polarity.POSITIVE}),
        board_name="basket",
        notes="Made of receipts.",
    )
    write_contract(door.source, contract)
    assert read_contract(door.source) == contract


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("naem: x", "naem.*the keys are name, vocabulary, board_name, earliest, notes"),
        ("earliest: 1995-01-01 10:00:00", "earliest.*timezone"),
        ("earliest: 1960-01-01", "earliest.*1970"),
        ("vocabulary: {actions: {view: good}}", "vocabulary.actions.view"),
        ("vocabulary: {actions: {hide: negative}}", "at least one positive action"),
        ("- a\n- b", "expected keys and values"),
        ("name: [", "not YAML"),
    ],
)
def test_a_bad_contract_file_names_the_key(door: Door, text: str, message: str) -> None:
    (door.source / "contract.yaml").write_text(text)
    with pytest.raises(BadContractFile, match=message):
        door.open()


@pytest.mark.parametrize(
    ("table", "column", "columns"),
    [
        ("pins", "title", lambda bad: pins(title=bad(3))),
        ("pins", "note", lambda bad: pins(note=bad(3))),
        ("actions", "action", lambda bad: actions(action=bad(4))),
        ("actions", "user_id", lambda bad: actions(user_id=bad(4))),
    ],
)
def test_text_that_is_not_utf8_is_refused_by_file_and_column(
    door: Door, table: str, column: str, columns: Callable[[Callable[[int], pa.Array]], dict]
) -> None:
    def bad(rows: int) -> pa.Array:
        words = pa.array([b"save"] * (rows - 1) + [b"caf\xe9"], pa.binary())
        return pa.Array.from_buffers(pa.string(), rows, words.buffers())

    door.write(**{table: columns(bad)})
    with pytest.raises(UnreadableFile, match=rf"{table}\.parquet: column {column} is not UTF-8"):
        door.open()
    assert not door.lake.exists()
