"""A run's rankers: what they learn from, say of themselves and serve, and how one learns on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from feature_repo.sequence import SequenceLog
from tests.training.pipelines.small_run import Lines
from tests.training.small_networks import SMALL_TRANSACT
from training.context import TrainingContext
from training.data.splits import Interval, time_split
from training.data.training_set import TrainingSet
from training.evaluation.metrics import auc
from training.evaluation.served_scores import served_scores
from training.models.interactions import Pins, polarity_signs, request_interactions
from training.models.lexical import LexicalIndex
from training.models.pinnability import FeatureSpec
from training.models.query_features import ON_SEARCH, QUERY_FEATURES, query_features
from training.models.ranker import ENGAGE, load_calibrator, load_ranker
from training.pipelines import night_vectors, pinnability, transact
from training.pipelines.content import content_part, load_catalogue
from training.pipelines.pinnability import Kind, PinnabilityConfig, TrainingWindow, newest, split_of
from training.pipelines.pinnerformer_users import daily_user_vectors
from training.pipelines.train import Trained, train
from training.pipelines.transact import known_of, train_transact
from training.registry import LEARNED_UNTIL_TAG, Registry
from training.release_parts import RANKERS
from training.transact.examples import PinTable
from validation.lake import Lake

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small")]


@pytest.fixture(scope="module")
def trained(made: TrainingContext) -> Trained:
    rankers = (*(kind.model for kind in Kind), transact.MODEL)
    return train(made, models=["lexical", "pinnerformer", *rankers])


@pytest.fixture(scope="module")
def pins(made: TrainingContext, trained: Trained) -> Pins:
    return load_catalogue(made, trained.parts["content"])


@pytest.fixture(scope="module")
def rows(made: TrainingContext, trained: Trained) -> TrainingSet:
    return TrainingSet(made.training_sets / pinnability.SET)


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
    assert "70% is what boosted trees answer" in card and "100 of each are needed" in params["not_taught.hide"]
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


def test_the_test_grows_until_it_can_decide(rows: TrainingSet, monkeypatch: pytest.MonkeyPatch):
    info = rows.info  # eight days
    split = split_of(info)
    assert split.validation.end == split.test.start and split.train.end == split.validation.start
    monkeypatch.setattr(pinnability, "TEST_ROWS", 1)
    assert split_of(info).test == time_split(info.start, info.end).test
    monkeypatch.setattr(pinnability, "TEST_ROWS", 10**9)
    assert len(split_of(info).test.days()) == len(split_of(info).validation.days()) == 2
    assert len(split_of(info).train.days()) == 4
