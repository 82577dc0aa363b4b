"""What the stages around the heavy ranker cost: light ranking of 2,000 candidates, calibration to diversity
of 500.

    python -m tests.benchmarks.ranking_stages                seconds
    python -m tests.benchmarks.ranking_stages --trees 300    the light ranker's trees

`light_over_bare_xgboost`: CPU time from the sources' lists to the 500 kept, over `inplace_predict` alone on
the rows assembled before; interleaved, one thread, best round. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xgboost

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from tests.benchmarks.measuring import in_turns
from training.models.calibration import Calibrator, HeadCalibration, Platt
from training.models.diversity import diversify
from training.models.light_ranking import LightRanker, LightSpec, topic_match
from training.models.source_lists import SourceList, fetch, keep
from training.models.utility import DEFAULTS, UtilityWeights, utility
from training.pipelines.light_fitting import LightConfig

GOALS = {"light_over_bare_xgboost": 1.3}
SOURCES = ("pinnersage", "pixie", "pinnerformer", "two_tower", "dcm", "boards", "topics", "popular")
NOW_MS = 2 * 10**12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trees", type=int, default=LightConfig().rounds)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    found = light(args.trees, args.rounds) | after_ranking(args.rounds)
    for name, value in found.items():
        goal = f"   goal <= {GOALS[name]}" if name in GOALS else ""
        print(f"{name:<28}{value:10.3f}{goal}")
    print(json.dumps(found))


@dataclass(frozen=True)
class LightStage:
    """Sources' lists of some 2,000 candidates with their features read, and a light ranker for them."""

    lists: list[SourceList]
    features: tuple[Any, ...]
    """Of the candidates and the user, as `LightSpec.assemble` takes them after the fetched lists."""
    ranker: LightRanker

    @classmethod
    def of(cls, trees: int) -> LightStage:
        rng = np.random.default_rng(0)
        lists = [
            SourceList(s, rng.choice(5000, 340, replace=False) + 1, np.sort(rng.random(340, np.float32))[::-1])
            for s in SOURCES
        ]
        spec, n = LightSpec(sources=SOURCES), len(fetch(lists, SOURCES))
        pins = rng.poisson(3, (n, len(PIN_SCALARS))).astype(np.float32)
        created, topics = rng.integers(1, NOW_MS, n), rng.integers(0, 60, (n, 4))
        user = rng.random(len(USER_SCALARS), dtype=np.float32)
        stage = cls(lists, (pins, created, topics, user), LightRanker(spec, xgboost.Booster()))
        rows = stage.assembled()
        many = np.tile(rows, (8, 1)) + rng.normal(size=(8 * n, rows.shape[1])).astype(np.float32) * 0.3
        settings = {"objective": "binary:logistic", "max_depth": LightConfig().depth, "nthread": 1}
        booster = xgboost.train(settings, xgboost.DMatrix(many, rng.random(len(many)) < 0.3), trees)
        return replace(stage, ranker=LightRanker(spec, booster))

    def assembled(self) -> np.ndarray:
        """The ranker's rows, from the sources' lists and what was read of their pins."""
        pins, created, topics, user = self.features
        followed, recent, shares = np.arange(1, 16), np.arange(10, 22), np.full(12, 0.1, np.float32)
        return self.ranker.spec.assemble(
            fetch(self.lists, SOURCES),
            pins,
            created,
            topic_match(topics, followed),
            topic_match(topics, recent, shares),
            user,
            NOW_MS,
        )

    def predicted(self, rows: np.ndarray) -> np.ndarray:
        """The trees alone."""
        return self.ranker.booster.inplace_predict(rows, validate_features=False)


def light(trees: int, rounds: int) -> dict[str, float]:
    """Milliseconds of the whole light stage and of the prediction alone, and their ratio."""
    stage = LightStage.of(trees)
    rows = stage.assembled()
    spent = _best(
        {
            "light_bare_ms": lambda: stage.predicted(rows),
            "light_ms": lambda: keep(stage.ranker.score(stage.assembled()), 500),
        },
        rounds,
    )
    return spent | {
        "light_candidates": len(rows),
        "light_over_bare_xgboost": spent["light_ms"] / spent["light_bare_ms"],
    }


def after_ranking(rounds: int) -> dict[str, float]:
    """Milliseconds of calibration with utility, and of diversity, for 500 candidates and seven heads."""
    rng = np.random.default_rng(0)
    heads = tuple(DEFAULTS)
    calibrator = Calibrator(
        ranker="bench@1",
        heads=tuple(HeadCalibration(head=head, curve=Platt(slope=0.9, bias=-0.2)) for head in heads),
    )
    weights = UtilityWeights(weights=dict(DEFAULTS)).vector(heads)
    p = rng.random((500, len(heads)), dtype=np.float32)
    vectors = rng.normal(size=(500, 256)).astype(np.float32) + 0.3
    topics, boards = rng.integers(0, 40, 500), rng.integers(0, 200, 500)
    score = utility(calibrator.calibrate(p), weights)
    return _best(
        {
            "calibration_utility_ms": lambda: utility(calibrator.calibrate(p), weights),
            "diversity_ms": lambda: diversify(score, vectors, 50, topics=topics, boards=boards),
        },
        rounds,
    )


def _best(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Best CPU milliseconds of each side."""
    spent, _ = in_turns(sides, rounds, time.thread_time)
    return {name: 1000 * min(times) for name, times in spent.items()}


if __name__ == "__main__":
    main()
