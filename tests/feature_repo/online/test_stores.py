"""One contract over SQLite and a real Redis: newer rows win, Feast's own calls agree, nothing is lost."""

from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from feature_repo.jobs.forget import online_rows, remove_online
from feature_repo.online.features import Freshness
from feature_repo.online.layout import LayoutError
from feature_repo.online.packed import Question
from feature_repo.online.reader import OnlineFeatures
from feature_repo.online.spaces import drop_online, online_spaces
from feature_repo.sequence import Event, Sequence, merge
from feature_repo.store import FeatureStoreError, apply, definitions, materialize, open_config, open_store
from feature_repo.views import VIEWS
from tests.feature_repo.conftest import END, OTHER_SPACE, SPACE, World

AT = datetime(2026, 5, 1, tzinfo=UTC)


def refs(view: str) -> list[str]:
    return [f"{view}:{name}" for name in VIEWS[view].features.names]


def rows_of(world: World, view: str) -> list[dict]:
    """A join key for every row of the view, and one that has none."""
    keys = list(VIEWS[view].keys)
    frame = pd.read_parquet(world.features / view)[keys].drop_duplicates()
    return [*frame.to_dict("records"), {k: SPACE if k == "space" else 987_654 for k in keys}]


@pytest.fixture(scope="module")
def stock(world: World, tmp_path_factory: pytest.TempPathFactory):
    """The same features through Feast's own SQLite store and its own engine."""
    home = tmp_path_factory.mktemp("stock")
    (home / "stock.yaml").write_text(
        "project: corkboard\nprovider: local\nentity_key_serialization_version: 3\n"
        "registry: {registry_type: sql, path: 'sqlite:///${HOME_DIR}/registry.db'}\n"
        "offline_store: {type: feature_repo.offline.HomeDuckDBOfflineStore, root: '${FEATURES}'}\n"
        "online_store: {type: sqlite, path: '${HOME_DIR}/online.db'}\n"
        "materialization: {pull_latest_features: true}\n"
    )
    variables = {"HOME_DIR": str(home), "FEATURES": str(world.features)}
    opened = open_config(home / "stock.yaml", variables)
    apply(opened)
    materialize(opened, [name for name in VIEWS if name != "user_embedding"])
    return opened


@pytest.mark.parametrize("view", [name for name in VIEWS if name != "user_embedding"])
def test_every_value_equals_the_stock_stores(store, stock, world: World, view: str) -> None:
    rows = rows_of(world, view)
    found = store.get_online_features(features=refs(view), entity_rows=rows).to_dict()
    expected = stock.get_online_features(features=refs(view), entity_rows=rows).to_dict()
    assert found.keys() == expected.keys()
    for name in found:
        for row, mine, theirs in zip(rows, found[name], expected[name], strict=True):
            assert (mine or None) == (theirs or None), (name, row)  # Feast's rows hold [] and null alike


@pytest.mark.parametrize("late", [timedelta(0), timedelta(hours=-1), timedelta(days=-9)])
def test_an_older_row_never_replaces_a_newer_one(fresh_store, late: timedelta) -> None:
    write(fresh_store, 7, country="new", event=AT, created=AT)
    write(fresh_store, 7, country="old", event=AT + late, created=AT - timedelta(seconds=1))
    assert country(fresh_store, 7) == "new"
    write(fresh_store, 7, country="again", event=AT, created=AT)
    assert country(fresh_store, 7) == "again", "the same times write again: a job can be repeated"


def test_in_one_batch_the_newest_row_of_a_key_wins(fresh_store) -> None:
    frame = pd.concat(
        [
            profile(5, "old", AT - timedelta(1), AT),
            profile(5, "new", AT, AT),
            profile(5, "mid", AT - timedelta(0.5), AT),
        ]
    )
    fresh_store.write_to_online_store("user_profile", frame)
    assert country(fresh_store, 5) == "new"


def test_writers_in_threads_end_with_the_newest(fresh_store) -> None:
    reader = OnlineFeatures(fresh_store)
    reader.sequences([1])  # opens the views before the threads do
    full = Sequence.of(Event(i, i, 1, 0, 1_000 * i) for i in range(1, 61))

    def push(order: list[int]) -> None:
        for i in order:
            reader.push_sequences({1: full.before(1_000 * i)})

    orders = [list(range(2, 62)), list(range(61, 1, -1)), list(range(2, 62, 2))]
    threads = [threading.Thread(target=push, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reader.sequences([1])[1] == full


def test_a_push_through_feast_and_through_the_reader_are_one(fresh_store) -> None:
    reader = OnlineFeatures(fresh_store)
    sequence = Sequence.of([Event(1, 10, 1, 2, 5_000, 1.5), Event(2, 11, 3, 0, 6_000)])
    reader.push_sequences({1: sequence, 2: Sequence.empty()})
    frame = pd.DataFrame({"user_id": [3], **{n: [a] for n, a in sequence.arrays().items()}})
    frame["event_timestamp"] = frame["created"] = pd.Timestamp(6_000, unit="ms", tz="UTC")
    fresh_store.push("user_sequence_push", frame)
    assert reader.sequences([1, 2, 3]) == {1: sequence, 2: Sequence.empty(), 3: sequence}
    row = reader.user(1)
    assert row.known and row.event_times_ms == {"user_sequence": 6_000}
    assert row.sequence == sequence


def test_a_batch_does_not_undo_a_push(fresh_store, world: World) -> None:
    """The live sequence holds a late event that the batch has not seen; both end at the same action."""
    reader = OnlineFeatures(fresh_store)
    materialize(fresh_store, ["user_sequence"])
    before = reader.sequences([3])[3]
    late = merge(before, [Event(900_001, 5, 1, 0, before.newest_ms - 10)])
    reader.push_sequences({3: late})
    materialize(fresh_store, ["user_sequence"])
    assert reader.sequences([3])[3] == late


def test_spaces_stand_side_by_side(store, world: World) -> None:
    reader = OnlineFeatures(store)
    one, present = reader.embeddings(world.pin_ids, SPACE)
    other, few = reader.embeddings(world.pin_ids, OTHER_SPACE)
    np.testing.assert_array_equal(one, world.vectors)
    np.testing.assert_array_equal(other[:10], -world.vectors[:10])
    assert present.all() and few.sum() == 10 and not other[10:].any()
    none, absent = reader.embeddings(world.pin_ids, "content@3")
    assert none.shape == (len(world.pin_ids), 0) and not absent.any()


def test_removing_a_view_removes_its_rows_alone(fresh_store) -> None:
    write(fresh_store, 7, country="DE", event=AT, created=AT)
    OnlineFeatures(fresh_store).push_sequences({7: Sequence.of([Event(1, 1, 1, 0, 5)])})
    provider, config = fresh_store._get_provider().online_store, fresh_store.config
    view = fresh_store.get_feature_view("user_profile")
    provider.update(config, [view], [], [], [], partial=True)
    provider.update(config, [], [view], [], [], partial=True)
    assert provider.read_rows(config, [Question(view, [7])]) == [[None]]
    assert len(OnlineFeatures(fresh_store).sequences([7])[7]) == 1


def test_removing_a_view_removes_its_spaces(fresh_store, world: World) -> None:
    materialize(fresh_store, ["pin_embedding"])
    provider, config = fresh_store._get_provider().online_store, fresh_store.config
    view = fresh_store.get_feature_view("pin_embedding")
    assert OnlineFeatures(fresh_store).embeddings([1], SPACE)[1].all()
    provider.update(config, [view], [], [], [], partial=True)
    assert (
        provider.read_rows(config, [Question(view, [1], SPACE), Question(view, [1], OTHER_SPACE)])
        == [[None]] * 2
    )


def test_what_is_of_one_user_is_found_and_removed(fresh_store) -> None:
    """The user's rows in every view and space and their boards; nobody else's, and none twice."""
    end = pd.Timestamp(AT)
    write(fresh_store, 7, country="DE", event=AT, created=AT)
    write(fresh_store, 8, country="FR", event=AT, created=AT)
    reader = OnlineFeatures(fresh_store)
    reader.push_sequences({user: Sequence.of([Event(user, 1, 1, 0, 5)]) for user in (7, 8)})
    for space in (SPACE, OTHER_SPACE):
        row = pd.DataFrame({"user_id": [7], "space": space, "vector": [[0.6, 0.8]]})
        fresh_store.write_to_online_store("user_embedding", row.assign(event_timestamp=end, created=end))
    board = pd.DataFrame({"board_id": [3, 4], "owner_id": [7, 8], "pin_count": 1, "recent_pin_ids": [[1], [2]]})
    fresh_store.write_to_online_store("board_features", board.assign(event_timestamp=end, created=end))
    assert online_rows(fresh_store, 7, [3]) == 5
    remove_online(fresh_store, 7, [3])
    assert online_rows(fresh_store, 7, [3]) == 0 and online_rows(fresh_store, 8, [4]) == 3
    assert len(reader.sequences([7])[7]) == 0 and len(reader.sequences([8])[8]) == 1
    remove_online(fresh_store, 7, [3])


def test_a_view_with_other_keys_is_refused_at_apply(fresh_store) -> None:
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.types import Int64, String

    place = Entity(name="place", join_keys=["place"], value_type=ValueType.STRING)
    view = FeatureView(
        name="visits",
        entities=[place],
        schema=[Field(name="place", dtype=String), Field(name="visits", dtype=Int64)],
        source=FileSource(name="visits_files", path="visits/*.parquet", timestamp_field="event_timestamp"),
    )
    with pytest.raises(LayoutError, match="view visits is keyed by place"):
        fresh_store.apply([place, view])


def test_more_keys_than_a_statement_takes(store, world: World) -> None:
    ids = np.tile(world.pin_ids, 700)
    found = OnlineFeatures(store, Freshness.unbounded()).pins(ids)
    assert found.present.all() and len(found.scalars) == len(ids)
    np.testing.assert_array_equal(found.scalars[: len(world.pin_ids)], found.scalars[-len(world.pin_ids) :])


def test_a_store_that_was_never_applied_says_what_to_run(tmp_path) -> None:
    with pytest.raises(FeatureStoreError, match="feast apply"):
        OnlineFeatures.open(tmp_path).user(1)


def test_applying_again_changes_nothing(fresh_store) -> None:
    def registered() -> dict[str, list[str]]:
        kinds = ("entities", "data_sources", "feature_views", "on_demand_feature_views", "feature_services")
        return {kind: sorted(x.name for x in getattr(fresh_store, f"list_{kind}")()) for kind in kinds}

    before = registered()
    apply(fresh_store)
    assert registered() == before
    assert before["feature_views"] == sorted(VIEWS)
    assert len(before["data_sources"]) == len(set(before["data_sources"]))


def test_what_is_no_longer_defined_is_removed(fresh_store) -> None:
    from feast import FeatureService

    view = fresh_store.get_feature_view("pin_stats")
    fresh_store.apply([FeatureService(name="forgotten", features=[view])])
    apply(fresh_store)
    names = {service.name for service in fresh_store.list_feature_services()}
    assert names == {service.name for service in definitions("corkboard").feature_services}


def test_two_homes_share_nothing(tmp_path, applied_home) -> None:
    stores = [open_store(shutil.copytree(applied_home, tmp_path / name)) for name in ("one", "two")]
    write(stores[0], 7, country="DE", event=AT, created=AT)
    assert country(stores[0], 7) == "DE"
    assert country(stores[1], 7) is None


def test_an_unset_variable_is_named(tmp_path) -> None:
    from feature_repo.store import REDIS

    with pytest.raises(FeatureStoreError, match="CORKBOARD_REDIS"):
        open_config(REDIS, {"CORKBOARD_HOME": str(tmp_path)})


def test_views_without_files_are_empty(store, world: World) -> None:
    assert not (world.features / "user_embedding").exists()
    assert OnlineFeatures(store).user(1, (), [SPACE]).embeddings == {}
    materialize(store, ["user_embedding"], end=END)


def profile(user: int, country: str, event: datetime, created: datetime) -> pd.DataFrame:
    fields = VIEWS["user_profile"].features
    row = {f.name: [] if "list" in str(f.type) else "x" if f.type == "string" else 0 for f in fields}
    row |= {"user_id": user, "country": country, "event_timestamp": event, "created": created}
    frame = pd.DataFrame([row])
    return frame.astype({f.name: "float32" for f in fields if f.type == "float"})


def write(opened, user: int, **values) -> None:
    opened.write_to_online_store("user_profile", profile(user, **values))


def country(opened, user: int) -> str | None:
    found = opened.get_online_features(features=["user_profile:country"], entity_rows=[{"user_id": user}])
    return found.to_dict()["country"][0]


def test_a_space_goes_and_the_other_stays(fresh_store) -> None:
    materialize(fresh_store, ["pin_embedding"])
    assert {space for _, space, _ in online_spaces(fresh_store)} == {SPACE, OTHER_SPACE}
    sizes = {space: size for _, space, size in online_spaces(fresh_store)}
    assert sizes[SPACE] == 6 * sizes[OTHER_SPACE] > 0, "sixty pins and ten"
    for _ in range(2):  # the second time there is nothing to drop
        drop_online(fresh_store, "pin_embedding", OTHER_SPACE)
        assert list(online_spaces(fresh_store)) == [("pin_embedding", SPACE, sizes[SPACE])]
