"""A version's parameters tell whether it was made with the settings that are asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from tests.training.small_networks import SMALL_TRANSACT
from training.models.pinnability import FeatureSpec
from training.pipelines.ranker_features import EVERY
from training.pipelines.registering import Kept
from training.pipelines.transact import _up_to_date
from training.pipelines.transact_card import changed_settings, settings
from training.pipelines.transact_settings import TransActPipeline
from training.transact.fitting import LabelWeights

END = datetime(2026, 2, 1, tzinfo=UTC)
RECORDED = {name: str(value) for name, value in settings(SMALL_TRANSACT, EVERY).items()} | {"rows": "9"}


def changed(**update: object) -> TransActPipeline:
    return SMALL_TRANSACT.model_copy(update=update)


def test_the_settings_that_made_a_version_are_the_same():
    assert changed_settings(RECORDED, SMALL_TRANSACT, EVERY) == ()


@pytest.mark.parametrize(
    ("config", "spec", "names"),
    [
        (SMALL_TRANSACT, EVERY.model_copy(update={"pin": ()}), ("features",)),
        (SMALL_TRANSACT, EVERY.model_copy(update={"serving_position": 3.0}), ("features.serving_position",)),
        (changed(max_reads=5), EVERY, ("max_reads",)),
        (
            changed(label_weights={"save": LabelWeights(base=2)}),
            EVERY,
            (
                "label_weights",
                "label_weights.save.base",
                "label_weights.save.other",
                "label_weights.save.weights",
            ),
        ),
    ],
)
def test_what_differs_is_named(config: TransActPipeline, spec: FeatureSpec, names: tuple[str, ...]):
    assert changed_settings(RECORDED, config, spec) == names
    made = {name: str(value) for name, value in settings(config, spec).items()}
    assert changed_settings(made, SMALL_TRANSACT, EVERY) == names, "either way round"


def test_a_setting_that_was_not_recorded_differs():
    older = {name: value for name, value in RECORDED.items() if name != "pieces"}
    assert changed_settings(older, SMALL_TRANSACT, EVERY) == ("pieces",)


def test_a_warm_start_keeps_a_version_of_the_same_settings_alone():
    """No rows since, and the files of the version are not fetched."""

    def job(config: TransActPipeline) -> SimpleNamespace:
        registry = SimpleNamespace(
            version=lambda *_: SimpleNamespace(tags={"content_space": "content@1"}),
            params=lambda *_: {name: str(v) for name, v in settings(SMALL_TRANSACT, spec).items()},
        )
        return SimpleNamespace(
            ctx=SimpleNamespace(progress=said.append),
            registry=registry,
            config=config,
            kept=Kept(version=4, learned_at=4, learned_until=END),
            split=SimpleNamespace(validation=SimpleNamespace(end=END)),
            content=SimpleNamespace(space="content@1"),
            rows=SimpleNamespace(info=info),
        )

    info = SimpleNamespace(space="content@1", has_position=True, query_features=())
    spec = EVERY.model_copy(update={"query": (), "space": "content@1"})
    said: list[str] = []
    assert _up_to_date(job(SMALL_TRANSACT)) == 4 and said == []
    assert _up_to_date(job(changed(features=FeatureSpec(user=())))) is None
    assert said == ["transact: transact@4 was made with other features"]
