"""The id map: numbers in order of first sight, one form a kind, one number a string whoever asks."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from validation.ids import IdForm, IdFormError, IdMap, hash_id, hash_ids
from validation.tables import EntityKind

USER, PIN = EntityKind.USER, EntityKind.PIN


@pytest.fixture
def ids(tmp_path: Path) -> IdMap:
    return IdMap(tmp_path / "ids.sqlite")


def test_strings_are_numbered_from_one_in_the_order_of_first_sight(ids: IdMap) -> None:
    assert ids.encode(USER, ["b", "a", "b", "c"]).tolist() == [1, 2, 1, 3]
    assert ids.encode(USER, ["d", "a"]).tolist() == [4, 2]
    assert ids.decode(USER, [4, 1, 1]) == ["d", "b", "b"]


def test_kinds_are_numbered_apart(ids: IdMap) -> None:
    ids.encode(USER, ["x", "y"])
    assert ids.encode(PIN, ["y"]).tolist() == [1]


def test_the_map_survives_its_object(ids: IdMap) -> None:
    ids.encode(USER, ["b", "a"])
    again = IdMap(ids.path)
    assert again.lookup(USER, "a") == 2
    assert again.assign(USER, "z") == 3
    assert again.form(USER) is IdForm.STRING


def test_integers_are_their_own_ids(ids: IdMap) -> None:
    assert ids.encode(USER, [5, 2**62]).tolist() == [5, 2**62]
    assert ids.lookup(USER, 77) == 77
    assert ids.lookup(USER, "77") == 77
    assert ids.lookup(USER, "seven") is None
    assert ids.lookup(USER, 0) is None
    assert ids.decode(USER, [5]) == [5]


def test_an_unknown_string_is_nobody(ids: IdMap) -> None:
    ids.encode(USER, ["a"])
    assert ids.lookup(USER, "b") is None
    assert ids.encode(USER, ["b", "a"], assign=False).tolist() == [0, 1]
    assert ids.count(USER) == 1


def test_looking_into_an_absent_map_creates_nothing(ids: IdMap) -> None:
    assert ids.lookup(USER, "a") is None
    assert ids.encode(PIN, ["a"], assign=False).tolist() == [0]
    assert not ids.path.exists()


@pytest.mark.parametrize(("first", "second"), [(["a"], [1]), ([1], ["a"])])
def test_one_kind_has_one_form(ids: IdMap, first: list, second: list) -> None:
    ids.encode(USER, first)
    with pytest.raises(IdFormError, match="user ids"):
        ids.encode(USER, second)


@pytest.mark.parametrize("bad", [[0], [-3, 1], [""], [None]])
def test_ids_that_stand_for_nobody_are_refused(ids: IdMap, bad: list) -> None:
    with pytest.raises(ValueError):
        ids.encode(USER, bad)


def test_decoding_an_id_never_given_out_names_it(ids: IdMap) -> None:
    ids.encode(USER, ["a"])
    with pytest.raises(KeyError, match="user id 9"):
        ids.decode(USER, [1, 9])
    assert ids.decode_known(USER, [9, 1]) == [None, "a"]


def test_words_of_a_dictionary_that_no_row_uses_get_no_number(ids: IdMap) -> None:
    array = pa.array(["unused", "a", "b"]).dictionary_encode().take(pa.array([2, 1]))
    assert ids.encode(USER, array).tolist() == [1, 2]
    assert ids.lookup(USER, "unused") is None


@settings(max_examples=10, deadline=None)
@given(st.lists(st.lists(st.text(min_size=1, max_size=3), max_size=20), max_size=6))
def test_encoding_in_pieces_is_a_bijection(tmp_path_factory: pytest.TempPathFactory, pieces: list) -> None:
    ids = IdMap(tmp_path_factory.mktemp("ids") / "ids.sqlite")
    oracle: dict[str, int] = {}
    for words in pieces:
        expected = [oracle.setdefault(w, len(oracle) + 1) for w in words]
        assert ids.encode(USER, pa.array(words, pa.string())).tolist() == expected
    assert ids.decode(USER, list(oracle.values())) == list(oracle)


def _assign_all(path: str, words: list[str]) -> list[int]:
    ids = IdMap(path)
    return [ids.assign(USER, w) for w in words]


def test_processes_agree_on_every_number(ids: IdMap) -> None:
    words = [f"user-{i}" for i in range(60)]
    ids.fix_form(USER, IdForm.STRING)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        forward, backward = pool.starmap(_assign_all, [(str(ids.path), words), (str(ids.path), words[::-1])])
    assert forward == backward[::-1]
    assert sorted(forward) == list(range(1, 61))


def test_threads_share_one_map(ids: IdMap) -> None:
    ids.fix_form(USER, IdForm.STRING)
    words = [f"user-{i % 10}" for i in range(200)]
    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(lambda w: ids.assign(USER, w), words))
    assert len(set(numbers)) == 10
    assert numbers == [ids.lookup(USER, w) for w in words]


def test_hashed_ids_are_positive_and_part_of_the_lake_format() -> None:
    assert hash_id("request-1") == 5361233155188441783
    hashed = hash_ids([f"r{i}" for i in range(10_000)])
    assert hashed.min() > 0
    assert len(np.unique(hashed)) == 10_000


def test_a_form_held_back_is_seen_by_nobody_else_until_it_is_settled(tmp_path: Path) -> None:
    mine, other = IdMap(tmp_path / "ids.sqlite"), IdMap(tmp_path / "ids.sqlite")
    mine.hold_forms()
    assert mine.encode(EntityKind.PIN, ["a", "b"]).tolist() == [1, 2]
    assert mine.decode(EntityKind.PIN, [2]) == ["b"]
    with pytest.raises(IdFormError):
        mine.encode(EntityKind.PIN, [1])
    assert other.form(EntityKind.PIN) is None
    mine.settle_forms()
    assert other.form(EntityKind.PIN) is IdForm.STRING


def test_a_form_held_back_does_not_override_one_fixed_meanwhile(tmp_path: Path) -> None:
    mine, other = IdMap(tmp_path / "ids.sqlite"), IdMap(tmp_path / "ids.sqlite")
    mine.hold_forms()
    mine.encode(EntityKind.PIN, ["a"])
    other.encode(EntityKind.PIN, [1])
    with pytest.raises(IdFormError, match="strings here but integers in the lake"):
        mine.settle_forms()
