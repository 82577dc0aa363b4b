"""CPU of what search, light ranking, walks and ads do in a request, measured before a release is promoted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xgboost

from tests.training.ads.planted import planted_ads
from tests.training.models.ads.test_network import made as ads_network
from tests.training.models.graphs import random_graph
from tests.training.models.test_light_ranking import SPEC
from tests.training.models.test_searchsage import SCRATCH, made
from training.models.ads.config import SHARED
from training.models.ads.model import AdsModel
from training.models.calibration import Calibrator
from training.models.lexical import LexicalIndex
from training.models.light_ranking import LightRanker
from training.models.pixie import PixieSettings, ReleasedPixie
from training.release_latency import latency_metrics
from training.release_parts import LEXICAL, LIGHT, PIXIE, SEARCHSAGE
from validation.gate_bounds import GateBounds
from validation.gates import COMPUTED
from validation.manifest import ADS, Part

ROLES = (LEXICAL, LIGHT, SEARCHSAGE, PIXIE, ADS)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder a part, named after its role."""
    rows = np.random.default_rng(0).random((200, len(SPEC.names)), np.float32)
    settings = {"max_depth": 2, "objective": "binary:logistic"}
    trees = xgboost.train(settings, xgboost.DMatrix(rows, rows[:, 0]), 3)
    LightRanker(SPEC, trees).save(tmp_path / LIGHT)
    LexicalIndex.fit(np.arange(1, 4), ["oak garden bench", "oak table", "lemon cake"]).save(tmp_path / LEXICAL)
    made(SCRATCH).save(tmp_path / SEARCHSAGE)
    ReleasedPixie(PixieSettings(), random_graph()).save(tmp_path / PIXIE)
    network = ads_network(planted_ads(64).rows)
    shared = Calibrator.identity(network.name, network.config.heads)
    AdsModel(network, {SHARED: shared}).save(tmp_path / ADS)
    return tmp_path


def test_each_part_of_a_request_has_a_budget_that_is_measured(files: Path) -> None:
    parts = {role: Part(model=role, version=1) for role in ROLES}
    found = latency_metrics(parts, lambda part: files / part.model)
    assert found.keys() == {*(f"latency/{role}_cpu_ms" for role in ROLES), "latency/runs"}
    assert all(0 < found[f"latency/{role}_cpu_ms"] < GateBounds().max_network_cpu_ms for role in ROLES)
    assert set(ROLES) < set(COMPUTED) and latency_metrics({}, lambda part: files) == {}
