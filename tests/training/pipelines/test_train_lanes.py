"""Which rankers of a run are begun."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training import planted_releases as planted
from training.pipelines.steps import RANKERS, Chosen
from training.pipelines.train import _Run
from validation.lake import Lake
from validation.manifest import Part


class Begun:
    """Lanes in which nothing runs."""

    def start(self, name: str, step: Callable[..., Any], *args: Any, **named: Any) -> str:
        return name


@pytest.mark.parametrize("skipped", RANKERS)
def test_a_ranker_that_was_skipped_is_not_begun(skipped: str, tmp_path: Path) -> None:
    ctx = planted.context(tmp_path)
    steps = Chosen(RANKERS, False, Lake(tmp_path), ctx.progress, {skipped: "the data has no impressions"})
    run = _Run(ctx, steps, parts={"content": Part(model="content", version=1)})
    lanes, rows = Begun(), object()
    begun = run._begin_pinnability(lanes, rows) | run._begin_transact(lanes, rows, None)  # type: ignore[arg-type]
    assert set(begun) == set(RANKERS) - {skipped}
