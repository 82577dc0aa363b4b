"""How fast DCM finds interests, and what several embeddings cost a retrieval, as ratios measured in one run.

    python -m tests.benchmarks.interests                    about a minute
    python -m tests.benchmarks.interests --rounds 3         a quick look

`dcm_vs_mind`: users per CPU second of the forward pass from item vectors to interests (histories of 128 items,
64-d, 8 interests, 3 iterations); both are the repository's own modules under the same settings, interleaved,
process CPU time, best round. `p90_multi_over_single`: p90 wall latency of one retrieval with 7 embeddings over
one with a single embedding at the same total budget, on the same in-process index, requests interleaved.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from feature_repo.vectors.replica import Replica
from feature_repo.vectors.rows import PinRows
from tests.benchmarks.measuring import in_turns
from training.cpu import tune_cpu
from training.models.interests import InterestsConfig, Method, UserEmbeddings, retrieve
from training.models.interests.conditions import Capsules
from training.models.interests.features import PROFILE, Histories

GOALS = {"dcm_vs_mind": 2.5}
SHAPES = ((128, 64, 8), (100, 64, 7), (256, 128, 16))
BUDGET = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=256)
    parser.add_argument("--pins", type=int, default=50_000)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    settings = tune_cpu(threads=1)
    blas, load = os.environ.get("OPENBLAS_CORETYPE", "unset"), ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"torch {torch.__version__}, 1 thread, {settings}; OPENBLAS_CORETYPE {blas}; load {load}\n")
    print("| m, d, K | DCM users/s | MIND users/s | ratio | with backward |\n|---|---|---|---|---|")
    ratios = [routing(args.users, *shape, args.rounds, args.seed) for shape in SHAPES]
    results: dict[str, Any] = {"dcm_vs_mind": ratios[0][0], "dcm_vs_mind_with_backward": ratios[0][1]}
    results |= latency(args.pins, args.requests, args.seed)
    results["goals"] = {
        key: f">= {goal}: {'met' if results[key] >= goal else 'MISSED'}" for key, goal in GOALS.items()
    }
    print(json.dumps(results))


def routing(users: int, m: int, d: int, k: int, rounds: int, seed: int) -> tuple[float, float]:
    """DCM over MIND in users per CPU second: forward, and forward with backward to the items."""
    items = torch.nn.functional.normalize(
        torch.randn(users, m, d, generator=torch.Generator().manual_seed(seed)), dim=2
    )
    base = InterestsConfig(interests=k, dim=d, length=m)
    # no learned map on either side: the same work but for the routing itself
    routing_only = {"shared_map": False}
    made = {}
    for method in (Method.DCM, Method.MIND):
        config = method.config(base)
        config = config.model_copy(update={"routing": config.routing.model_copy(update=routing_only)})
        made[method] = Capsules(config)
    zeros = torch.zeros(users, m)

    def histories(vectors: torch.Tensor) -> Histories:
        return Histories(
            vectors, torch.ones(users, m, dtype=torch.int64), zeros, torch.zeros(users, len(PROFILE)).long()
        )

    def forward(capsules: Capsules) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                return capsules(histories(items))

        return run

    def backward(capsules: Capsules) -> Callable[[], object]:
        def run() -> object:
            leaf = items.clone().requires_grad_()
            capsules(histories(leaf)).vectors.sum().backward()
            return leaf.grad

        return run

    times = _best({m: forward(c) for m, c in made.items()}, rounds)
    both = _best({m: backward(c) for m, c in made.items()}, rounds)
    ratio = times[Method.MIND] / times[Method.DCM]
    ratio_both = both[Method.MIND] / both[Method.DCM]
    dcm, mind = users / times[Method.DCM], users / times[Method.MIND]
    print(f"| {m}, {d}, {k} | {dcm:,.0f} | {mind:,.0f} | {ratio:.2f} | {ratio_both:.2f} |", flush=True)
    return round(ratio, 2), round(ratio_both, 2)


def latency(pins: int, requests: int, seed: int, dim: int = 64, interests: int = 7) -> dict[str, float]:
    """p90 of a retrieval by 7 embeddings over one by a single embedding, equal total budget."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((400, dim)).astype(np.float32)
    vectors = centres[rng.integers(0, 400, pins)] + 0.5 * rng.standard_normal((pins, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    zeros = np.zeros(pins, np.int64)
    rows = PinRows.of(np.arange(1, pins + 1), vectors, zeros[:, None], zeros, zeros.astype(float))
    print(f"\n{pins:,} pins, {dim}-d, {BUDGET} results in all; wall ms a request (published p90: 150 -> 205)")
    out: dict[str, float] = {}
    for kind, graph in (("graph", True), ("brute force", False)):
        index = Replica.of("pins__dcm__1", rows, graph=graph)
        times = _requests(index, vectors, requests, interests, rng)
        ratio = {q: np.percentile(times["multi"], q) / np.percentile(times["single"], q) for q in (50, 90)}
        for name, ms in times.items():
            print(f"{kind:>12} {name:>7}: p50 {np.median(ms):.2f}, p90 {np.percentile(ms, 90):.2f}", flush=True)
        suffix = "" if graph else "_brute_force"
        out[f"p90_multi_over_single{suffix}"] = round(float(ratio[90]), 2)
        out[f"p50_multi_over_single{suffix}"] = round(float(ratio[50]), 2)
    return out


def _requests(
    index: Replica, vectors: np.ndarray, requests: int, interests: int, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Wall ms of each request, single and several embeddings taking turns; ten first are not counted."""
    spent: dict[str, list[float]] = {"single": [], "multi": []}

    def user(k: int) -> UserEmbeddings:
        at = vectors[rng.integers(0, len(vectors), k)]
        weights = rng.dirichlet(np.full(k, 2.0)).astype(np.float32)
        return UserEmbeddings(at, weights, np.zeros(k, np.int64))

    def search(query: np.ndarray, k: int) -> np.ndarray:
        return index.search(query[None], k).ids[0]

    for request in range(requests + 10):
        for name, k in (("single", 1), ("multi", interests)):
            asked = user(k)
            begin = time.perf_counter()
            retrieve(asked, search, BUDGET)
            if request >= 10:
                spent[name].append((time.perf_counter() - begin) * 1000)
    return spent


def _best(sides: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, float]:
    return {name: min(times) for name, times in in_turns(sides, rounds)[0].items()}


if __name__ == "__main__":
    main()
