"""What several sources brought, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.models.source_lists import Entries, SourceList, fetch, fetched_of, fuse, keep

SOURCES = ("pixie", "pinnersage")


def lists() -> list[SourceList]:
    return [
        SourceList("pinnersage", np.array([7, 9, 4]), np.array([0.9, 0.8, 0.1], np.float32)),
        SourceList("pixie", np.array([9, 3]), np.array([50, 20], np.float32)),
        SourceList("fashion_of_the_day", np.array([4]), np.array([1], np.float32)),
    ]


def test_what_every_source_says_is_one_row_a_pin():
    got = fetch(lists(), SOURCES)
    assert got.pin_ids.tolist() == [7, 9, 4, 3]  # by turns: 7, 9, 4; 9 again, 3; 4 again
    np.testing.assert_array_equal(
        got.scores, np.array([[np.nan, 0.9], [50, 0.8], [np.nan, 0.1], [20, np.nan]], np.float32)
    )
    np.testing.assert_array_equal(
        got.ranks, np.array([[np.nan, 0], [0, 1], [np.nan, 2], [1, np.nan]], np.float32)
    )
    assert got.brought.tolist() == [1, 2, 2, 1]
    assert got.best_rank.tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(got.fused, [1 / 61, 1 / 62 + 1 / 61, 1 / 63 + 1 / 61, 1 / 62])
    assert fetched_of(lists(), SOURCES, np.array([4, 7])).brought.tolist() == [2, 1]
    with pytest.raises(KeyError, match="pin 5 was brought by no source"):
        fetched_of(lists(), SOURCES, np.array([7, 5]))


def test_a_sample_of_a_list_keeps_the_places_that_its_pins_had():
    whole, some = lists(), lists()
    some[0] = SourceList("pinnersage", np.array([9, 4]), np.array([0.8, 0.1], np.float32), np.array([1, 2]))
    for name in ("scores", "ranks", "best_rank", "fused", "brought"):
        sampled, full = (getattr(fetched_of(given, SOURCES, np.array([9, 4])), name) for given in (some, whole))
        np.testing.assert_array_equal(sampled, full)


def test_the_best_are_kept_in_order():
    assert keep(np.array([0.1, 0.9, 0.5, 0.9], np.float32), 3).tolist() == [1, 3, 2]
    assert keep(np.array([0.1], np.float32), 500).tolist() == [0]


def test_rows_of_some_pins_are_those_of_all():
    """Filters take candidates before light ranking: what sources say of the others does not change."""
    rng = np.random.default_rng(0)
    given = [
        SourceList(source, rng.choice(60, 25, replace=False) + 1, rng.random(25, np.float32))
        for source in ("pixie", "pinnersage", "dcm")
    ]
    whole = fetch(given, SOURCES)
    rows = rng.permutation(len(whole))[:20]
    some = fetched_of(given, SOURCES, whole.pin_ids[rows])
    for name in ("pin_ids", "scores", "ranks", "brought", "best_rank", "fused"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole.take(rows), name))


def test_lists_laid_one_after_the_other_are_entries() -> None:
    given = [SourceList("pixie", np.array([3, 5]), np.ones(2, np.float32)), *lists()]
    laid = Entries.laid(
        [one.source for one in given],
        [len(one.pin_ids) for one in given],
        np.concatenate([one.pin_ids for one in given]),
        np.concatenate([one.scores for one in given]),
    )
    for name in ("names", "pin_ids", "ranks", "scores", "offsets"):
        np.testing.assert_array_equal(getattr(laid, name), getattr(Entries.of(given), name))
    np.testing.assert_array_equal(fuse(laid, 4), fuse(given, 4))
