"""Which steps a run takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from infra.commands.learning import Tunable
from training.pipelines import ads, content
from training.pipelines.steps import FEATURES, STEPS, Chosen, UnknownStep
from training.retention import MODELS

LAKE: Any = SimpleNamespace(has=lambda table: table != "ads")


def chosen(*wanted: str, force: bool = False) -> tuple[Chosen, list[str]]:
    said: list[str] = []
    return Chosen(wanted, force, LAKE, said.append), said


def test_every_model_is_a_step_by_its_name() -> None:
    """What is said of files at fault can be run: `corkboard train --model NAME --force`."""
    assert set(STEPS) == {FEATURES, *MODELS}, "all that releases are made of"
    assert {tuned.value for tuned in Tunable} <= set(STEPS)


def test_a_step_without_its_tables_is_skipped_and_says_so() -> None:
    steps, said = chosen(content.MODEL, ads.MODEL)
    assert (
        steps.take_or_skip(content.MODEL)
        and not steps.take_or_skip(ads.MODEL)
        and not steps.take_or_skip(FEATURES)
    )
    assert steps.skipped == {ads.MODEL: "the data has no ads"}
    assert said == ["ads_multi_tower: skipped, the data has no ads"]


def test_what_is_wanted_reaches_back_and_is_forced_alone() -> None:
    steps, _ = chosen("pixie", force=True)
    assert steps.reach(content.MODEL) and steps.reach("pixie") and not steps.reach("transact")
    assert steps.forced("pixie") and not steps.forced(content.MODEL)


def test_what_stands_on_a_skipped_space_is_skipped_too() -> None:
    steps, _ = chosen(FEATURES, "pixie", "transact")
    steps.skip_after(content.MODEL, "no space")
    assert steps.skipped == {"pixie": "no space", "transact": "no space"}


def test_a_step_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(UnknownStep, match="unknown step pixy; the steps are features, content, "):
        chosen("pixy", "pixie")
