"""Funnel recall by hand, against loops, and from a sampled log against the whole one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluation.funnel_recall import funnel_recall


def test_by_hand():
    """Request 5 keeps its best two of four, of which one of two engaged; request 6 keeps all; 7 has none."""
    requests = [5, 5, 5, 5, 6, 6, 7]
    engaged = [1, 0, 1, 0, 0, 1, 0]
    got = funnel_recall(
        requests, engaged, {"light": [4, 3, 2, 1, 1, 2, 9], "source": [1, 3, 2, 4, 2, 1, 9]}, [1, 2]
    )
    np.testing.assert_array_equal(got.values["light"], [[0.5, 1], [0.5, 1]])
    np.testing.assert_array_equal(got.values["source"], [[0, 0], [0, 1]])
    assert got.requests == 2 and got.mean("light", 2) == 0.75
    gain = got.gain("light", "source", 1)
    assert gain.mean == 0.75 and gain.error == pytest.approx(1.96 * 0.25)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_it_is_the_definition(seed: int):
    rng = np.random.default_rng(seed)
    requests, score = rng.integers(0, 5, 60), rng.permutation(60)
    engaged = rng.random(60) < 0.3
    engaged[0] = True
    got = funnel_recall(requests, engaged, {"s": score}, [3, 7])
    for row, budget in enumerate((3, 7)):
        expected = []
        for r in np.unique(requests):
            rows = np.flatnonzero(requests == r)
            top = rows[np.argsort(-score[rows])][:budget]
            if engaged[rows].any():
                expected.append(engaged[top].sum() / engaged[rows].sum())
        np.testing.assert_allclose(got.values["s"][row], expected)


def test_a_sampled_log_estimates_the_whole_one():
    rng = np.random.default_rng(0)
    requests = np.repeat(np.arange(300), 400)
    quality = rng.normal(size=len(requests))
    engaged = rng.random(len(requests)) < 0.01 * np.exp(quality)
    order = {"s": quality + rng.normal(size=len(requests))}
    shown = engaged | (rng.random(len(requests)) < 0.03)
    logged = shown | (rng.random(len(requests)) < 0.1)
    chance = np.where(shown, 1.0, 0.1)
    whole = funnel_recall(requests, engaged, order, [100])
    part = funnel_recall(
        requests[logged], engaged[logged], {"s": order["s"][logged]}, [100], logged=chance[logged]
    )
    blind = funnel_recall(requests[logged], engaged[logged], {"s": order["s"][logged]}, [100])
    assert part.mean("s", 100) == pytest.approx(whole.mean("s", 100), abs=0.03)
    assert blind.mean("s", 100) > whole.mean("s", 100) + 0.2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"engaged": [0, 0]}, "no request has an engaged pin"),
        ({"engaged": [0, 3]}, "0 or 1"),
        ({"logged": [1.0, 0.0]}, "chance"),
        ({"orders": {"light": [1.0, np.nan]}}, "order light"),
        ({"orders": {"light": [1.0]}}, "order light"),
        ({"request_ids": [1]}, "differ"),
    ],
)
def test_bad_rows_are_named(change: dict, match: str):
    rows = {"request_ids": [1, 1], "engaged": [0, 1], "orders": {"light": [1.0, 2.0]}, "budgets": [1]}
    with pytest.raises(ValueError, match=match):
        funnel_recall(**(rows | change))
