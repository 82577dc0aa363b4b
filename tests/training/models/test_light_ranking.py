"""Rows of the light ranker by hand, and its file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from training.models import light_kernels, light_ranking
from training.models.light_ranking import (
    Entries,
    LightRanker,
    LightSpec,
    SourceList,
    fetch,
    fetched_of,
    fuse,
    keep,
    topic_match,
)
from training.models.light_trees import DEEPEST, FoldedTrees

SPEC = LightSpec(sources=("pixie", "pinnersage"), pin=("positives_7d",), user=("active_days_30d",))
DAY = 86_400_000


def lists() -> list[SourceList]:
    return [
        SourceList("pinnersage", np.array([7, 9, 4]), np.array([0.9, 0.8, 0.1], np.float32)),
        SourceList("pixie", np.array([9, 3]), np.array([50, 20], np.float32)),
        SourceList("fashion_of_the_day", np.array([4]), np.array([1], np.float32)),
    ]


def test_what_every_source_says_is_one_row_a_pin():
    got = fetch(lists(), SPEC.sources)
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
    assert fetched_of(lists(), SPEC.sources, np.array([4, 7])).brought.tolist() == [2, 1]
    with pytest.raises(KeyError, match="pin 5 was brought by no source"):
        fetched_of(lists(), SPEC.sources, np.array([7, 5]))


def test_a_sample_of_a_list_keeps_the_places_that_its_pins_had():
    whole, some = lists(), lists()
    some[0] = SourceList("pinnersage", np.array([9, 4]), np.array([0.8, 0.1], np.float32), np.array([1, 2]))
    for name in ("scores", "ranks", "best_rank", "fused", "brought"):
        sampled, full = (
            getattr(fetched_of(given, SPEC.sources, np.array([9, 4])), name) for given in (some, whole)
        )
        np.testing.assert_array_equal(sampled, full)


def test_nothing_fetched_is_an_empty_block():
    for given in ([], [SourceList("pixie", np.empty(0, np.int64), np.empty(0, np.float32))]):
        got = fetch(given, SPEC.sources)
        assert len(got) == 0 and got.scores.shape == (0, 2)
        assert block(got).shape == (0, len(SPEC.names))


def block(fetched, **change) -> np.ndarray:
    n = len(fetched)
    given = {
        "pin_scalars": np.zeros((n, len(PIN_SCALARS)), np.float32),
        "created_at_ms": np.zeros(n, np.int64),
        "topic_followed": np.zeros(n, np.float32),
        "topic_recent": np.zeros(n, np.float32),
        "user_scalars": np.zeros(len(USER_SCALARS), np.float32),
        "now_ms": 100 * DAY,
    }
    return SPEC.assemble(fetched, **(given | change))


def test_the_row_by_hand():
    fetched = fetch(lists(), SPEC.sources)
    pins = np.zeros((4, len(PIN_SCALARS)), np.float32)
    pins[:, PIN_SCALARS.index("positives_7d")] = [5, 6, 7, np.nan]
    pins[1, PIN_SCALARS.index("impressions_30d")] = 80
    pins[1, PIN_SCALARS.index("positives_30d")] = 9
    user = np.zeros(len(USER_SCALARS), np.float32)
    user[USER_SCALARS.index("active_days_30d")] = 12
    got = block(
        fetched,
        pin_scalars=pins,
        user_scalars=user,
        created_at_ms=np.array([99 * DAY, 101 * DAY, 0, 40 * DAY]),
        topic_followed=np.array([1, 0, 2, 0], np.float32),
        topic_recent=np.array([0.5, 0, 0, 0.25], np.float32),
    )
    assert SPEC.names == (
        "score_pixie",
        "score_pinnersage",
        "rank_pixie",
        "rank_pinnersage",
        "brought",
        "best_rank",
        "fused",
        "pin_positives_7d",
        "pin_rate_30d",
        "pin_age_days",
        "topic_followed",
        "topic_recent",
        "user_active_days_30d",
    )
    nan = np.nan
    expected = [
        [nan, 0.9, nan, 0, 1, 0, 1 / 61, 5, 1 / 20, 1, 1, 0.5, 12],
        [
            50,
            0.8,
            0,
            1,
            2,
            0,
            1 / 62 + 1 / 61,
            6,
            10 / 100,
            0,
            0,
            0,
            12,
        ],  # made a day from now: a clock ran wild
        [nan, 0.1, nan, 2, 2, 0, 1 / 63 + 1 / 61, 7, 1 / 20, 3650, 2, 0, 12],
        [20, nan, 1, nan, 1, 1, 1 / 62, nan, 1 / 20, 60, 0, 0.25, 12],
    ]
    np.testing.assert_allclose(got, np.array(expected, np.float32), rtol=1e-6)
    assert got.flags.c_contiguous and got.dtype == np.float32


def test_rows_of_many_requests_are_those_of_each():
    """Training assembles many users at once; a row must be what serving would make of it."""
    fetched = fetch(lists(), SPEC.sources)
    users = np.random.default_rng(0).random((4, len(USER_SCALARS)), np.float32)
    now = np.array([100, 101, 102, 103]) * DAY
    created = np.full(4, 90 * DAY)
    together = block(fetched, user_scalars=users, now_ms=now, created_at_ms=created)
    for i in range(4):
        alone = block(fetched, user_scalars=users[i], now_ms=int(now[i]), created_at_ms=created)
        np.testing.assert_array_equal(together[i], alone[i])


def test_topics_that_match():
    topics = np.array([[3, 8, 0, 0], [0, 0, 0, 0], [5, 3, 9, 8], [7, 0, 0, 0]])
    np.testing.assert_array_equal(topic_match(topics, np.array([8, 3])), [2, 0, 2, 0])
    np.testing.assert_allclose(topic_match(topics, np.array([9, 3]), np.array([0.25, 0.5])), [0.5, 0, 0.75, 0])
    np.testing.assert_array_equal(topic_match(topics, np.array([0])), [0, 0, 0, 0])
    np.testing.assert_array_equal(topic_match(np.array([[3, -5], [-(2**40), 2**40]]), np.array([3, 4])), [1, 0])
    large = np.where(topics == 9, 10**12, topics)
    wanted, shares = np.array([10**12, 3]), np.array([0.25, 0.5])
    np.testing.assert_allclose(topic_match(large, wanted, shares), [0.5, 0, 0.75, 0])
    np.testing.assert_array_equal(topic_match(topics, np.empty(0, np.int64)), [0, 0, 0, 0])


def test_the_best_are_kept_in_order():
    assert keep(np.array([0.1, 0.9, 0.5, 0.9], np.float32), 3).tolist() == [1, 3, 2]
    assert keep(np.array([0.1], np.float32), 500).tolist() == [0]


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_folded_trees_say_what_the_library_says(depth):
    """Also where a value is missing, infinite or just at a threshold; deep trees are left to the library."""
    import xgboost

    rng = np.random.default_rng(depth)
    x = rng.integers(0, 6, (700, len(SPEC.names))).astype(np.float32)
    x[rng.random(x.shape) < 0.3] = np.nan
    chance = 0.2 + 0.6 * (np.nan_to_num(x[:, 0]) > 2) * (np.nan_to_num(x[:, 1]) < 4)
    matrix = xgboost.DMatrix(x, rng.random(len(x)) < chance)
    trees = {"objective": "binary:logistic", "nthread": 1, "max_depth": depth, "base_score": 0.3}
    booster = xgboost.train(trees, matrix, 20)
    folded, asked = FoldedTrees.of(booster), x.copy()
    assert (folded is None) == (depth > DEEPEST)
    asked[0], asked[1] = np.inf, -np.inf
    expected = booster.inplace_predict(asked)
    np.testing.assert_allclose(LightRanker(SPEC, booster).score(asked), expected, atol=1e-6)


def test_specs_that_have_assembled_rows_are_compared_and_copied_like_any_others():
    one, other = (LightSpec(sources=("a", "b")) for _ in range(2))
    columns, none = np.zeros((2, 1, 2), np.float32), np.zeros((3, 1), np.float32)
    fetched = light_ranking.Fetched(np.ones(1, np.int64), *columns, *none)
    for spec in (one, other):
        pins, user = np.zeros((1, len(PIN_SCALARS))), np.zeros(len(USER_SCALARS))
        rows = spec.assemble(fetched, pins, np.zeros(1), none[0], none[0], user, 1)
        assert rows.shape == (1, len(spec.names))
    assert one == other and one.model_copy(update={"sources": ("z",)}).names[0] == "score_z"


def test_the_file_gives_the_same_scores(tmp_path):
    import xgboost

    rng = np.random.default_rng(0)
    x = rng.random((300, len(SPEC.names)), np.float32)
    x[rng.random(x.shape) < 0.3] = np.nan
    matrix = xgboost.DMatrix(x, np.nan_to_num(x[:, 0]) > 0.4)
    ranker = LightRanker(SPEC, xgboost.train({"objective": "binary:logistic", "nthread": 1}, matrix, 5))
    ranker.save(tmp_path)
    loaded = LightRanker.load(tmp_path)
    assert loaded.spec == SPEC
    np.testing.assert_array_equal(loaded.score(x), ranker.score(x))
    np.testing.assert_allclose(loaded.score(x), ranker.booster.predict(xgboost.DMatrix(x)), atol=1e-6)
    assert loaded.score(x[:0]).shape == (0,) and loaded.score(x[:1]).shape == (1,)
    with pytest.raises(FileNotFoundError):
        LightRanker.load(tmp_path / "nowhere")


def test_blocks_that_do_not_belong_are_named():
    fetched = fetch(lists(), SPEC.sources)
    with pytest.raises(ValueError, match="pin_scalars"):
        block(fetched, pin_scalars=np.zeros((3, len(PIN_SCALARS)), np.float32))
    with pytest.raises(ValueError, match=r"scores is \(4, 1\)"):
        block(fetch(lists(), ("pixie",)))
    with pytest.raises(ValueError, match=r"fused is \(3,\)"):
        block(replace(fetched, fused=fetched.fused[1:]))
    with pytest.raises(ValueError, match=r"now_ms is \(2,\)"):
        block(fetched, now_ms=np.zeros(2, np.int64))


@pytest.mark.parametrize(
    "change", [{"pin": ("likes",)}, {"user": ("age",)}, {"sources": ()}, {"sources": ("a", "a")}, {"depth": 2}]
)
def test_a_spec_that_makes_no_sense_cannot_be_made(change: dict):
    with pytest.raises(ValidationError):
        LightSpec(**({"sources": ("pixie",)} | change))


def test_rows_of_some_pins_are_those_of_all():
    """Filters take candidates before light ranking: what sources say of the others does not change."""
    rng = np.random.default_rng(0)
    given = [
        SourceList(source, rng.choice(60, 25, replace=False) + 1, rng.random(25, np.float32))
        for source in ("pixie", "pinnersage", "dcm")
    ]
    whole = fetch(given, SPEC.sources)
    rows = rng.permutation(len(whole))[:20]
    some = fetched_of(given, SPEC.sources, whole.pin_ids[rows])
    for name in ("pin_ids", "scores", "ranks", "brought", "best_rank", "fused"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole.take(rows), name))


def test_topics_are_counted_as_unique_counts_them() -> None:
    topics = np.random.default_rng(0).integers(-1, 9, (40, 4))
    wanted = dict(zip(*np.unique(topics[topics > 0], return_counts=True), strict=True))
    assert dict(zip(*light_kernels.counted(topics), strict=True)) == wanted
    assert [len(each) for each in light_kernels.counted(topics[:0])] == [0, 0]


def test_rows_are_dealt_by_the_naive_rule() -> None:
    rng = np.random.default_rng(0)
    for rows, width in ((1, 1), (3, 7), (5, 200)):
        ids = rng.integers(0, rows * width, (rows, width))
        scores, shares = rng.random((rows, width), np.float32), rng.integers(0, 2 * width, rows)
        wanted: dict[int, tuple[np.float32, int]] = {}
        for place in range(width):
            for row in range(rows):
                if place < shares[row] and ids[row, place]:
                    wanted.setdefault(ids[row, place], (scores[row, place], row))
        found, said, owners = light_kernels.dealt(ids, scores, shares)
        assert dict(zip(found, zip(said, owners, strict=True), strict=True)) == wanted
        assert found.tolist() == list(wanted)


def test_fit_places_by_the_naive_rule() -> None:
    rng = np.random.default_rng(0)
    for n, most in ((0, 3), (7, 3), (500, 40), (500, 500)):
        ids, scores = rng.integers(-1, max(2, n // 2), n), rng.random(n, np.float32)
        scores[rng.random(n) < 0.2] = np.nan
        fit = [i for i in range(n) if ids[i] > 0 and np.isfinite(scores[i])]
        wanted = [i for nth, i in enumerate(fit) if ids[i] not in ids[fit[:nth]]][:most]
        places, unfit = light_kernels.fit_places(ids, scores, most)
        assert places.tolist() == wanted and unfit == n - len(fit)


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


def test_rows_among_pins_that_stand_twice() -> None:
    rows = light_kernels.rows_among(np.array([5, 9, 3, 5]), np.array([3, 5, 5]))
    assert rows.tolist() == [2, 3, 0, 2]


def test_arrays_are_copied_only_where_no_kernel_is_compiled_for_them() -> None:
    dense = np.arange(6.0, dtype=np.float32)
    fixed = dense.copy()
    fixed.flags.writeable = False
    assert light_kernels.compiled(dense, np.float32) is dense
    for other in (dense.astype(np.float64), dense[::2], fixed, dense.tolist()):
        made = light_kernels.compiled(other, np.float32)
        assert made.dtype == np.float32 and made.flags.carray and made is not other
        np.testing.assert_array_equal(made, np.asarray(other))
