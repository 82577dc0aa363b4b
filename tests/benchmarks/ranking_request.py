"""A whole ranking request, features ready, and what share of it each stage takes.

    python -m tests.benchmarks.ranking_request               100 requests: half a minute

Some 2,000 candidates of eight sources are scored by the light ranker's trees, the best 500 by TransAct with
a head an action; then the services' own stages calibrate, weigh and spread them into a page of 50. Wall times
are of whole requests, shares of CPU time. `non_model_share` is everything but the trees' prediction and
TransAct's scorer: the light ranker's assembly counts against it. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bentos.candidates import Candidates
from bentos.engines import Engines, LocalRanking, LocalRetrieval
from bentos.features import PinStats, PinTable
from bentos.feed import Feed, Surface
from bentos.heads import Heads
from bentos.pool import Pool
from bentos.ranking_stages import Calibrate, Diversify, Rank, Value
from bentos.stages import Take
from tests.benchmarks import ranking_stages
from tests.benchmarks.ranking_stages import LightStage
from tests.bentos.fakes import planted_release
from training.models.calibration import Calibrator, HeadCalibration, Platt
from training.models.ranker import Candidates as Ranked
from training.models.ranker import Request
from training.models.source_lists import keep
from training.models.transact.network import TransAct
from training.models.transact.serving import Scorer, fitting_scorer
from training.pipelines.light_fitting import LightConfig

GOALS = {"non_model_share": 0.20, "light_over_bare_xgboost": ranking_stages.GOALS["light_over_bare_xgboost"]}
"""At most."""
PAGE = 50
MODELS = ("trees", "TransAct")


@dataclass
class Spent:
    """CPU seconds of each stage, request by request, and wall seconds of the whole."""

    stages: dict[str, list[float]] = field(default_factory=dict)
    whole: list[float] = field(default_factory=list)

    @contextmanager
    def on(self, stage: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        self.stages.setdefault(stage, []).append(time.process_time() - begin)


@dataclass(frozen=True)
class Ranks(LocalRanking):
    """The ranking engine of this process: TransAct on features that are there."""

    scorer: Scorer
    heads: tuple[str, ...]
    request: Request
    candidates: Ranked

    async def rank(self, feed: Feed, deadline_ms: float) -> Heads:
        p = self.scorer.score(self.request, self.candidates)
        return Heads("bench@1", self.heads, feed.candidates.pin_ids, p)


def stages_and_request(
    network: TransAct, request: Request, candidates: Ranked, requests: int = 100
) -> dict[str, Any]:
    """What `measured` says, and `light_over_bare_xgboost` of the light stage alone."""
    found = measured(network, request, candidates, requests)
    alone = ranking_stages.light(LightConfig().rounds, rounds=40)
    found["light_over_bare_xgboost"] = round(alone["light_over_bare_xgboost"], 3)
    for name, goal in GOALS.items():
        print(f"{name} {found[name]:.3f}, goal <= {goal:g}: {'met' if found[name] <= goal else 'MISSED'}")
    return found


def measured(network: TransAct, request: Request, candidates: Ranked, requests: int) -> dict[str, Any]:
    """`non_model_share`, `p50_ms`, `p99_ms` of whole requests, and the share of every stage; prints a table."""
    light = LightStage.of(LightConfig().rounds)
    heads = network.config.actions
    pool = Pool(1)
    ranks = Ranks(pool, fitting_scorer(network, [(request, candidates)]), heads, request, candidates)
    spent = Spent()
    with tempfile.TemporaryDirectory() as folder:
        calibrator = Calibrator(
            ranker="bench@1",
            heads=tuple(HeadCalibration(head=head, curve=Platt(slope=0.9, bias=-0.2)) for head in heads),
        )
        release = planted_release(Path(folder), calibrator=calibrator, ranker_name="bench@1")
        engines = Engines(pool, LocalRetrieval(pool), ranks)
        try:
            asyncio.run(_requests(requests, light, release, candidates, engines, spent))
        finally:
            pool.close()
    return _told(spent)


async def _requests(
    count: int, light: LightStage, release: Any, candidates: Ranked, engines: Engines, spent: Spent
) -> None:
    pins, topics = _pins(candidates)
    for warm in (True, *[False] * count):
        into = Spent() if warm else spent
        feed = Feed(Surface.HOMEFEED, release, now_ms=0, limit=PAGE)
        feed.pins = pins
        begin = time.perf_counter()
        with into.on("light assembly"):
            rows = light.assembled()
        with into.on("trees"):
            scores = light.predicted(rows)
        with into.on("shortlist"):
            kept = keep(scores, len(candidates))
        feed.candidates = Candidates.of("bench", np.arange(1, len(kept) + 1), scores[kept], topics, "topic")
        for stage, name in ((Rank(60_000), "TransAct"), *((s, s.name) for s in (Calibrate(), Value()))):
            with into.on(name):
                await stage.run(feed, engines)
        for stage in (Diversify(), Take()):
            with into.on(stage.name):
                await stage.run(feed, engines)
        into.whole.append(time.perf_counter() - begin)
        if feed.missing or len(feed.candidates) != PAGE:
            raise RuntimeError(f"the request went on without {feed.missing}")


def _pins(candidates: Ranked) -> tuple[PinTable, np.ndarray]:
    """The candidates as the table that filters and diversity read; ids are places from 1."""
    n, rng = len(candidates), np.random.default_rng(0)
    stats = PinStats.absent(n)
    stats.topics[:, 0] = rng.integers(1, 40, n)
    stats.present[:] = True
    return PinTable(np.arange(1, n + 1), stats, candidates.content), stats.topics[:, 0]


def _told(spent: Spent) -> dict[str, Any]:
    means = {name: 1000 * float(np.mean(times)) for name, times in spent.stages.items()}
    total = sum(means.values())
    print("\n| stage of a ranking request | CPU ms | share |\n|---|---|---|")
    for name, ms in means.items():
        print(f"| {name} | {ms:.3f} | {100 * ms / total:.1f} % |")
    p50, p99 = np.percentile(1000 * np.array(spent.whole), [50, 99])
    return {
        "non_model_share": round(1 - sum(means[name] for name in MODELS) / total, 4),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "request_cpu_ms": round(total, 2),
    }


def main() -> None:
    from tests.benchmarks.ranking import world
    from training.cpu import tune_cpu

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=100)
    args = parser.parse_args()
    tune_cpu(threads=1)
    print(json.dumps(stages_and_request(*world(100, 500, 7), args.requests)))


if __name__ == "__main__":
    main()
