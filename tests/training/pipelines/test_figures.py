"""Figures of runs show the numbers they are given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from training.models.interactions import Pins
from training.models.pinnersage import MS_PER_DAY, PinnerSageConfig
from training.pipelines.figures import interest_map, recall_by_length, staleness_of
from training.pipelines.interest_map import interest_maps
from training.pipelines.user_actions import UserActions

NOW = pd.Timestamp("2026-02-01", tz="UTC")


def test_staleness_goes_from_the_oldest_vectors_to_the_newest() -> None:
    metrics = {"recall_at_10_once": 0.1, "recall_at_10_daily": 0.2, "recall_at_10_realtime": 0.3}
    axes = staleness_of(metrics | {"popular_recall_at_10": 0.05}).axes[0]
    ours, popular = axes.lines
    assert [label.get_text() for label in axes.get_xticklabels()] == ["once", "daily", "realtime"]
    assert list(ours.get_ydata()) == [0.1, 0.2, 0.3]
    assert set(popular.get_ydata()) == {0.05}


def test_recall_rises_with_what_is_fetched_beside_popularity() -> None:
    metrics = {"dcm/recall_at_100": 0.3, "dcm/recall_at_10": 0.1, "dcm/recall_error_at_100": 0.02}
    metrics |= {"dcm/recall_at_100/new_users": 0.2, "popularity/recall_at_10": 0.05, "dcm/ndcg_at_10": 0.9}
    ours, popular = recall_by_length(metrics, "dcm").axes[0].lines
    assert list(zip(ours.get_xdata(), ours.get_ydata(), strict=True)) == [(10, 0.1), (100, 0.3)]
    assert list(zip(popular.get_xdata(), popular.get_ydata(), strict=True)) == [(10, 0.05)]


def test_a_map_lies_along_the_widest_direction() -> None:
    """Pins spread along one direction of five: the first axis has their order, the second nothing."""
    rng = np.random.default_rng(0)
    along = rng.normal(size=5)
    place = np.arange(8.0)
    vectors = (place[:, None] * along / np.linalg.norm(along)).astype(np.float32)
    figure = interest_map(vectors, np.repeat([0, 1], 4), np.array([1, 6]), "one user")
    pins, medoids = (np.asarray(points.get_offsets()) for points in figure.axes[0].collections)
    assert np.abs(np.diff(pins[:, 0])) == pytest.approx(1.0, abs=1e-4)
    assert pins[:, 1] == pytest.approx(0.0, abs=1e-4)
    assert medoids == pytest.approx(pins[[1, 6]])
    assert len(interest_map(vectors[:1], np.array([0]), np.array([0]), "one pin").axes) == 1


def test_the_user_drawn_has_the_most_pins_and_the_clusters_of_pinnersage() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2]] + np.float32(0.01) * np.arange(5)[:, None]
    pins = Pins(np.arange(1, 6), vectors, np.zeros((5, 1), np.int64), np.zeros(5, np.int64))
    rows = pd.DataFrame({"user_id": [1, 2, 2, 2, 2], "pin_id": [5, 1, 2, 3, 4]})
    actions = UserActions.of(rows.assign(timestamp=NOW - pd.Timedelta(days=1)), pins)
    now_ms = int(NOW.timestamp() * 1000)
    drawn = interest_maps(actions, PinnerSageConfig(alpha=0.1), now_ms, seed=0)["interest_map"]
    assert drawn.axes[0].get_title() == "4 pins of a user in 2 interests"
    assert interest_maps(actions, PinnerSageConfig(), now_ms - 9 * MS_PER_DAY, seed=0) == {}
