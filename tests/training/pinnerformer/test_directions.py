"""Directions are told apart user by user: a planted gain is shown, its reverse reversed, none is level."""

from __future__ import annotations

import numpy as np

from tests.benchmarks.differences import verdict
from tests.benchmarks.pinnerformer_directions import ALL, DENSE, NEXT, SASREC, Ranks, found
from training.evaluation.spread import Spread

USERS = np.repeat(np.arange(100), 4)


def ranks(hits: float, seed: int) -> Ranks:
    """Ranks of which about that share is within the first hundred, whatever the refresh."""
    near = np.random.default_rng(seed).random(len(USERS)) < hits
    return dict.fromkeys(("once", "daily", "realtime"), np.where(near, 50, 500).tolist())


def test_rows_that_were_run_are_compared_user_by_user() -> None:
    runs = {
        name: [ranks(hits, seed) for seed in (at, at + 1)]
        for at, (name, hits) in enumerate([(DENSE, 0.6), (ALL, 0.3), (SASREC, 0.3), (NEXT, 0.5)])
    }
    told = {direction.name: spread for direction, spread in found(runs, USERS, 100)}
    assert "28 days > 14 days" not in told and not any("logQ" in name for name in told)
    shown = told["dense all action > all action"]
    hits = {name: [np.mean(np.array(run["once"]) < 100) for run in of] for name, of in runs.items()}
    assert abs(shown.mean - (np.mean(hits[DENSE]) - np.mean(hits[ALL]))) < 1e-12
    assert verdict(shown) == "shown"
    assert verdict(told["SASRec > next action"]) == "reversed"
    assert verdict(told["dense: daily > once"]) == "level"
    assert not any(spread.mean for _, spread in found(runs, USERS, 10))


def test_a_difference_within_the_seeds_is_level() -> None:
    assert verdict(Spread(0.02, 0.01, 0.03)) == "level"
    assert verdict(Spread(0.02, 0.03, 0.001)) == "level"
    assert verdict(Spread(0.02, 0.01, None)) == "shown"
