"""DCM, conditional retrieval and the two-tower from a lake: one version a set of inputs, every pin a vector."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from training.context import TrainingContext
from training.evaluation.histories import Histories
from training.evaluation.retrieval import hold_out_last
from training.evaluation.served import AtCut, two_tower_pins_of
from training.interests.fitting import TooFewEngagements, read_period
from training.interests.trainer import InterestsTraining
from training.models.interactions import Pins
from training.models.interests import InterestNetwork, InterestsConfig, ItemTowerConfig, Method, pin_vectors
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.pipelines.clock import run_end
from training.pipelines.content import load_catalogue, train_content
from training.pipelines.interests import InterestsPipeline, interests_catalogue, train_conditional, train_dcm
from training.pipelines.two_tower import TwoTowerPipeline, train_two_tower, two_tower_catalogue
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part

TRAINING = InterestsTraining(epochs=2, batch=256)
BASE = InterestsConfig(dim=16, interests=4, length=20, item_tower=ItemTowerConfig(performance=True))
CONFIG = InterestsPipeline(network=Method.DCM.config(BASE), training=TRAINING, train_days=6)
TOWERS = TwoTowerPipeline(network=TwoTowerConfig(dim=16, hidden=24), training=TRAINING, train_days=6)


@pytest.fixture(scope="module")
def content(ctx: TrainingContext) -> Part:
    return train_content(ctx)


@pytest.fixture(scope="module")
def pins(ctx: TrainingContext, content: Part) -> Pins:
    return load_catalogue(ctx, content)


@pytest.fixture(scope="module")
def parts(ctx: TrainingContext, content: Part) -> dict[str, Part]:
    return {
        "dcm": train_dcm(ctx, content, CONFIG),
        "conditional": train_conditional(ctx, content, CONFIG),
        "two_tower": train_two_tower(ctx, content, TOWERS),
    }


@pytest.mark.parametrize("model", ["dcm", "conditional", "two_tower"])
def test_a_version_is_a_space(ctx: TrainingContext, parts: dict[str, Part], model: str) -> None:
    part = parts[model]
    assert (part.model, part.space) == (model, f"{model}@{part.version}")
    assert part.collection == f"pins__{model}__{part.version}"
    assert part.feature_service == f"{model}_v1"
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    assert registry.params(model, part.version)["training.epochs"] == "2"
    rates = [v for k, v in part.metrics.items() if "hr_at_" in k]
    assert rates and all(0 <= rate <= 1 for rate in rates)
    run = registry.version(model, part.version).run_id
    assert [f.path for f in registry.client.list_artifacts(run, "figures")] == ["figures/recall.png"]


def test_the_same_inputs_make_no_new_version(
    ctx: TrainingContext, content: Part, parts: dict[str, Part]
) -> None:
    assert train_dcm(ctx, content, CONFIG) == parts["dcm"]
    assert train_conditional(ctx, content, CONFIG) == parts["conditional"]
    assert train_two_tower(ctx, content, TOWERS) == parts["two_tower"]


@pytest.mark.parametrize("model", ["dcm", "conditional", "two_tower"])
def test_every_pin_gets_a_vector(ctx: TrainingContext, parts: dict[str, Part], pins: Pins, model: str) -> None:
    made = (two_tower_catalogue if model == "two_tower" else interests_catalogue)(ctx, parts[model])
    np.testing.assert_array_equal(made.ids, pins.ids)
    np.testing.assert_allclose(np.linalg.norm(made.vectors, axis=1), 1, rtol=1e-4)


@pytest.mark.parametrize("model", ["dcm", "two_tower"])
def test_a_pin_of_a_day_knows_nothing_of_what_came_after(
    ctx: TrainingContext, parts: dict[str, Part], pins: Pins, model: str
) -> None:
    """What is published as of a midnight is what measurements make of the actions before it alone."""
    catalogue = two_tower_catalogue if model == "two_tower" else interests_catalogue
    lake, cut = Lake(ctx.lake), run_end(ctx) - timedelta(days=2)
    at = AtCut.read(lake, pins, Histories.before(lake, hold_out_last(lake, run_end(ctx), 2)))
    assert at.cut == cut
    folder = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts).download(model, parts[model].version)
    if model == "two_tower":
        network = TwoTower.load(folder)
        measured = two_tower_pins_of(network, at.features(network.topics))
    else:
        network = InterestNetwork.load(folder)
        measured = pin_vectors(network, at.features(network.topics))
    published = catalogue(ctx, parts[model], cut).vectors
    np.testing.assert_allclose(published, measured, atol=1e-6)
    assert np.abs(catalogue(ctx, parts[model]).vectors - published).max() > 1e-3


def test_learning_and_measuring_days_do_not_meet(ctx: TrainingContext, pins: Pins) -> None:
    end = run_end(ctx)
    period = read_period(Lake(ctx.lake), pins, end - timedelta(days=2), end, 6)
    cut = (end - timedelta(days=2)).timestamp() * 1000
    assert period.train.times_ms.max() < cut <= period.held_out.times_ms.min()
    assert (period.data.catalogue.created_at_ms[period.candidates] < cut).all()
    with pytest.raises(TooFewEngagements, match="bring more actions"):
        read_period(Lake(ctx.lake), pins, end - timedelta(days=60), end, 6)


def test_a_small_data_set_gets_a_smaller_batch() -> None:
    assert TwoTowerPipeline().fitted_to(1_000_000).training.batch == 6000
    assert TwoTowerPipeline().fitted_to(8_000).training.batch == 500
    assert TwoTowerPipeline().fitted_to(1).training.batch == 1


def test_mlflow_loads_the_versions_by_themselves(ctx: TrainingContext, parts: dict[str, Part]) -> None:
    import mlflow

    mlflow.set_tracking_uri(ctx.mlflow_uri)
    rng = np.random.default_rng(1)
    actions = pd.DataFrame(
        {
            "vector": list(rng.standard_normal((5, 16)).astype(np.float32)),
            "sign": [1, 1, -1, 1, 0],
            "timestamp_ms": [50, 40, 30, 20, 10],
        }
    )
    dcm = mlflow.pyfunc.load_model(f"models:/dcm/{parts['dcm'].version}").predict(actions)
    assert 1 <= len(dcm) <= 3 and dcm["weight"].sum() == pytest.approx(1)
    assert len(dcm["vector"][0]) == 16 and not dcm["topic_id"].any()
    topics = mlflow.pyfunc.load_model(f"models:/conditional/{parts['conditional'].version}").predict(actions)
    assert topics["topic_id"].is_unique and len(topics) > 3
    table = pd.DataFrame(
        {
            "content": [np.ones(64, np.float32)] * 2,
            "topics": [[1, 2], []],
            "performance": [np.zeros(4, np.float32)] * 2,
        }
    )
    vectors = np.asarray(
        mlflow.pyfunc.load_model(f"models:/two_tower/{parts['two_tower'].version}").predict(table)
    )
    assert vectors.shape == (2, 16) and np.abs(vectors[0] - vectors[1]).max() > 0
