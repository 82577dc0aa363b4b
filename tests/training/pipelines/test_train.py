"""The whole run on a planted world: tables in; versions, features, vectors, interests out; once and again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from feature_repo.online.features import Freshness
from feature_repo.online.reader import OnlineFeatures
from feature_repo.vectors.index import VectorIndexError
from feature_repo.vectors.milvus import connect
from tests.training.pipelines.conftest import context
from tests.training.pipelines.small_run import DIM, Lines
from training import index
from training.context import TrainingContext
from training.data.training_set import NoTrainingRows, TrainingSet
from training.models.interactions import Pins
from training.pipelines import pinsage as pinsage_module
from training.pipelines import retrievers as retrievers_module
from training.pipelines import train as train_module
from training.pipelines.catalogues import catalogue_of
from training.pipelines.content import load_catalogue
from training.pipelines.pinnerformer_users import daily_user_vectors
from training.pipelines.retrievers import LEARNED
from training.pipelines.train import Trained, train
from training.registry import Registry
from training.release_parts import RANKERS, newest_parts
from validation.lake import Lake
from validation.manifest import Part

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small")]


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


@pytest.fixture(scope="module")
def pins(made: TrainingContext, trained: Trained) -> Pins:
    return load_catalogue(made, trained.parts["content"])


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
    assert trained.skipped == {"ads_multi_tower": "the data has no ads"}


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


def test_rankers_without_rows_are_skipped_and_say_why(
    made: TrainingContext, trained: Trained, monkeypatch: pytest.MonkeyPatch
):
    def nothing(*_: object) -> TrainingSet:
        raise NoTrainingRows("there is nothing to learn from")

    monkeypatch.setattr(train_module, "build_training_set", nothing)
    done = train(made)
    inside = {"pinsage", "searchsage", "pinnersage"}
    assert set(done.parts) == {"content", "lexical", *inside, "pixie", *LEARNED, "light_gbdt"}
    no_ads = {"ads_multi_tower": "the data has no ads"}
    assert done.skipped == dict.fromkeys(RANKERS, "there is nothing to learn from") | no_ads


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
