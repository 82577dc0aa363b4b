"""Published directions: hit rates over engagements, compared user by user."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.differences import markdown
from tests.benchmarks.interests_directions import found
from training.interests.tables import Row, Run, Table

USERS = np.array([1, 1, 1, 2, 3, 3])
GROUPS = {"3+": np.array([True, True, True, False, True, True])}


def row(name: str, *seeds: list[int]) -> Row:
    places = [np.array(ranks, np.int64) for ranks in seeds]
    return Row(name, tuple(Run({}, {"best": of, "served": np.full(6, 2000)}) for of in places))


def test_a_difference_is_that_of_the_hit_rates() -> None:
    table = Table("counts", (row("K=2", [1, 200, 200, 200, 200, 200]), row("K=7", [1, 2, 3, 200, 5, 2000])))
    differences = dict(found(table, USERS, GROUPS))
    assert {name.partition(",")[0] for name in differences} == {"K=7 > K=2"}
    at_100 = differences["K=7 > K=2, HR@100"]
    assert at_100.mean == pytest.approx(4 / 6 - 1 / 6)
    of_many = differences["K=7 > K=2, HR@100, 3+"]
    assert of_many.mean == pytest.approx(4 / 5 - 1 / 5)
    assert differences["K=7 > K=2, HR@1000"].mean == pytest.approx(-1 / 6)
    assert differences["K=7 > K=2, served HR@100"].mean == 0
    assert "| K=7 > K=2, HR@100 | +0.5000" in markdown("direction", differences.items())


def test_seeds_stand_beside_the_interval_over_users() -> None:
    low, high = [1, 200, 200, 1, 200, 200], [1, 1, 1, 1, 1, 1]
    table = Table("routing", (row("neither", low, high), row("both", high, high)))
    spread = dict(found(table, USERS, GROUPS))["both > neither, HR@100"]
    assert spread.mean == pytest.approx(1 / 3)
    assert spread.seeds == pytest.approx(np.std([2 / 6, 1.0], ddof=1))
