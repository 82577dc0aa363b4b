"""Actions that stand user by user, as one row a user."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from feature_repo.jobs.sequences import LISTS, by_user


def actions(users: list[int], times_ms: list[int]) -> pa.Table:
    numbers = pa.array(range(1, len(users) + 1), pa.int64())
    columns = {of: numbers for of in LISTS.values()}
    return pa.table(
        columns | {"user_id": pa.array(users, pa.int64()), "timestamps_ms": pa.array(times_ms, pa.int64())}
    )


def test_every_user_has_a_row_of_their_own_actions() -> None:
    made = by_user(actions([1, 1, 1, 2, 9, 9], [30, 20, 10, 5, 8, 7])).to_pylist()
    assert [(row["user_id"], row["pin_ids"], row["timestamps_ms"]) for row in made] == [
        (1, [1, 2, 3], [30, 20, 10]),
        (2, [4], [5]),
        (9, [5, 6], [8, 7]),
    ]
    assert made[0]["event_timestamp"] == made[0]["created"] == datetime(1970, 1, 1, 0, 0, 0, 30_000, UTC)


def test_nobody_has_no_row() -> None:
    assert by_user(actions([], [])).num_rows == 0
