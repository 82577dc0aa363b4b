"""Bad rows are refused before anything is written, by name; digests tell any difference."""

from __future__ import annotations

import numpy as np
import pytest

from feature_repo.vectors.exact import top_k, top_k_stream
from feature_repo.vectors.index import VectorShapeError
from feature_repo.vectors.rows import MAX_TOPICS, PinRows, concatenate
from tests.feature_repo.vectors.conftest import planted_pins

GOOD = {
    "ids": [3, 1, 2],
    "vectors": np.eye(3, dtype=np.float32),
    "topics": [[1, 2], [], [5]],
    "created_at_ms": [10, 11, 12],
    "quality": [0.1, 0.2, 0.3],
}


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("ids", [3, 1, 3], "pin 3 appears 2 times"),
        ("ids", [3, 0, 1], "pin id 0"),
        ("ids", [3, -5, 1], "pin id -5"),
        (
            "vectors",
            np.array([[1, 0], [np.nan, 1], [0, 1]]),
            "vectors: 1 pins hold NaN or infinity, first pin 1",
        ),
        ("vectors", np.array([[1, 0], [np.inf, 1], [0, 1]]), "vectors: 1 pins hold"),
        ("vectors", np.ones(3), r"vectors \(n, d\)"),
        ("vectors", np.eye(2), "vectors has 2 rows for 3 pin ids"),
        ("topics", [[1]], "topics has 1 rows"),
        ("created_at_ms", [1, 2], "created_at_ms has 2 rows"),
        ("quality", [0.1, np.nan, 0.3], "quality: 1 pins hold NaN or infinity, first pin 1"),
    ],
)
def test_bad_rows_are_named(column: str, value: object, said: str) -> None:
    with pytest.raises(VectorShapeError, match=said):
        PinRows.of(**{**GOOD, column: value})


def test_topics_come_ragged_or_padded() -> None:
    ragged = PinRows.of(**GOOD)
    padded = PinRows.of(**{**GOOD, "topics": np.array([[1, 2, 0], [0, 0, 0], [0, 5, 0]])})
    for rows in (ragged, padded, PinRows.of(**{**GOOD, "topics": [np.array([1, 0, 2]), None, [5]]})):
        assert [rows.topics(i).tolist() for i in range(3)] == [[1, 2], [], [5]]
    many = PinRows.of(**{**GOOD, "topics": [list(range(1, 100)), [], []]})
    assert many.topics(0).tolist() == list(range(1, MAX_TOPICS + 1))


def test_take_and_concatenate_keep_every_column() -> None:
    rows = planted_pins(50)
    order = np.random.default_rng(0).permutation(50)
    back = concatenate([rows.take(order[:17]), rows.take(order[17:])]).take(np.argsort(order))
    for field, value in vars(rows).items():
        np.testing.assert_array_equal(getattr(back, field), value, err_msg=field)
    assert len(rows.take(np.empty(0, np.int64))) == 0


def test_digests_follow_content() -> None:
    base = PinRows.of(**GOOD).digests()
    assert (base > 0).all() and len(set(base.tolist())) == 3
    for column, value in (
        ("vectors", np.eye(3, dtype=np.float32) * np.array([[1], [1], [2]])),
        ("topics", [[1, 2], [], [6]]),
        ("created_at_ms", [10, 11, 13]),
        ("quality", [0.1, 0.2, 0.31]),
    ):
        changed = PinRows.of(**{**GOOD, column: value}).digests()
        assert (changed == base).tolist() == [True, True, False], column


def test_brute_force_against_a_full_sort() -> None:
    rows = planted_pins(300)
    queries = planted_pins(6, seed=2).vectors
    order = np.argsort(-(queries @ rows.vectors.T), axis=1)[:, :25]
    found = top_k(queries, rows.vectors, rows.ids, 25)
    np.testing.assert_array_equal(found.ids, rows.ids[order])
    blocks = [(rows.ids[s : s + 70], rows.vectors[s : s + 70]) for s in range(0, 300, 70)]
    np.testing.assert_array_equal(top_k_stream(queries, blocks, 25).ids, found.ids)
    assert top_k(queries, rows.vectors[:4], rows.ids[:4], 25).counts.tolist() == [4] * 6
    assert top_k_stream(queries, [], 3).counts.tolist() == [0] * 6
