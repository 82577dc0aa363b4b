"""Rows of the light ranker by hand, and its file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from tests.training.models.test_source_lists import lists
from training.models.light_ranking import LightRanker, LightSpec, topic_match
from training.models.light_trees import DEEPEST, FoldedTrees
from training.models.source_lists import Fetched, SourceList, fetch

SPEC = LightSpec(sources=("pixie", "pinnersage"), pin=("positives_7d",), user=("active_days_30d",))
DAY = 86_400_000


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
    fetched = Fetched(np.ones(1, np.int64), *columns, *none)
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
