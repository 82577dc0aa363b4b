"""What rankers read of a query: the words it shares with a pin, alike for logged rows and for a request."""

from __future__ import annotations

import numpy as np
import pytest

from training.models.lexical import LexicalIndex
from training.models.query_features import QUERY_FEATURES, query_features, row_query_features
from validation.queries import LOGGED_QUERY, logged

TEXTS = ["rustic sourdough loaf", "minimal oak bench", "sourdough starter jar", "loaf of rye"]
IDS = np.array([3, 5, 8, 9])


@pytest.fixture(scope="module")
def words() -> LexicalIndex:
    return LexicalIndex.fit(IDS, TEXTS)


def test_a_pin_of_every_word_matches_best_and_one_of_none_not_at_all(words: LexicalIndex) -> None:
    made = query_features(words, "Sourdough  LOAF", "search", np.append(IDS, 77))
    assert made.dtype == np.float32 and made.shape == (5, len(QUERY_FEATURES))
    match = made[:, 0]
    assert match[0] == match.max() > match[2] > 0 == match[1] == match[4]
    assert match.max() <= 1
    assert (made[:, 1] == 1).all()


@pytest.mark.parametrize("surface", ["homefeed", "related", None])
def test_nothing_matches_where_nobody_searches(words: LexicalIndex, surface: str | None) -> None:
    assert (query_features(words, None, surface, IDS) == 0).all()
    assert (query_features(words, "", surface, IDS) == 0).all()


def test_a_request_reads_no_more_of_its_query_than_was_logged(words: LexicalIndex) -> None:
    query = "oak " * LOGGED_QUERY + "sourdough loaf"
    made = query_features(words, query, "search", IDS)
    np.testing.assert_array_equal(made, query_features(words, logged(query), "search", IDS))
    assert made[0, 0] == 0 < made[1, 0]


def test_without_an_index_the_surface_is_still_known() -> None:
    assert query_features(None, "loaf", "search", IDS).tolist() == [[0, 1]] * 4


def test_rows_of_many_requests_have_the_bits_of_each_request(words: LexicalIndex) -> None:
    rng = np.random.default_rng(0)
    asked = [
        ("sourdough loaf", "search"),
        ("oka bench", "search"),
        (None, "homefeed"),
        (None, "search"),
        ("🥖", "search"),
    ]
    of = rng.integers(0, len(asked), 200)
    pins = rng.choice(np.append(IDS, 77), 200)
    queries, surfaces = ([asked[i][j] for i in of] for j in (0, 1))
    made = row_query_features(lambda: words, queries, surfaces, pins)
    for i, (query, surface) in enumerate(asked):
        np.testing.assert_array_equal(made[of == i], query_features(words, query, surface, pins[of == i]))
    assert made[:, 0].any() and len(np.unique(made[:, 1])) == 2


def test_the_index_is_not_made_for_rows_without_a_query() -> None:
    def never() -> LexicalIndex:
        raise AssertionError("there is nothing to match")

    assert (row_query_features(never, [None, None], ["homefeed", "search"], IDS[:2]) == [[0, 0], [0, 1]]).all()
    assert row_query_features(never, [], [], IDS[:0]).shape == (0, 2)
