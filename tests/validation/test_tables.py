"""The contract's own rules: vocabularies, and tables that are consistent in themselves."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pydantic import ValidationError

from validation.tables import (
    DEFAULT_VOCABULARY,
    REQUIRED_TABLES,
    TABLES,
    TIMESTAMP,
    Contract,
    EntityKind,
    Polarity,
    Vocabulary,
)


def test_codes_count_from_one_and_zero_is_padding() -> None:
    assert [DEFAULT_VOCABULARY.code(a) for a in DEFAULT_VOCABULARY.names] == [1, 2, 3, 4, 5, 6, 7]
    assert [DEFAULT_VOCABULARY.name(c) for c in range(1, 8)] == list(DEFAULT_VOCABULARY.names)
    with pytest.raises(IndexError, match=r"code 0 outside 1\.\.7"):
        DEFAULT_VOCABULARY.name(0)
    with pytest.raises(KeyError, match=r"unknown action 'repinn'; allowed: closeup, click"):
        DEFAULT_VOCABULARY.code("repinn")


def test_every_code_has_one_polarity() -> None:
    split = [DEFAULT_VOCABULARY.codes(p) for p in Polarity]
    assert sorted(c for codes in split for c in codes) == [1, 2, 3, 4, 5, 6, 7]
    assert DEFAULT_VOCABULARY.codes(Polarity.NEGATIVE) == (6, 7)


@pytest.mark.parametrize(
    "actions", [{}, {"hide": Polarity.NEGATIVE}, {f"a{i}": Polarity.POSITIVE for i in range(127)}]
)
def test_a_vocabulary_nothing_can_be_learned_from_is_refused(actions: dict[str, Polarity]) -> None:
    with pytest.raises(ValidationError, match="vocabulary"):
        Vocabulary(actions=actions)


def test_a_contract_survives_its_json_byte_by_byte() -> None:
    contract = Contract(string_ids=frozenset(EntityKind), vector_dims={"visual_embedding": 64})
    text = contract.model_dump_json()
    assert Contract.model_validate_json(text) == contract
    assert '"string_ids":["board","pin","topic","user"]' in text


@pytest.mark.parametrize("spec", TABLES.values(), ids=TABLES)
def test_every_table_is_consistent(spec) -> None:
    names = spec.schema.names
    assert set(spec.required) <= set(names)
    assert set(spec.key) <= set(names)
    assert set(spec.ids) <= set(names)
    assert spec.by_day is (spec.name in ("actions", "candidates", "impressions"))
    assert not spec.by_day or TIMESTAMP in names
    for name in spec.ids:
        found = spec.schema.field(name).type
        assert (found.value_type if pa.types.is_list(found) else found) == pa.int64()


def test_what_is_pointed_at_passes_the_door_first() -> None:
    order = list(TABLES)
    assert order.index("pins") < order.index("impressions") < order.index("actions")
    assert set(REQUIRED_TABLES) <= set(order)
