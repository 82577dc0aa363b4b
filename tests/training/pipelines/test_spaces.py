"""The content and PinnerSage pipelines on a planted world: what they register and how good it is."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.training.models.sentence_models import WIDTH, save_tiny_bert
from training.context import TrainingContext
from training.data.world import WorldPaths
from training.data.world_truth import WorldTruth
from training.evaluation.planted import interest_share
from training.models.content import ContentConfig
from training.models.interactions import Pins
from training.models.pinnersage import PinnerSageConfig, user_interests
from training.models.sentence import SentenceEncoderChanged, SentenceEncoderMissing
from training.pipelines.content import (
    catalogue,
    evaluate,
    first_topics,
    load_catalogue,
    topic_parents,
    train_content,
)
from training.pipelines.pinnersage import (
    all_interests,
    load_config,
    nearest,
    read_actions,
    train_pinnersage,
    walk_forward,
)
from training.pipelines.publish import pin_quality
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part
from validation.tables import Polarity


@pytest.fixture(scope="module")
def content(ctx: TrainingContext) -> Part:
    return train_content(ctx)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="the text extra is not installed")
    return save_tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def pins(ctx: TrainingContext, content: Part) -> Pins:
    return load_catalogue(ctx, content)


@pytest.fixture(scope="module")
def pinnersage(ctx: TrainingContext, content: Part) -> Part:
    return train_pinnersage(ctx, content)


def test_a_content_version_is_a_space(content: Part):
    assert content.space == f"content@{content.version}"
    assert content.collection == f"pins__content__{content.version}"
    assert content.metrics["content_coverage"] == 1.0


def test_neighbours_share_a_topic_far_more_often_than_chance(content: Part):
    assert content.metrics["topic_agreement_at_10"] > 0.8
    assert content.metrics["topic_agreement_by_chance"] < 0.3


def test_the_catalogue_is_every_pin_in_order(ctx: TrainingContext, pins: Pins):
    frame = Lake(ctx.lake).read("pins").sort_values("pin_id")
    np.testing.assert_array_equal(pins.ids, frame["pin_id"])
    assert [set(row[row > 0]) for row in pins.topics] == [set(t[:4]) for t in frame["topics"]]
    created = frame["created_at"].map(lambda t: int(t.timestamp() * 1000))
    np.testing.assert_array_equal(pins.created_at_ms, created)
    np.testing.assert_allclose(np.linalg.norm(pins.vectors, axis=1), 1, atol=1e-5)


def test_unchanged_inputs_make_no_new_version(ctx: TrainingContext, content: Part):
    assert train_content(ctx).version == content.version
    newest = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts).latest("content")
    other = train_content(ctx, ContentConfig(dim=16, text_encoder="ngrams"))
    assert other.version == (newest or 0) + 1 and other.space != content.space
    again = train_content(ctx, ContentConfig(dim=16, text_encoder="ngrams"), force=True)
    assert again.version == other.version + 1


def test_a_version_records_who_read_the_words(ctx: TrainingContext, bert: Path):
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    hashed = train_content(replace(ctx, text_encoder="ngrams"))
    assert registry.params("content", hashed.version)["text_encoder"] == "ngrams"
    read = train_content(replace(ctx, text_encoder=str(bert)))
    assert read.version != hashed.version
    assert train_content(replace(ctx, text_encoder=str(bert))) == read
    params = registry.params("content", read.version)
    assert params["text_encoder"] == str(bert) and params["text_encoder_width"] == str(WIDTH)
    assert params["text_encoder_version"].startswith("sha256:")
    model = json.loads((registry.download("content", read.version) / "content.json").read_text())
    assert model["sentence_model"]["version"] == params["text_encoder_version"]
    save_tiny_bert(bert, seed=1)
    assert train_content(replace(ctx, text_encoder=str(bert))).version > read.version
    with pytest.raises(SentenceEncoderChanged, match="put those files back, or train anew"):
        load_catalogue(ctx, read)


def test_mlflow_loads_a_version_with_its_sentence_encoder(ctx: TrainingContext, bert: Path):
    import mlflow

    part = train_content(replace(ctx, text_encoder=str(bert)))
    frame = Lake(ctx.lake).read("pins").sort_values("pin_id").head(20)
    mlflow.set_tracking_uri(ctx.mlflow_uri)
    model = mlflow.pyfunc.load_model(f"models:/content/{part.version}")
    fields = ["title", "description", "topics", "link_domain", "visual_embedding"]
    vectors = model.predict(frame[fields])
    np.testing.assert_allclose(vectors, load_catalogue(ctx, part).vectors[:20], atol=1e-5)


def test_a_sentence_encoder_that_is_not_there_is_named(ctx: TrainingContext):
    with pytest.raises(SentenceEncoderMissing, match="pip install no-such-encoder"):
        train_content(replace(ctx, text_encoder="no-such-encoder"))


def test_a_catalogue_without_topics_is_measured_without_them(pins: Pins):
    bare = replace(pins, topics=np.zeros_like(pins.topics))
    assert set(evaluate(bare, 0)) == {"pins", "content_coverage"}


def test_first_topics_pads_and_cuts():
    import pandas as pd

    topics = pd.Series([np.array([5, 6, 7, 8, 9]), None, [3], float("nan")])
    np.testing.assert_array_equal(
        first_topics(topics), [[5, 6, 7, 8], [0, 0, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]]
    )


def test_parents_come_from_the_topics_table(ctx: TrainingContext):
    parents, roots = topic_parents(Lake(ctx.lake)), set(topic_parents(Lake(ctx.lake)).values())
    assert len(roots) > 1 and 0 not in roots and roots.isdisjoint(parents), "leaves have parents, roots none"
    assert len(parents) + len(roots) == len(Lake(ctx.lake).read("topics"))


def test_pinnersage_finds_next_days_pins_better_than_popularity(pinnersage: Part):
    found = pinnersage.metrics
    assert found["evaluated_users"] > 20
    assert found["recall_at_100"] > 1.3 * found["recall_at_100_popular"]
    assert found["relevance_at_100"] > 1.3 * found["relevance_at_100_popular"]
    assert found["relevance_at_100"] > found["relevance_at_100_last_pin"]


def test_the_registered_parameters_name_their_space(ctx: TrainingContext, content: Part, pinnersage: Part):
    config = load_config(ctx, pinnersage)
    assert config.space == content.space == pinnersage.space
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    version = registry.version("pinnersage", pinnersage.version)
    assert version.tags["space"] == content.space and version.tags["feature_service"] == "pinnersage_v1"
    figures = {f.path for f in registry.client.list_artifacts(version.run_id, "figures")}
    assert figures == {"figures/alpha.png", "figures/interest_map.png"}
    assert train_pinnersage(ctx, content).version == pinnersage.version


def test_medoids_lie_in_the_interests_that_were_planted(
    ctx: TrainingContext, content: Part, pinnersage: Part, world: WorldPaths
):
    config, end = load_config(ctx, pinnersage), Lake(ctx.lake).interval()[1]
    actions = read_actions(ctx, content, config)
    found = list(all_interests(actions, config, end))
    users = np.array([user for user, _ in found])
    medoids = np.zeros((len(found), 3), np.int64)
    for row, (_, interests) in enumerate(found):
        medoids[row, : len(interests)] = interests.medoid_pin_ids[:3]
    truth, when = WorldTruth(world.truth), end - timedelta(hours=1)
    share = interest_share(medoids, users, truth, when)
    top = actions.pins.ids[actions.popular(0, int(end.timestamp() * 1000), 20)]
    assert share > 0.6
    assert share > 2 * interest_share(top, users, truth, when)


def test_the_walk_forward_knows_nothing_of_the_day_it_is_measured_on(
    ctx: TrainingContext, content: Part, pins: Pins
):
    """Scrambling the held-out day changes nothing that is recommended, only what it is compared to."""
    config = PinnerSageConfig(alpha=2.0)
    actions = read_actions(ctx, content, config)
    cut = int((Lake(ctx.lake).interval()[1] - timedelta(days=1)).timestamp() * 1000)
    user = int(np.diff(actions.offsets).argmax())
    past = actions.history(user, cut)
    assert (past.times_ms < cut).all() and len(past.times_ms) < len(actions.history(user).times_ms) + 1
    before = user_interests(past, cut, config)
    rng = np.random.default_rng(0)
    late = actions.times_ms >= cut
    rows = actions.pin_rows.copy()
    rows[late] = rng.integers(0, len(pins.ids), late.sum())
    scrambled = user_interests(replace(actions, pin_rows=rows).history(user, cut), cut, config)
    np.testing.assert_array_equal(before.medoid_pin_ids, scrambled.medoid_pin_ids)
    assert walk_forward(actions, config, cut, 0) == walk_forward(actions, config, cut, 0)


def test_nearest_splits_evenly_and_leaves_out_what_is_known(pins: Pins):
    known = np.arange(50)
    found = nearest(pins, pins.vectors[[0, 100]], known, 20)
    assert not np.isin(found, known).any() and 10 <= len(found) <= 20 and 100 in found
    similarity = pins.vectors[100] @ pins.vectors.T
    similarity[known] = -np.inf
    assert set(np.argsort(-similarity)[:10]) <= set(found)
    assert len(nearest(pins, pins.vectors[:0], known, 20)) == 0


def test_quality_by_its_formula(ctx: TrainingContext, pins: Pins):
    lake = Lake(ctx.lake)
    frame, vocabulary = lake.read("actions"), lake.contract().vocabulary
    quality = pin_quality(lake, pins.ids, lake.interval()[1])
    for row in (0, 1, int(quality.argmin())):
        own = frame[frame["pin_id"] == pins.ids[row]]["action"]
        good, bad = (own.isin(vocabulary.codes(p)).sum() for p in (Polarity.POSITIVE, Polarity.NEGATIVE))
        assert quality[row] == pytest.approx((good + 1) / (good + bad + 1))
    assert quality.min() > 0 and quality.max() == 1.0


def test_the_same_encoder_gives_the_same_vectors_from_the_lake(ctx: TrainingContext, content: Part, pins: Pins):
    from training.models.content import ContentEncoder

    encoder = ContentEncoder.load(Registry(ctx.mlflow_uri).download(content.model, content.version))
    np.testing.assert_array_equal(catalogue(Lake(ctx.lake), encoder).vectors, pins.vectors)
