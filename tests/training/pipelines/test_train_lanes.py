"""Which rankers of a run are begun."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from training.context import TrainingContext
from training.pipelines.train import RANKERS, _Run
from validation.manifest import Part


class Begun:
    """Lanes in which nothing runs."""

    def start(self, name: str, step: Callable[..., Any], *args: Any, **named: Any) -> str:
        return name


@pytest.mark.parametrize("skipped", RANKERS)
def test_a_ranker_that_was_skipped_is_not_begun(skipped: str, tmp_path: Any) -> None:
    ctx = TrainingContext(
        lake=tmp_path,
        features=tmp_path,
        training_sets=tmp_path,
        feast_home="",
        mlflow_uri="",
        mlflow_artifacts=tmp_path,
        milvus_uri="",
    )
    run = _Run(ctx, RANKERS, False, parts={"content": Part(model="content", version=1)})
    run.skipped[skipped] = "the data has no impressions"
    lanes, rows = Begun(), object()
    begun = run._begin_pinnability(lanes, rows) | run._begin_transact(lanes, rows, None)  # type: ignore[arg-type]
    assert set(begun) == set(RANKERS) - {skipped}
