"""The trade between utility and variety, by hand and as a curve that must fall."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.evaluation.planted_rows import planted
from training.evaluation.diversity_curve import Request, Trade, draw, text, trade_curve
from training.models.diversity import DiversityConfig
from training.models.interactions import Pins

NO_CAPS = DiversityConfig(topic_cap=0, board_cap=0)


def crowded(seed: int) -> Request:
    """Useful pins crowd in one direction; others are less useful and unlike."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(80, 8))
    vectors[:40, 0] += 6
    utility = np.where(np.arange(80) < 40, 0.6, 0.3) + rng.random(80) / 4
    return Request(
        utility.astype(np.float32), vectors.astype(np.float32), topics=np.where(np.arange(80) < 40, 1, 2)
    )


def test_a_point_by_hand():
    """Two of three pins are shown: the two best, which are alike, or the best and the unlike one."""
    request = Request(
        np.array([3.0, 2.0, 1.0], np.float32),
        np.array([[2, 0], [1, 0], [0, 5]], np.float32),
        topics=np.array([4, 4, 0]),
    )
    useful, varied = trade_curve([request], 2, NO_CAPS, thetas=(1.0, 0.2))
    assert (useful.utility_kept, useful.similarity, useful.topics) == (pytest.approx(1), pytest.approx(1), 1)
    # (3 + 1) / 2 is the mean of all three: no better than blind
    assert (varied.utility_kept, varied.similarity) == (pytest.approx(0), pytest.approx(0))
    assert varied.neighbour_similarity == pytest.approx(0) and varied.theta == 0.2


def test_variety_is_paid_with_utility():
    points = trade_curve([crowded(s) for s in range(5)], 10, NO_CAPS)
    kept, likeness = [p.utility_kept for p in points], [p.similarity for p in points]
    assert kept[0] == pytest.approx(1.0)
    assert (np.diff(kept) <= 0.02).all() and kept[-1] < 0.7
    assert likeness[-1] < likeness[0] - 0.3
    assert points[0].topics == 1 and points[-1].topics == 2


def test_pages_that_hold_everything_show_no_trade():
    with pytest.raises(ValueError, match="more than 80"):
        trade_curve([crowded(0)], 80)


def test_equal_candidates_have_no_utility_to_lose():
    request = Request(np.ones(5, np.float32), np.eye(5, dtype=np.float32))
    point = trade_curve([request], 2, NO_CAPS, thetas=(0.5,))[0]
    assert np.isnan(point.utility_kept) and np.isnan(point.topics)


def test_the_curve_is_drawn(tmp_path):
    draw(trade_curve([crowded(0)], 10), tmp_path / "trade.svg")
    assert "utility kept" in (tmp_path / "trade.svg").read_text()


def test_pages_are_made_of_what_requests_showed(tmp_path):
    """A dozen requests of 8 pins; a pin that the catalogue lacks is like nothing."""
    rows = planted(tmp_path, days=3, requests=4).block()
    ids = np.unique(rows.keys["pin_id"])[1:]
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(ids), 6)).astype(np.float32) + 1
    topics = np.repeat(rng.integers(1, 4, (len(ids), 1)), 2, axis=1)
    pins = Pins(ids, vectors, topics, np.zeros(len(ids), np.int64))
    worth = rng.random(len(rows)).astype(np.float32)
    points = Trade(pins, limit=3, config=NO_CAPS).curve(rows, worth)
    assert points[0].utility_kept == pytest.approx(1) and points[-1].similarity < points[0].similarity
    assert len(text(points).splitlines()) == len(points) + 1
    assert Trade(pins, limit=8).curve(rows, worth) == ()
    one = Trade(pins, limit=3, config=NO_CAPS, most=1).curve(rows, worth)
    assert one != points and len(one) == len(points)
