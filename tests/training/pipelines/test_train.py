"""The whole run on a planted world: tables in; versions, features, vectors, interests out; once and again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from feature_repo.online.reader import Freshness, OnlineFeatures
from feature_repo.sequence import SequenceLog
from feature_repo.vectors.index import VectorIndexError
from feature_repo.vectors.milvus import connect
from tests.training.pipelines.conftest import GiveRegistry, context
from tests.training.pipelines.test_interests import CONFIG as INTERESTS
from tests.training.pipelines.test_interests import TOWERS
from tests.training.pipelines.test_pinnerformer import CONFIG as FORMER
from tests.training.pipelines.test_pinsage import CONFIG as PINSAGE
from tests.training.pipelines.test_searchsage import CONFIG as SEARCHSAGE
from tests.training.small_networks import SMALL_TRANSACT
from training import index
from training.context import TrainingContext
from training.data.splits import Interval, time_split
from training.data.training_set import NoTrainingRows, TrainingSet
from training.data.world import WorldPaths
from training.evaluation.metrics import auc
from training.evaluation.served_scores import served_scores
from training.models.interactions import Pins, polarity_signs, request_interactions
from training.models.lexical import LexicalIndex
from training.models.pinnability import FeatureSpec
from training.models.query_features import ON_SEARCH, QUERY_FEATURES, query_features
from training.models.ranker import ENGAGE, load_calibrator, load_ranker
from training.pipelines import night_vectors, pinnability, transact
from training.pipelines import pinsage as pinsage_module
from training.pipelines import retrievers as retrievers_module
from training.pipelines import searchsage as searchsage_module
from training.pipelines import train as train_module
from training.pipelines.catalogues import catalogue_of
from training.pipelines.content import content_part, load_catalogue
from training.pipelines.interests import train_conditional, train_dcm
from training.pipelines.pinnability import Kind, PinnabilityConfig, TrainingWindow, newest, split_of
from training.pipelines.pinnerformer import train_pinnerformer
from training.pipelines.pinnerformer_users import daily_user_vectors
from training.pipelines.pinsage import train_pinsage
from training.pipelines.pinsage_world import PinSagePipeline
from training.pipelines.retrievers import LEARNED
from training.pipelines.searchsage import train_searchsage
from training.pipelines.train import STEPS, Trained, UnknownStep, train
from training.pipelines.transact import known_of, train_transact
from training.pipelines.two_tower import train_two_tower
from training.registry import LEARNED_UNTIL_TAG, Registry
from training.release_parts import RANKERS, newest_parts
from training.transact.examples import PinTable
from validation.ingest import ingest
from validation.lake import Lake
from validation.manifest import Part

pytestmark = pytest.mark.slow


SMALL_PINSAGE = PINSAGE.model_copy(update={"held_out_days": PinSagePipeline().held_out_days})
"""Networks that take seconds, on the days that the pipelines' own settings learn from."""
SMALL_SEARCHSAGE, SMALL_INTERESTS, SMALL_TOWERS, SMALL_FORMER = (
    config.model_copy(update={"held_out_days": None}) for config in (SEARCHSAGE, INTERESTS, TOWERS, FORMER)
)
SMALL = {
    retrievers_module.PINNERFORMER: partial(train_pinnerformer, config=SMALL_FORMER),
    retrievers_module.DCM: partial(train_dcm, config=SMALL_INTERESTS),
    retrievers_module.CONDITIONAL: partial(train_conditional, config=SMALL_INTERESTS),
    retrievers_module.TWO_TOWER: partial(train_two_tower, config=SMALL_TOWERS),
}
DIM = SMALL_PINSAGE.network.dim
"""Of PinSage and of every learned retriever."""


class Lines(list[str]):
    """Progress kept, to be asked what happened."""

    def __call__(self, line: str) -> None:
        self.append(line)

    def told(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self)


@pytest.fixture(scope="module")
def trained_home(
    world: WorldPaths, tmp_path_factory: pytest.TempPathFactory, give_registry: GiveRegistry
) -> Path:
    root = tmp_path_factory.mktemp("trained")
    give_registry(root)
    ingest(world.tables, root / "lake", root / "quarantine", root / "reports", checkpoint=False)
    return root


@pytest.fixture(scope="module")
def made(trained_home: Path, milvus_uri: str) -> TrainingContext:
    return context(trained_home, milvus_uri=milvus_uri)


@pytest.fixture(scope="module")
def trained(made: TrainingContext) -> Trained:
    """A run that first meets a Milvus that is down, then is started again."""
    with pytest.MonkeyPatch.context() as patch:

        def down(*_: object) -> None:
            raise VectorIndexError("nothing answers")

        patch.setattr(index, "build", down)
        with pytest.raises(VectorIndexError):
            train(made)
    assert Registry(made.mlflow_uri).versions("content") == [1]
    return train(made)


@pytest.fixture(scope="module", autouse=True)
def served() -> Iterator[None]:
    """All are served here, though a world of 150 users is too little for PinSage to know more than content."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pinsage_module, "shortfall", lambda part: None)
        patch.setattr(retrievers_module, "shortfall", lambda part: None)
        patch.setattr(searchsage_module, "shortfall", lambda part: None)
        patch.setattr(train_module, "RETRIEVERS", SMALL)
        patch.setattr(train_module, "train_pinsage", partial(train_pinsage, config=SMALL_PINSAGE))
        patch.setattr(train_module, "train_searchsage", partial(train_searchsage, config=SMALL_SEARCHSAGE))
        patch.setattr(train_module, "train_transact", partial(train_transact, config=SMALL_TRANSACT))
        yield


@pytest.fixture(scope="module")
def pins(made: TrainingContext, trained: Trained) -> Pins:
    return load_catalogue(made, trained.parts["content"])


@pytest.fixture(scope="module")
def rows(made: TrainingContext, trained: Trained) -> TrainingSet:
    return TrainingSet(made.training_sets / pinnability.SET)


def test_a_stopped_run_goes_on_where_it_was(trained: Trained):
    assert {name: part.version for name, part in trained.parts.items()} == {
        "content": 1,
        "lexical": 1,
        "pinsage": 1,
        "searchsage": 1,
        "pixie": 1,
        **dict.fromkeys(LEARNED, 1),
        "pinnersage": 1,
        "pinnability_logistic": 1,
        "pinnability_gbdt": 1,
        "transact": 1,
        "light_gbdt": 1,
    }
    assert trained.skipped == {"ads": "the data has no ads"}


def test_parts_live_in_their_spaces(trained: Trained):
    spaces = {name: part.space for name, part in trained.parts.items()}
    assert {name: spaces.pop(name) for name in LEARNED} == {name: f"{name}@1" for name in LEARNED}
    assert spaces.pop("pixie") is None, "a graph has no space"
    assert spaces.pop("lexical") is None, "words are no vectors"
    assert spaces.pop("light_gbdt") is None, "it reads scores"
    assert spaces.pop("searchsage") == "searchsage@1"
    assert {name for name, space in spaces.items() if space == "pinsage@1"} == {"pinsage", "pinnersage"}
    assert {name for name, space in spaces.items() if space == "content@1"} == {
        "content",
        "pinnability_logistic",
        "pinnability_gbdt",
        "transact",
    }
    assert [(c.space, c.collection) for c in trained.collections] == [
        ("content@1", "pins__content__1"),
        ("pinsage@1", "pins__pinsage__1"),
        *((f"{name}@1", f"pins__{name}__1") for name in LEARNED),
        ("searchsage@1", "pins__searchsage__1"),
    ]
    for check in trained.collections:
        # SearchSage's is joined of content, PinSage and what people did
        dim = {"content@1": 64, "searchsage@1": 64 + DIM + 1}.get(check.space, DIM)
        assert (check.rows, check.dim) == (900, dim)
        assert check.recall_at_100 > 0.99 and check.filtered_fill > 0.99


def test_the_online_store_holds_vectors_interests_and_sequences(
    made: TrainingContext, trained: Trained, pins: Pins
):
    online = OnlineFeatures.open(made.feast_home, freshness=Freshness.unbounded())
    vectors, present = online.embeddings(pins.ids[:50], "content@1")
    assert present.all()
    np.testing.assert_array_equal(vectors, pins.vectors[:50])
    lake = Lake(made.lake)
    user = int(lake.read("actions", ["user_id"])["user_id"].value_counts().index[0])
    known = online.user(user, ["pinsage@1", "content@1"])
    assert "content@1" not in known.interests
    interests = known.interests["pinsage@1"]
    assert len(interests.medoid_pin_ids) > 0 and (np.diff(interests.importances) <= 0).all()
    stored, present = online.embeddings(interests.medoid_pin_ids, "pinsage@1")
    assert present.all()
    np.testing.assert_array_equal(interests.vectors, stored)
    assert len(known.sequence) > 0
    stored, present = online.embeddings(pins.ids[:50], "dcm@1")
    assert present.all()
    np.testing.assert_array_equal(stored, catalogue_of(made, trained.parts["dcm"]).vectors[:50])


def test_the_online_store_holds_last_nights_user_vectors(made: TrainingContext, trained: Trained):
    nightly = daily_user_vectors(made, trained.parts["pinnerformer"])
    online = OnlineFeatures.open(made.feast_home, freshness=Freshness.unbounded())
    for user, vector in zip(nightly.users[:20].tolist(), nightly.vectors, strict=False):
        read = online.user(user, (), ["pinnerformer@1"]).embeddings["pinnerformer@1"]
        np.testing.assert_array_equal(read, vector)
    assert online.user(10**9, (), ["pinnerformer@1"]).embeddings == {}


def test_nothing_changed_nothing_done(made: TrainingContext, trained: Trained):
    lines = Lines()
    again = train(context(Path(made.feast_home), milvus_uri=made.milvus_uri, progress=lines))
    assert again.parts == trained.parts
    assert again.collections == trained.collections and lines.told("pins__content__1: unchanged")
    assert not lines.told("fitting") and not lines.told("materializing") and not lines.told("registered")
    assert lines.told("content: unchanged") and lines.told("training set", "unchanged")


def test_a_collection_that_was_lost_is_built_again(made: TrainingContext, trained: Trained):
    milvus = connect(made.milvus_uri)
    try:
        milvus.drop("pins__content__1")
        assert train(made, models=["content"]).collections == trained.collections[:1]
        assert milvus.open("pins__content__1", consistency="Strong").rows == 900
    finally:
        milvus.close()


def test_force_redoes_the_named_step_only(made: TrainingContext, trained: Trained):
    again = train(made, models=["pinnability_logistic"], force=True)
    assert again.parts["pinnability_logistic"].version == 2
    assert again.parts["content"].version == 1 and set(again.parts) == {"content", "pinnability_logistic"}
    assert again.collections == (), "a step that was not asked for does not touch Milvus"


def test_an_unknown_step_is_named(made: TrainingContext):
    with pytest.raises(UnknownStep, match="unknown step pinsaeg; the steps are features, content"):
        train(made, models=["pinsaeg"])


def test_rankers_beat_chance_popularity_and_the_logging_position(made: TrainingContext, rows: TrainingSet):
    test = rows.block(split_of(rows.info).test)
    registry = Registry(made.mlflow_uri)
    popularity = np.nan_to_num(test.pin_scalars[:, 8])
    known = known_of(Lake(made.lake), content_table(made), rows.info.end)
    for model in (*(kind.model for kind in Kind), "transact"):
        files = registry.download(model, 1)
        ranker = load_ranker(files)
        calibrator = load_calibrator(files, f"{model}@1", ranker.heads)
        logged = registry.metrics(model, 1)
        raw, beside = served_scores(ranker, test, known), test.columns(calibrator.features)
        score = calibrator.calibrate(raw, beside)[:, ranker.heads.index(ENGAGE)]
        assert calibrator.features == (ON_SEARCH,)
        assert auc(test.label, score) == pytest.approx(logged["auc"]), (
            "what was registered is what was measured"
        )
        assert auc(test.label, score) > max(auc(test.label, popularity), auc(test.label, -test.position)) + 0.02
        assert logged["grouped_auc"] > 0.58 and logged["ece"] < 0.05
        assert logged[f"heads/{ENGAGE}/log_loss"] == pytest.approx(logged["log_loss"])


def content_table(ctx: TrainingContext) -> PinTable:
    pins = load_catalogue(ctx, content_part(Registry(ctx.mlflow_uri), 1))
    return PinTable(pins.ids, pins.vectors)


def test_serving_computes_the_features_that_training_saw(
    made: TrainingContext, trained: Trained, pins: Pins, rows: TrainingSet
):
    """Logged requests replayed through the online path: interactions and scores, bit for bit."""
    lake = Lake(made.lake)
    log = SequenceLog.from_actions(lake.read("actions"))
    block = rows.block(split_of(rows.info).test)
    signs = polarity_signs(lake.contract().vocabulary)
    follows = lake.read("follows").dropna(subset="topic_id")
    ranker = load_ranker(Registry(made.mlflow_uri).download("pinnability_gbdt", 1))
    requests = block.keys["request_id"].drop_duplicates().head(40)
    searched = lake.read("impressions", ["request_id", "query"]).dropna().set_index("request_id")["query"]
    searched = searched[~searched.index.duplicated()].to_dict()
    words, searches = LexicalIndex.load(Registry(made.mlflow_uri).download("lexical", 1)), 0
    assert ranker.spec.query == QUERY_FEATURES

    def take(ids: np.ndarray) -> Pins:
        at = np.searchsorted(pins.ids, ids)
        return Pins(pins.ids[at], pins.vectors[at], pins.topics[at], pins.created_at_ms[at])

    for request in requests:
        mine = np.flatnonzero(block.keys["request_id"] == request)
        keys = block.keys.iloc[mine]
        at = keys["timestamp"].iloc[0]
        user, now = int(keys["user_id"].iloc[0]), int(at.timestamp() * 1000)
        sequence = log.sequence(user, now)
        known = follows[(follows["user_id"] == user) & (follows["timestamp"] < at.floor("D"))]
        online = request_interactions(
            take(sequence.pin_ids),
            sequence.actions,
            sequence.timestamps_ms,
            take(keys["pin_id"].to_numpy()),
            known["topic_id"].to_numpy(np.int64),
            now,
            signs,
        )
        np.testing.assert_array_equal(online, block.interactions[mine])
        user_row, pin_rows = block.user_scalars[mine[0]], block.pin_scalars[mine]
        query = searched.get(int(request))
        asked = query_features(words, query, keys["surface"].iloc[0], keys["pin_id"].to_numpy())
        np.testing.assert_array_equal(asked, block.query[mine])
        searches += query is not None
        serving = ranker.score(ranker.spec.assemble(user_row, pin_rows, online, query=asked))
        offline = ranker.spec.assemble(
            block.user_scalars, block.pin_scalars, block.interactions, query=block.query
        )
        np.testing.assert_array_equal(serving, ranker.score(offline)[mine])
    assert searches >= 3


def test_a_version_states_its_rows_and_its_days(made: TrainingContext, trained: Trained, rows: TrainingSet):
    registry = Registry(made.mlflow_uri)
    version = registry.version("pinnability_gbdt", 1)
    run = registry.client.get_run(version.run_id)
    [data] = run.inputs.dataset_inputs
    assert data.dataset.digest == rows.info.fingerprint
    split = split_of(rows.info)
    assert version.tags["data_end"] == split.validation.end.isoformat()
    assert version.tags["space"] == "content@1" and version.tags["feature_service"] == "pinnability_v1"
    figures = {f.path for f in registry.client.list_artifacts(version.run_id, "figures")}
    assert figures == {"figures/roc.png", "figures/calibration.png", "figures/importance.png"}
    for ranker in RANKERS:
        assert rows.info.scheme_note in (registry.version(ranker, 1).description or "")


@pytest.mark.parametrize("fitting", [(pinnability, "_fit"), (transact, "fit_transact")])
def test_a_ranker_learns_from_the_features_that_its_configuration_names(
    made: TrainingContext, trained: Trained, rows: TrainingSet, pins: Pins, fitting, monkeypatch
):
    def fit(*given: object, **_: object) -> None:
        told.extend(part.names for part in given if isinstance(part, FeatureSpec))
        raise StopIteration

    told: list[tuple[str, ...]] = []
    monkeypatch.setattr(*fitting, fit)
    few = FeatureSpec(user=(), pin=("positives_7d",), interactions=("cos_positive_max",), position=False)
    content = trained.parts["content"]
    with pytest.raises(StopIteration):
        if fitting[0] is pinnability:
            config = PinnabilityConfig(features=few)
            pinnability.train_pinnability(made, Kind.LOGISTIC, rows, content, config)
        else:
            config = SMALL_TRANSACT.model_copy(update={"features": few})
            train_transact(made, rows, content, pins, config)
    assert told == [("pin_positives_7d", "cos_positive_max")]


def test_transact_says_its_heads_its_thinning_and_why_it_reads_no_vectors_of_users(
    made: TrainingContext, trained: Trained, rows: TrainingSet
):
    registry, split = Registry(made.mlflow_uri), split_of(rows.info)
    version, params = registry.version("transact", 1), registry.params("transact", 1)
    assert version.tags[LEARNED_UNTIL_TAG] == split.validation.end.isoformat()
    assert version.tags["content_space"] == "content@1" and "user_space" not in version.tags
    ranker = load_ranker(registry.download("transact", 1))
    assert params["heads"] == ", ".join(ranker.heads) and ranker.heads[-1] == ENGAGE
    assert {*ranker.heads[:-1]} | {n.removeprefix("no_head.") for n in params if n.startswith("no_head.")} == {
        *rows.info.action_names
    }
    assert 0.1 <= float(params["negative_rate"]) < 1
    assert "days of rows lie after that, 7 are needed" in params["user_vectors_of"]
    card = registry.client.get_run(version.run_id).data.tags and version.description
    assert "Calibrated on" in card and "heads/closeup/ece_raw" in card
    assert ranker.user_space is None


def test_transact_learns_on_from_its_newest_version(made: TrainingContext, trained: Trained):
    """And with kept weights learns nothing, but is calibrated under its own name."""
    registry, lines = Registry(made.mlflow_uri), Lines()
    same = train(replace(made, warm_start=True, progress=lines), models=["transact"]).parts["transact"]
    assert same.version == 1 and lines.told("no rows since transact@1")
    until = registry.learned_until("transact", 1)
    assert until is not None
    earlier = (until - timedelta(days=1)).isoformat()
    registry.client.set_model_version_tag("transact", "1", LEARNED_UNTIL_TAG, earlier)
    with pytest.MonkeyPatch.context() as patch:  # new pins would make another content space
        patch.setattr("training.pipelines.train.train_content", lambda *_, **__: pytest.fail("content anew"))
        warm = train(replace(made, warm_start=True, progress=lines), models=["transact"]).parts["transact"]
    assert warm.version == 2 and lines.told("on from transact@1")
    assert registry.params("transact", 2)["started_from"] == "transact@1"
    first, second = (load_ranker(registry.download("transact", v)) for v in (1, 2))
    assert first.heads == second.heads
    registry.client.set_model_version_tag("transact", "2", LEARNED_UNTIL_TAG, earlier)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.pipelines.transact.misfit", lambda *_: "it differs in sequence")
        anew = train(replace(made, warm_start=True, progress=lines), models=["transact"]).parts["transact"]
    assert lines.told("does not fit: it differs in sequence")
    assert anew.version == 1, "what a run without a start makes, of all its rows"
    kept = train(replace(made, keep_weights=True), models=["transact"]).parts["transact"]
    files = registry.download("transact", kept.version)
    state, before = load_ranker(files).network.state_dict(), second.network.state_dict()
    assert all((state[name] == before[name]).all() for name in state)
    assert registry.weights_of("transact", kept.version) == 2
    load_calibrator(files, f"transact@{kept.version}", second.heads)
    again = train(replace(made, keep_weights=True), models=["transact"]).parts["transact"]
    assert again.version == kept.version
    assert train(made, models=["transact"]).parts["transact"].version == 1


def test_vectors_of_users_are_read_where_they_know_no_row(made: TrainingContext, trained: Trained, pins: Pins):
    """PinnerFormer's weights from before the rows, its vectors from each day's midnight."""
    registry, former = Registry(made.mlflow_uri), trained.parts["pinnerformer"]
    until = registry.learned_until("pinnerformer", 1)
    assert until is not None
    day = timedelta(days=1)
    after, before = Interval(until, until + 3 * day), Interval(until - 2 * day, until + 2 * day)
    assert night_vectors.rows_after(registry, former, after, 5) == (after, "")
    assert night_vectors.rows_after(registry, former, before, 2) == (Interval(until, until + 2 * day), "")
    kept, why = night_vectors.rows_after(registry, former, before, 3)
    assert kept is None and "2 of 4 days of rows lie after that, 3 are needed" in why
    days = Interval(until - timedelta(days=3), until)
    vectors = night_vectors.night_vectors(made, former, days)
    for midnight in days.days():
        tonight = daily_user_vectors(made, former, midnight)
        at = np.full(len(tonight), int(midnight.timestamp() * 1000) + 5)
        np.testing.assert_array_equal(vectors.of(tonight.users, at), tonight.vectors)
    assert not vectors.of(tonight.users, np.zeros(len(tonight), np.int64)).any()


def test_a_ranker_of_another_space_is_refused(made: TrainingContext, trained: Trained, rows: TrainingSet):
    other = trained.parts["content"].model_copy(update={"space": "content@9"})
    with pytest.raises(ValueError, match="vectors of content@1, the release's are content@9"):
        pinnability.train_pinnability(made, Kind.LOGISTIC, rows, other)


def test_the_window_leaves_out_days_that_are_still_filling(made: TrainingContext):
    start, end = Lake(made.lake).interval()
    assert TrainingWindow().interval(made).start == start.replace(day=start.day + 2)  # a quarter of ten days
    assert TrainingWindow(days=3).interval(made).days()[0] == time_split(start, end).validation.start.replace(
        day=time_split(start, end).validation.start.day - 1
    )


def test_the_newest_days_are_kept_whole(rows: TrainingSet):
    split = split_of(rows.info)
    days = split.train.days()
    last = rows.info.days[days[-1].date().isoformat()]
    assert newest(rows, split.train, 10**9) == split.train
    assert newest(rows, split.train, last).start == days[-1]
    assert newest(rows, split.train, 1).start == days[-1], "one day at least"


def test_pins_without_content_skip_what_stands_on_content(
    tmp_path: Path, world: WorldPaths, monkeypatch: pytest.MonkeyPatch, give_registry: GiveRegistry
):
    import pandas as pd

    source = tmp_path / "tables"
    source.mkdir()
    for table in ("pins", "actions"):
        file = world.tables / f"{table}.parquet"
        frame = pd.read_parquet(file if file.exists() else world.tables / table)
        if table == "pins":
            frame = frame[["pin_id", "created_at"]]
        else:
            frame = frame[["user_id", "pin_id", "action", "timestamp"]]
        frame.to_parquet(source / f"{table}.parquet")
    ingest(source, tmp_path / "lake", tmp_path / "q", tmp_path / "r", checkpoint=False)
    give_registry(tmp_path)
    monkeypatch.setattr(train_module.Publisher, "features", lambda *_: None)
    lines = Lines()
    done = train(context(tmp_path, progress=lines))
    assert done.parts == {} and "no pin has a title" in done.skipped["content"]
    assert set(done.skipped) == set(STEPS) - {"features"}


def test_rankers_without_rows_are_skipped_and_say_why(
    made: TrainingContext, trained: Trained, monkeypatch: pytest.MonkeyPatch
):
    def nothing(*_: object) -> TrainingSet:
        raise NoTrainingRows("there is nothing to learn from")

    monkeypatch.setattr(train_module, "build_training_set", nothing)
    done = train(made)
    inside = {"pinsage", "searchsage", "pinnersage"}
    assert set(done.parts) == {"content", "lexical", *inside, "pixie", *LEARNED, "light_gbdt"}
    no_ads = {"ads": "the data has no ads"}
    assert done.skipped == dict.fromkeys(RANKERS, "there is nothing to learn from") | no_ads


def test_the_test_grows_until_it_can_decide(rows: TrainingSet, monkeypatch: pytest.MonkeyPatch):
    info = rows.info  # eight days
    split = split_of(info)
    assert split.validation.end == split.test.start and split.train.end == split.validation.start
    monkeypatch.setattr(pinnability, "TEST_ROWS", 1)
    assert split_of(info).test == time_split(info.start, info.end).test
    monkeypatch.setattr(pinnability, "TEST_ROWS", 10**9)
    assert len(split_of(info).test.days()) == len(split_of(info).validation.days()) == 2
    assert len(split_of(info).train.days()) == 4


def test_pinsage_that_knows_no_more_than_content_is_not_served(
    made: TrainingContext, trained: Trained, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pinsage_module, "shortfall", lambda part: "too little data")
    again = train(made, models=["pinnersage"])
    assert again.parts["pinnersage"].space == "content@1" and again.skipped == {"pinsage": "too little data"}
    assert newest_parts(made)[0]["pinnersage"].space == "content@1"
    skipped = newest_parts(made)[1]
    assert skipped.pop("pinsage") == "too little data"
    assert set(skipped) == {"light", "searchsage"}, "one has read other scores, one other pins"
    assert "pinnersage@2" in skipped["light"]
    monkeypatch.undo()
    monkeypatch.setattr(pinsage_module, "shortfall", lambda part: None)
    assert newest_parts(made)[0]["pinnersage"].space == "pinsage@1", "each is kept in its space"


def test_a_retriever_that_learned_too_little_is_not_published_or_released(
    made: TrainingContext, trained: Trained, monkeypatch: pytest.MonkeyPatch
):
    def short(part: Part) -> str | None:
        return "too little data" if part.model == "dcm" else None

    monkeypatch.setattr(retrievers_module, "shortfall", short)
    again = train(made, models=["dcm", "two_tower"])
    assert again.skipped == {"dcm": "too little data"} and set(again.parts) == {"content", "dcm", "two_tower"}
    assert [check.space for check in again.collections] == ["two_tower@1"]
    parts, skipped = newest_parts(made)
    assert "dcm" not in parts and "two_tower" in parts
    assert set(skipped) == {"dcm", "light"} and skipped["dcm"] == "too little data"


def test_without_follows_there_is_no_conditional_retrieval(made: TrainingContext, tmp_path: Path):
    shutil.copytree(made.lake, tmp_path / "lake")
    shutil.rmtree(tmp_path / "lake" / "follows")
    done = train(replace(made, lake=tmp_path / "lake"), models=["conditional"])
    assert done.skipped == {"conditional": "the data has no follows"} and set(done.parts) == {"content"}
