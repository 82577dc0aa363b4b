"""CPU of what search and light ranking do in a request, measured before a release is promoted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xgboost

from tests.training.models.test_light_ranking import SPEC
from tests.training.models.test_searchsage import SCRATCH, made
from training.models.lexical import LexicalIndex
from training.models.light_ranking import LightRanker
from training.release_latency import latency_metrics
from training.release_parts import LEXICAL, LIGHT, SEARCHSAGE
from validation.gates import COMPUTED, GateBounds
from validation.manifest import Part

ROLES = (LEXICAL, LIGHT, SEARCHSAGE)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder a part, named after its model."""
    rows = np.random.default_rng(0).random((200, len(SPEC.names)), np.float32)
    settings = {"max_depth": 2, "objective": "binary:logistic"}
    trees = xgboost.train(settings, xgboost.DMatrix(rows, rows[:, 0]), 3)
    LightRanker(SPEC, trees).save(tmp_path / LIGHT)
    LexicalIndex.fit(np.arange(1, 4), ["oak garden bench", "oak table", "lemon cake"]).save(tmp_path / LEXICAL)
    made(SCRATCH).save(tmp_path / SEARCHSAGE)
    return tmp_path


def test_each_part_of_search_has_a_budget_that_is_measured(files: Path) -> None:
    parts = {role: Part(model=role, version=1) for role in ROLES}
    found = latency_metrics(parts, lambda part: files / part.model)
    assert found.keys() == {*(f"latency/{role}_cpu_ms" for role in ROLES), "latency/runs"}
    assert all(0 < found[f"latency/{role}_cpu_ms"] < GateBounds().max_network_cpu_ms for role in ROLES)
    assert set(ROLES) < set(COMPUTED) and latency_metrics({}, lambda part: files) == {}
