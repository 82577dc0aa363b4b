"""The training set on the real feature store: the counters are right, and no future action leaks."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.data.lakes import write_lake
from tests.training.data.oracle import NaivePointInTime
from tests.training.data.worlds import World, tiny_world
from training.data.training_set import build
from validation.lake import Lake
from validation.tables import Polarity

pytestmark = pytest.mark.slow

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Sets:
    """The same days twice: as they were, and with another future from `after` on."""

    world: World
    after: pd.Timestamp
    real: pd.DataFrame
    other: pd.DataFrame


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    from feature_repo.jobs import build_features
    from feature_repo.store import apply, open_store
    from training.data.point_in_time import FeastPointInTime

    world, root = tiny_world(), tmp_path_factory.mktemp("feast")
    end = world.config.end_time
    after = pd.Timestamp(end - 2 * DAY + timedelta(hours=13))
    store = open_store(root / "home")
    apply(store)

    def rows(lake: Lake, out: Path) -> pd.DataFrame:
        shutil.rmtree(root / "home" / "features", ignore_errors=True)
        build_features(lake, root / "home" / "features", as_of=end)
        return build(lake, FeastPointInTime(store), out, start=end - 4 * DAY, end=end).read()

    real = rows(world.lake, root / "real")
    other = rows(write_lake(root / "lake", _another_future(world, after), world.contract), root / "other")
    return Sets(world, after, real, other)


def _another_future(world: World, after: pd.Timestamp) -> dict[str, pd.DataFrame]:
    """Every event table with other users, pins and kinds of action from `after` on."""
    frames, rng = dict(world.frames), np.random.default_rng(5)
    for name, columns in (("actions", ("pin_id", "user_id", "action")), ("follows", ("topic_id",))):
        rows = frames[name].copy()
        later = (rows["timestamp"] >= after).to_numpy()
        for column in columns:
            rows.loc[later, column] = rng.permutation(rows.loc[later, column].to_numpy())
        frames[name] = rows
    return frames


def test_no_future_action_leaks(sets: Sets) -> None:
    labels = [c for c in sets.real if c.startswith("label")]
    known = [
        rows[rows["timestamp"] < sets.after].drop(columns=labels).reset_index(drop=True)
        for rows in (sets.real, sets.other)
    ]
    assert len(known[0]) > 1000
    pd.testing.assert_frame_equal(known[0], known[1], check_exact=True)
    late = [rows[rows["timestamp"] >= sets.after + DAY] for rows in (sets.real, sets.other)]
    assert not late[0]["user_actions_7d"].equals(
        late[1]["user_actions_7d"]
    )  # the change did reach the features


def test_counters_are_those_of_a_naive_join(sets: Sets) -> None:
    frames = sets.world.frames
    positive = sets.world.contract.vocabulary.codes(Polarity.POSITIVE)
    naive = NaivePointInTime(frames["actions"], frames["follows"], positive)
    from feature_repo.schema import PIN_SCALARS, USER_SCALARS

    times = sets.real["timestamp"]
    users = naive.profiles(sets.real["user_id"].to_numpy(), times).scalars
    pins = naive.pin_scalars(sets.real["pin_id"].to_numpy(), times)
    for column in ("actions_7d", "positives_30d"):
        for prefix, block, names in (("user_", users, USER_SCALARS), ("pin_", pins, PIN_SCALARS)):
            got = sets.real[prefix + column].fillna(0).to_numpy()
            np.testing.assert_array_equal(got, block[:, names.index(column)], err_msg=prefix + column)


def test_nothing_is_missing_of_pins_and_users_that_existed(sets: Sets) -> None:
    columns = [c for c in sets.real if c.startswith(("user_", "pin_"))]
    assert sets.real[columns].notna().all().all()
