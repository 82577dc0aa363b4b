"""Metrics by hand, and staleness and retrieval on a world whose right answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.training.pinnerformer.planted import DAY, GROUPS, PINS, START, planted_content, timelines
from training.models.pinnerformer import PinnerFormerConfig, TokenFeatures
from training.models.pinnerformer.network import seeded
from training.pinnerformer.ablations import (
    Experiment,
    Table,
    Variant,
    features_left_out,
    negatives_by_log_q,
    objectives,
    run_grid,
)
from training.pinnerformer.batches import Sampling
from training.pinnerformer.evaluation import (
    Positives,
    held_out,
    interest_entropy,
    known_pins,
    p90_coverage,
    popular_lists,
    popular_pins,
    quality,
    top_pins,
)
from training.pinnerformer.retriever import Retriever
from training.pinnerformer.staleness import Refresh, recall_by_refresh, refreshed_ranks
from training.pinnerformer.timelines import Timelines
from training.pinnerformer.trainer import PinnerFormerTraining

CUT, END = START + 10 * DAY, START + 14 * DAY
CONFIG = PinnerFormerConfig(dim=16, hidden=32, layers=1, heads=2, length=32)


def retriever(lines: Timelines, candidates: np.ndarray | None = None) -> Retriever:
    content = planted_content()
    rows = np.arange(PINS) if candidates is None else candidates
    return Retriever(
        seeded(CONFIG, content.shape[1], 0, 1).eval(), content, np.arange(PINS) + 1000, rows, lines, CUT
    )


def test_held_out_are_new_labels_after_the_cut() -> None:
    lines, candidates = timelines([40] * 9 + [1]), np.arange(0, PINS, 2)
    found = held_out(lines, CUT, END, candidates)
    expected = []
    for user in range(len(lines)):
        mine = range(lines.offsets[user], lines.offsets[user + 1])
        for pin in sorted({int(lines.arrays.pin_rows[r]) for r in mine}):
            same = [r for r in mine if lines.arrays.pin_rows[r] == pin]
            labels = [r for r in same if lines.label[r] and lines.arrays.times_ms[r] < END]
            first = int(lines.arrays.times_ms[same].min())
            began = lines.arrays.times_ms[mine[0]] < CUT
            if labels and first >= CUT and pin % 2 == 0 and began:
                expected.append((user, pin, first))
    got = zip(found.users.tolist(), found.pin_rows.tolist(), found.asked_ms.tolist(), strict=True)
    assert list(got) == expected and len(expected) > 8


def test_top_pins_are_the_best_unknown_candidates() -> None:
    rng = np.random.default_rng(0)
    users, pins = (
        rng.standard_normal((5, 4)).astype(np.float32),
        rng.standard_normal((30, 4)).astype(np.float32),
    )
    candidates, known = np.arange(3, 30), [rng.integers(-1, 30, 6) for _ in range(5)]
    top = top_pins(users, pins, candidates, known, 25)
    for user in range(5):
        allowed = [p for p in candidates if p not in known[user]]
        best = sorted(allowed, key=lambda p: -float(users[user] @ pins[p]))[:25]
        assert top[user].tolist() == best + [-1] * (25 - len(best))


def test_quality_by_hand() -> None:
    top = np.full((2, 100), -1)
    top[0, :12] = np.arange(12)
    top[1, :2] = [0, 50]
    positives = Positives(np.array([0, 0, 0, 4]), np.array([3, 11, 77, 50]), np.zeros(4, np.int64))
    topics = np.zeros(100, np.int64)
    topics[:6], topics[6:12], topics[50] = 1, 2, 3
    found = quality(top, np.array([0, 4]), positives, topics, index=20)
    assert found.recall_at_10 == 2 / 4 and found.recall_at_100 == 3 / 4
    assert found.hit_rate_at_100 == 1.0 and found.users == 2 and found.positives == 4
    assert found.interest_entropy_at_50 == pytest.approx((math.log(2) + math.log(2)) / 2)
    assert found.p90_coverage_at_10 == p90_coverage(top[:, :10], 20) == 10 / 20
    with pytest.raises(ValueError, match="hold out more days"):
        quality(top, np.array([0, 4]), positives.of_users(np.zeros(5, np.bool_)), topics, 20)


def test_entropy_and_coverage_by_hand() -> None:
    assert interest_entropy(np.array([0, 1, 2, -1]), np.array([5, 5, 6])) == pytest.approx(
        -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    )
    assert interest_entropy(np.array([-1]), np.array([5])) == 0
    same, apart = np.tile(np.arange(10), (50, 1)), np.arange(500).reshape(50, 10)
    assert p90_coverage(same, 1000) == 9 / 1000
    assert p90_coverage(apart, 1000) == 450 / 1000


def test_popular_lists_leave_out_what_is_known() -> None:
    lines = timelines([60] * 6)
    order = popular_pins(lines, CUT, np.arange(PINS))
    counts = np.bincount(lines.labels.pin_rows[lines.labels.times_ms < CUT], minlength=PINS)
    assert (np.diff(counts[order]) <= 0).all()
    known = [order[[0, 2]], order[:0]]
    lists = popular_lists(order, known, 5)
    assert lists[0].tolist() == order[[1, 3, 4, 5, 6]].tolist() and lists[1].tolist() == order[:5].tolist()


def test_recommend_answers_ids_and_sees_nothing_after_its_time() -> None:
    lines = timelines([40] * 6 + [0])
    now = retriever(lines, np.arange(0, PINS, 2))
    top = now.recommend(np.array([10, 30, 70, 99]), 8)
    assert (top[:2] > 1000).all() and ((top[:2] - 1000) % 2 == 0).all()
    assert not top[2:].any(), "a user without actions and a stranger get nothing"
    blind = retriever(lines.before(CUT), np.arange(0, PINS, 2))
    np.testing.assert_array_equal(blind.recommend(np.array([10, 30, 70, 99]), 8), top)


def test_ranks_by_refresh_are_those_of_the_vectors_in_service() -> None:
    lines = timelines([50] * 8)
    now = retriever(lines)
    positives = held_out(lines, CUT, END, np.arange(PINS))
    for refresh in Refresh:
        ranks = refreshed_ranks(now, positives, refresh)
        for i in range(0, len(positives), 17):
            user, pin, asked = positives.users[i], positives.pin_rows[i], positives.asked_ms[i]
            at = {
                Refresh.ONCE: CUT,
                Refresh.DAILY: CUT + (asked - CUT) // DAY * DAY,
                Refresh.REALTIME: asked,
            }[refresh]
            one, ends = np.array([user]), lines.ends_before(np.array([user]), np.array([at]))
            scores = now.pin_vectors @ now.user_vectors(one, ends)[0]
            seen = known_pins(lines, one, lines.ends_before(one, np.array([asked])))[0]
            others = np.setdiff1d(np.arange(PINS), [*seen, pin])
            assert abs(ranks[i] - (scores[others] > scores[pin]).sum()) <= 1
    recalls = recall_by_refresh(now, positives)
    assert set(recalls) == set(Refresh) and all(0 <= value <= 1 for value in recalls.values())


def test_pins_of_equal_score_are_ranked_by_row_as_lists_are() -> None:
    lines = timelines([50] * 8)
    now = retriever(lines)
    now.__dict__["pin_vectors"] = np.eye(CONFIG.dim, dtype=np.float32)[np.arange(PINS) % 2]
    positives = held_out(lines, CUT, END, np.arange(PINS))
    ranks = refreshed_ranks(now, positives, Refresh.ONCE)
    seen = known_pins(lines, positives.users, lines.ends_before(positives.users, positives.asked_ms))
    first, second = now.user_vectors(positives.users)[:, :2].T
    for rank, pin, known, odd in zip(ranks, positives.pin_rows, seen, second > first, strict=True):
        new = np.setdiff1d(np.arange(PINS), known)
        better = new[(new % 2 == odd) & (pin % 2 != odd)]
        assert rank == len(better) + ((new % 2 == pin % 2) & (new < pin)).sum()


def experiment(share: float = 0.3) -> Experiment:
    lines = timelines([60] * 40)
    trained = np.random.default_rng(1).random(40) >= share
    topics = np.arange(PINS) % GROUPS + 1
    return Experiment(lines, planted_content(), np.arange(PINS) + 1, topics, np.arange(PINS), CUT, END, trained)


def test_a_grid_trains_on_some_users_and_measures_the_others() -> None:
    world = experiment()
    assert not world.trained_users[world.positives.users].any()
    training = PinnerFormerTraining(
        epochs=15, learning_rate=1e-2, sampling=Sampling(users=16, positions=8, in_batch=64, random=64)
    )
    table = run_grid(world, [Variant("dense", CONFIG, training)], seeds=(1, 2), staleness=True)
    popular = world.popularity(world.positives)
    assert table.mean("dense", "recall_at_10") > 2 * popular["recall_at_10"]
    assert table.mean("dense", "recall_at_10_daily") > 2 * popular["recall_at_10"]
    assert table.mean("dense", "interest_entropy_at_50") < popular["interest_entropy_at_50"]
    assert table.spread("dense", "recall_at_10") >= 0
    assert "| dense |" in table.markdown(["recall_at_10"])


def test_grids_change_what_they_say() -> None:
    base = Variant("", CONFIG, PinnerFormerTraining())
    assert [v.name for v in objectives(base)] == [
        "next action",
        "sasrec",
        "all action 28d",
        "dense all action 14d",
        "dense all action 28d",
    ]
    grid = negatives_by_log_q(base)
    assert [v.training.log_q for v in grid] == [False, True] * 3
    sizes = [(v.training.sampling.in_batch, v.training.sampling.random) for v in grid]
    assert sizes[0] == (512, 1024) and sizes[2] == (1024, 512) and sizes[4] == (512, 512)
    left_out = features_left_out(base)
    assert len(left_out) == 1 + len(TokenFeatures.model_fields)
    assert not left_out[1].network.features.pin and left_out[1].network.features.time


def test_above_asks_for_more_than_the_spread() -> None:
    table = Table({"a": [{"m": 1.0}, {"m": 1.2}], "b": [{"m": 0.9}, {"m": 1.1}], "c": [{"m": 0.1}, {"m": 0.2}]})
    assert not table.above("a", "b", "m") and table.above("a", "c", "m") and not table.above("c", "a", "m")
