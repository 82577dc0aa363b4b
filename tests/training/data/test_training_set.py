"""Training sets: every impression once, every label accounted for, nothing from the future."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from feature_repo.sequence import SequenceLog
from tests.training.data.lakes import write_lake
from tests.training.data.oracle import NaivePointInTime
from tests.training.data.worlds import World, tiny_world
from training.data.splits import Interval
from training.data.training_set import (
    NoTrainingRows,
    PinVectors,
    TrainingSet,
    TrainingSetConfig,
    TrainingSetError,
    build,
)
from training.models.interactions import INTERACTION_FEATURES
from training.models.lexical import LexicalIndex
from training.models.query_features import ON_SEARCH, QUERY_FEATURES
from validation.lake import Lake
from validation.tables import Polarity

DAY = timedelta(days=1)
SPACE = "content@1"


@pytest.fixture(scope="module")
def world() -> World:
    return tiny_world()


def _features(frames: dict[str, pd.DataFrame], world: World, *, leaky: bool = False) -> NaivePointInTime:
    positive = world.contract.vocabulary.codes(Polarity.POSITIVE)
    return NaivePointInTime(frames["actions"], frames["follows"], positive, leaky)


def _vectors(world: World) -> PinVectors:
    pins = world.frames["pins"]
    return PinVectors(SPACE, pins["pin_id"].to_numpy(), np.stack(pins["visual_embedding"].to_list()))


def _words(world: World) -> LexicalIndex:
    pins = world.frames["pins"]
    return LexicalIndex.fit(pins["pin_id"].to_numpy(), pins["title"].tolist())


@pytest.fixture(scope="module")
def interval(world: World) -> Interval:
    return Interval(world.config.end_time - 4 * DAY, world.config.end_time)


@pytest.fixture(scope="module")
def made(world: World, interval: Interval, tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return build(
        world.lake,
        _features(world.frames, world),
        tmp_path_factory.mktemp("sets") / "set",
        start=interval.start,
        end=interval.end,
        vectors=_vectors(world),
        words=lambda: _words(world),
    )


def test_rows_know_what_was_searched_for(made: TrainingSet, world: World) -> None:
    """BM25 of the query that the impression had, and of none where nothing was searched for."""
    block, words = made.block(), _words(world)
    assert made.info.has_query and made.info.query_features == QUERY_FEATURES
    shown = world.frames["impressions"].set_index(["request_id", "pin_id"])["query"]
    keys = block.keys
    asked = shown.loc[list(zip(keys["request_id"], keys["pin_id"], strict=True))]
    searched = asked.notna().to_numpy()
    np.testing.assert_array_equal(block.columns([ON_SEARCH])[:, 0], searched)
    assert (block.query[~searched, 0] == 0).all()
    for at in np.flatnonzero(searched)[::37]:
        alone = words.scores(asked.iloc[at], keys["pin_id"].to_numpy()[[at]])
        assert block.query[at, 0] == alone[0]
    opened = block.label[searched] == 1
    assert block.query[searched, 0][opened].mean() > 1.3 * block.query[searched, 0][~opened].mean()


def test_one_row_an_impression_and_one_label_an_answer(
    made: TrainingSet, world: World, interval: Interval
) -> None:
    rows = made.read()
    shown = world.frames["impressions"].loc[lambda f: f["timestamp"] >= interval.start]
    key = ["request_id", "pin_id"]
    assert len(rows) == len(shown) == made.info.rows
    assert not rows.duplicated(key).any()
    both = rows.merge(shown, on=key, suffixes=("", "_lake"))
    assert len(both) == len(rows)
    for column in ("user_id", "position", "timestamp", "surface", "source"):
        assert (both[column] == both[f"{column}_lake"]).all(), column
    np.testing.assert_array_equal(both["propensity"], both["propensity_lake"])
    # the same sums by SQL over the lake's files
    lake_sums = duckdb.sql(
        f"""
        SELECT a.action, count(DISTINCT (i.request_id, i.pin_id))
        FROM '{world.lake.glob("impressions")}' i JOIN '{world.lake.glob("actions")}' a
          USING (request_id, pin_id, user_id)
        WHERE i.timestamp >= TIMESTAMPTZ '{interval.start.isoformat()}' GROUP BY 1
        """
    ).fetchall()
    sums = {world.contract.vocabulary.name(code): count for code, count in lake_sums}
    assert made.info.label_sums == sums
    assert {a: int(rows[f"label_{a}"].sum()) for a in sums} == sums
    done = world.frames["actions"].loc[lambda f: f["timestamp"] >= interval.start]
    assert made.info.actions == len(done)
    assert made.info.actions_answering == len(done)  # in this world every action answers something
    positive = rows[["label_closeup", "label_click", "label_long_click", "label_save"]].max(axis=1)
    assert (rows["label"] == positive).all()
    assert made.info.positives == positive.sum()
    assert made.info.rate == pytest.approx(positive.mean())


def test_what_is_known_of_a_set(made: TrainingSet, interval: Interval, world: World) -> None:
    info = made.info
    assert made.interval == interval
    assert info.scheme == "impressions"
    assert info.has_position
    assert info.has_propensity
    assert info.space == SPACE
    assert info.action_names == world.contract.vocabulary.names
    assert sum(info.days.values()) == info.rows
    late = made.read(["timestamp"])["timestamp"] > world.config.end_time - DAY
    assert info.immature_rows == late.sum()


def test_features_are_those_of_the_midnight_before(made: TrainingSet, world: World) -> None:
    rows = made.read().sample(60, random_state=1)
    actions = world.frames["actions"]
    for row in rows.itertuples():
        midnight = row.timestamp.floor("D")
        week = actions[(actions["timestamp"] < midnight) & (actions["timestamp"] >= midnight - 7 * DAY)]
        assert row.user_actions_7d == (week["user_id"] == row.user_id).sum()
        assert row.pin_actions_7d == (week["pin_id"] == row.pin_id).sum()


def test_interactions_see_the_sequence_strictly_before_the_request(made: TrainingSet, world: World) -> None:
    rows = made.read().sample(60, random_state=2)
    log = SequenceLog.from_actions(world.frames["actions"])
    positive = world.contract.vocabulary.codes(Polarity.POSITIVE)
    vectors = _vectors(world).vectors
    seen = 0
    for row in rows.itertuples():
        now = int(row.timestamp.timestamp() * 1000)
        before = log.sequence(row.user_id, now)
        assert (before.timestamps_ms < now).all()
        good = np.isin(before.actions, positive)
        assert row.sequence_positives == good.sum()
        if good.any():
            seen += 1
            cosines = vectors[before.pin_ids[good] - 1] @ vectors[row.pin_id - 1]
            assert row.cos_positive_max == pytest.approx(cosines.max(), abs=1e-5)
            assert row.hours_since_action == pytest.approx(
                min((now - before.timestamps_ms[0]) / 3_600_000, 720), rel=1e-5
            )
    assert seen > 30


def test_blocks_are_the_rows_as_arrays(made: TrainingSet, interval: Interval) -> None:
    rows, block = made.read(), made.block()
    assert block.user_scalars.shape == (len(rows), len(USER_SCALARS))
    assert block.pin_scalars.shape == (len(rows), len(PIN_SCALARS))
    assert block.interactions.shape == (len(rows), len(INTERACTION_FEATURES))
    assert block.interactions.dtype == np.float32
    assert block.interactions.flags.c_contiguous
    np.testing.assert_array_equal(block.label, rows["label"])
    np.testing.assert_array_equal(block.labels[:, 4], rows["label_hide"])
    assert sum(len(b) for b in made.blocks()) == len(rows)
    last = made.block(Interval(interval.end - DAY, interval.end))
    assert (last.keys["timestamp"] >= interval.end - DAY).all()
    assert len(last) == list(made.info.days.values())[-1]


def _rewritten(world: World, after: pd.Timestamp, root: Path) -> tuple[Lake, dict[str, pd.DataFrame]]:
    """The same lake with another future: what was done at or after `after` is on other pins, by other users."""
    frames = dict(world.frames)
    actions = frames["actions"].copy()
    later = (actions["timestamp"] >= after).to_numpy()
    rng = np.random.default_rng(5)
    for column in ("pin_id", "user_id", "action"):
        actions.loc[later, column] = rng.permutation(actions.loc[later, column].to_numpy())
    frames["actions"] = actions
    return write_lake(root, frames, world.contract), frames


def _known_before(rows: pd.DataFrame, after: pd.Timestamp) -> pd.DataFrame:
    """Everything but labels of the rows before `after`."""
    labels = [c for c in rows if c.startswith("label")]
    return rows[rows["timestamp"] < after].drop(columns=labels).reset_index(drop=True)


@pytest.mark.parametrize("leaky", [False, True], ids=["point in time", "leaking"])
def test_a_changed_future_changes_nothing_that_was_known(
    leaky: bool, world: World, interval: Interval, tmp_path: Path
) -> None:
    after = pd.Timestamp(interval.start + 2 * DAY + timedelta(hours=14))
    other, frames = _rewritten(world, after, tmp_path / "lake")
    bounds = {"start": interval.start, "end": interval.end, "vectors": _vectors(world)}
    here = build(world.lake, _features(world.frames, world, leaky=leaky), tmp_path / "a", **bounds).read()
    there = build(other, _features(frames, world, leaky=leaky), tmp_path / "b", **bounds).read()
    one, two = _known_before(here, after), _known_before(there, after)
    assert len(one) > 1000
    if leaky:  # the test can fail: a store that counts the future is found out
        assert not one.equals(two)
    else:
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert not here[here["timestamp"] >= after].equals(there[there["timestamp"] >= after])


def test_an_interrupted_build_goes_on_where_it_stopped(
    made: TrainingSet, world: World, interval: Interval, tmp_path: Path
) -> None:
    bounds = {"start": interval.start, "end": interval.end, "vectors": _vectors(world)}
    bounds |= {"words": lambda: _words(world)}
    config = TrainingSetConfig(chunk_rows=1)

    class Stops(NaivePointInTime):
        def profiles(self, user_ids: np.ndarray, times: pd.Series):  # type: ignore[no-untyped-def]
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().profiles(user_ids, times)

    whole = _features(world.frames, world)
    with pytest.raises(KeyboardInterrupt):
        build(
            world.lake,
            Stops(whole.actions, whole.follows, whole.positive),
            tmp_path / "s",
            config=config,
            **bounds,
        )
    with pytest.raises(TrainingSetError, match="no finished training set"):
        TrainingSet(tmp_path / "s").read()
    rest = build(world.lake, whole, tmp_path / "s", config=config, **bounds)
    assert len(whole.asked) == 2  # two of four days were left
    assert rest.info.model_copy(update={"config": made.info.config}) == made.info
    pd.testing.assert_frame_equal(rest.read(), made.read())
    again = build(world.lake, whole, tmp_path / "s", config=config, **bounds)
    assert len(whole.asked) == 2
    assert again.info == rest.info


def test_another_lake_configuration_or_space_is_another_set(
    made: TrainingSet, world: World, interval: Interval, tmp_path: Path
) -> None:
    bounds = {"start": interval.start, "end": interval.end}
    day = {"start": interval.end - DAY, "end": interval.end}
    features = _features(world.frames, world)
    vectors = _vectors(world)
    prints = {made.info.fingerprint}
    for other in (
        {"vectors": vectors, "config": TrainingSetConfig(label_window_h=1), **bounds},
        {"vectors": replace(vectors, space="content@2"), **bounds},
        {"vectors": replace(vectors, vectors=-vectors.vectors), **bounds},
        {"vectors": vectors, **day},
        bounds,
    ):
        prints.add(build(world.lake, features, tmp_path / "set", **other).info.fingerprint)
    assert len(prints) == 6
    assert TrainingSet(tmp_path / "set").info.space is None
    assert (TrainingSet(tmp_path / "set").read(["cos_positive_max"]) == 0).all().all()


def test_what_is_not_a_training_set_is_left_alone(world: World, interval: Interval, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(TrainingSetError, match=r"letters\.txt"):
        build(world.lake, _features(world.frames, world), tmp_path, start=interval.start, end=interval.end)
    assert (tmp_path / "letters.txt").read_text() == "dear"


def test_actions_without_requests_answer_by_time(world: World, interval: Interval, tmp_path: Path) -> None:
    frames = dict(world.frames)
    frames["actions"] = frames["actions"].drop(columns="request_id")
    lake = write_lake(tmp_path / "lake", frames, world.contract)
    made = build(lake, _features(frames, world), tmp_path / "set", start=interval.start, end=interval.end)
    rows = made.read()
    assert len(rows) == made.info.rows
    # a pin shown again before it was acted on takes the answer of the former page; that is rare
    with_requests = build(
        world.lake, _features(frames, world), tmp_path / "other", start=interval.start, end=interval.end
    ).read()
    assert (rows["label"] != with_requests["label"]).mean() < 0.01
    assert rows["label"].sum() == pytest.approx(with_requests["label"].sum(), rel=0.01)


def test_chunks_of_days_change_nothing_without_requests(
    world: World, interval: Interval, tmp_path: Path
) -> None:
    frames = dict(world.frames)
    frames["actions"] = frames["actions"].drop(columns="request_id")
    lake = write_lake(tmp_path / "lake", frames, world.contract)
    features = _features(frames, world)
    bounds = {"start": interval.start, "end": interval.end}
    one = build(lake, features, tmp_path / "a", config=TrainingSetConfig(chunk_rows=1), **bounds)
    two = build(lake, features, tmp_path / "b", config=TrainingSetConfig(chunk_rows=10**9), **bounds)
    pd.testing.assert_frame_equal(one.read(), two.read())
    assert one.info.label_sums == two.info.label_sums


def test_without_impressions_negatives_are_drawn(world: World, interval: Interval, tmp_path: Path) -> None:
    frames = {name: rows for name, rows in world.frames.items() if name != "impressions"}
    lake = write_lake(tmp_path / "lake", frames, world.contract)
    features = _features(frames, world)
    bounds = {"start": interval.start, "end": interval.end, "vectors": _vectors(world)}
    made = build(lake, features, tmp_path / "set", **bounds)
    info, rows = made.info, made.read()
    assert info.scheme == "sampled"
    assert not info.has_position
    assert "no impressions" in info.scheme_note
    actions = frames["actions"].loc[lambda f: f["timestamp"] >= interval.start]
    pages = actions.assign(day=actions["timestamp"].dt.floor("D")).drop_duplicates(["user_id", "pin_id", "day"])
    observed = rows[rows["source"] == "observed"]
    drawn = rows[rows["source"] == "sampled_negative"]
    assert len(observed) == len(pages)
    assert 3.5 < len(drawn) / len(pages) <= 4
    assert (drawn["label"] == 0).all()
    assert info.actions_answering == info.actions == len(actions)
    assert (rows["label"] == 1).sum() == info.positives
    day = rows["timestamp"].dt.floor("D")
    acted = set(zip(pages["user_id"], pages["pin_id"], pages["day"], strict=True))
    assert not acted & set(zip(drawn["user_id"], drawn["pin_id"], day[drawn.index], strict=True))
    created = frames["pins"].set_index("pin_id")["created_at"]
    assert (created.loc[drawn["pin_id"]].to_numpy() < day[drawn.index].to_numpy()).all()
    chunked = build(lake, features, tmp_path / "b", config=TrainingSetConfig(chunk_rows=1), **bounds)
    pd.testing.assert_frame_equal(chunked.read(), rows)
    counts = frames["actions"].loc[lambda f: f["timestamp"] < interval.start, "pin_id"].value_counts()
    popular = counts.index[:100]
    assert drawn["pin_id"].isin(popular).mean() > 1.5 * 100 / world.config.pins


def test_an_answer_dated_before_its_impression_is_no_feature_of_it(
    world: World, interval: Interval, tmp_path: Path
) -> None:
    """A client's clock three minutes behind puts the answer before the page, in one case before midnight."""
    day = pd.Timestamp(interval.end - DAY)
    frames = dict(world.frames)
    one = frames["impressions"].loc[lambda f: f["timestamp"] >= day].iloc[[0]].assign(timestamp=day)
    user, pin = int(one["user_id"].iloc[0]), int(one["pin_id"].iloc[0])
    answer = (
        frames["actions"]
        .iloc[[0]]
        .assign(
            event_id=frames["actions"]["event_id"].max() + 1,
            user_id=user,
            pin_id=pin,
            request_id=one["request_id"].iloc[0],
            timestamp=day - timedelta(minutes=3),
            action=world.contract.vocabulary.code("save"),
        )
    )
    others = frames["impressions"].drop(index=one.index)
    frames["impressions"] = pd.concat([others, one])
    acted = frames["actions"]
    asked = one["request_id"].iloc[0]
    acted = acted[~((acted["request_id"] == asked) & (acted["pin_id"] == pin))]

    def row(name: str, actions: pd.DataFrame) -> pd.Series:
        given = frames | {"actions": actions}
        lake = write_lake(tmp_path / f"lake {name}", given, world.contract)
        bounds = {"start": interval.end - DAY, "end": interval.end, "vectors": _vectors(world)}
        rows = build(lake, _features(given, world), tmp_path / name, **bounds).read()
        return rows[(rows["request_id"] == asked) & (rows["pin_id"] == pin)].iloc[0]

    before = acted["timestamp"] < day - timedelta(minutes=3)
    kept = acted[before | (acted["user_id"] != user) & (acted["pin_id"] != pin) | (acted["timestamp"] >= day)]
    without, with_answer = row("without", kept), row("with", pd.concat([kept, answer]))
    assert (without["label_save"], with_answer["label_save"]) == (0, 1)
    assert with_answer[list(INTERACTION_FEATURES)].equals(without[list(INTERACTION_FEATURES)])
    # the counters are those of the midnight before the answer, not of the one that already counts it
    own = kept[kept["user_id"] == user]["timestamp"]
    assert with_answer["user_actions_7d"] == ((own >= day - 8 * DAY) & (own < day - DAY)).sum()


def _served_lately(world: World, root: Path, after: pd.Timestamp) -> tuple[Lake, dict[str, pd.DataFrame]]:
    """The world in a lake where impressions were logged only from `after` on."""
    frames = dict(world.frames)
    frames["impressions"] = frames["impressions"].loc[lambda f: f["timestamp"] >= after]
    return write_lake(root, frames, world.contract), frames


def test_a_few_served_impressions_do_not_take_the_place_of_drawn_negatives(
    world: World, interval: Interval, tmp_path: Path
) -> None:
    bounds = {"start": interval.start, "end": interval.end}
    for days, scheme in ((1, "sampled"), (2, "impressions")):
        lake, frames = _served_lately(world, tmp_path / f"{days}", pd.Timestamp(interval.end - days * DAY))
        info = build(lake, _features(frames, world), tmp_path / "set", **bounds).info
        assert info.scheme == scheme
        assert info.positives > 0
        if scheme == "sampled":
            assert info.scheme_note.startswith("impressions on 1 of 4 days with actions")
    # what was served after the interval leaves it as it was without impressions
    lake, frames = _served_lately(world, tmp_path / "today", pd.Timestamp(interval.end - DAY))
    info = build(
        lake, _features(frames, world), tmp_path / "before", start=interval.start, end=interval.end - DAY
    ).info
    assert info.scheme == "sampled"
    assert info.scheme_note.startswith("no impressions")


def test_a_set_is_not_replaced_by_one_without_rows(world: World, interval: Interval, tmp_path: Path) -> None:
    features = _features(world.frames, world)
    last = {"start": interval.end - DAY, "end": interval.end}
    made = build(world.lake, features, tmp_path / "set", **last)
    with pytest.raises(NoTrainingRows, match="nothing to learn from"):
        build(world.lake, features, tmp_path / "set", start=interval.end, end=interval.end + DAY)
    assert TrainingSet(tmp_path / "set").info == made.info
    assert len(made.read()) == made.info.rows


def test_weights_by_propensity(world: World, interval: Interval, tmp_path: Path) -> None:
    config = TrainingSetConfig(weight="inverse_propensity", max_weight=50)
    bounds = {"start": interval.end - DAY, "end": interval.end, "config": config}
    rows = build(world.lake, _features(world.frames, world), tmp_path / "set", **bounds).read()
    np.testing.assert_allclose(rows["weight"], np.minimum(1 / rows["propensity"], 50), rtol=1e-5)
    frames = dict(world.frames)
    frames["impressions"] = frames["impressions"].drop(columns="propensity")
    lake = write_lake(tmp_path / "lake", frames, world.contract)
    with pytest.raises(TrainingSetError, match="have no propensity"):
        build(lake, _features(frames, world), tmp_path / "other", **bounds)


def test_broken_invariants_stop_the_build(world: World, interval: Interval, tmp_path: Path) -> None:
    bounds = {"start": interval.end - DAY, "end": interval.end}

    class Loses(NaivePointInTime):
        def pin_scalars(self, pin_ids: np.ndarray, times: pd.Series) -> np.ndarray:
            return super().pin_scalars(pin_ids, times)[:-1]

    whole = _features(world.frames, world)
    with pytest.raises(TrainingSetError, match="came back as"):
        build(world.lake, Loses(whole.actions, whole.follows, whole.positive), tmp_path / "a", **bounds)
    frames = dict(world.frames)
    frames["impressions"] = pd.concat([frames["impressions"], frames["impressions"].tail(3)])
    lake = write_lake(tmp_path / "lake", frames, world.contract)
    with pytest.raises(TrainingSetError, match="repeat a pin within a request"):
        build(lake, whole, tmp_path / "b", **bounds)


def test_bad_intervals_are_named(world: World, interval: Interval, tmp_path: Path) -> None:
    features = _features(world.frames, world)
    with pytest.raises(ValueError, match="midnight"):
        build(world.lake, features, tmp_path / "a", start=interval.start + timedelta(hours=1), end=interval.end)
    with pytest.raises(NoTrainingRows, match="nothing to learn from"):
        build(world.lake, features, tmp_path / "b", start=interval.end, end=interval.end + DAY)
