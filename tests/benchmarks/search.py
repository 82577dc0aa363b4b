"""Encoding queries, against the same tower in eager float32 torch; and a search request, stage by stage.

    python -m tests.benchmarks.search                     128 queries: a minute
    python -m tests.benchmarks.search --queries 512 --requests 300

Both sides of `encode_vs_eager` are the same weights on one thread, tokenising included, a query at a time, as
requests come when a service is not loaded; `encode_vs_eager_8` and `_32` give both so many queries at once,
eager padded to the longest, ours as `QueryEncoder` has them. Ratios are of CPU seconds, each side's best round;
`encode_p50_ms` is wall time, and wants a quiet machine. A request is that of `search_request.py`, over 20,000
planted pins with this encoder, no query seen twice. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.benchmarks.measuring import in_turns, machine
from tests.benchmarks.search_request import measured
from tests.bentos.fakes import SPACE
from training.cpu import tune_cpu
from training.data.world_wordings import WORDINGS
from training.models.searchsage import QueryEncoder, SearchSageConfig
from training.models.searchsage.network import start
from training.models.searchsage.runtime import installed

Floats = NDArray[np.float32]

TOGETHER = (1, 8, 32)
"""Queries a pass."""
AT_LEAST = {"encode_vs_eager": 3.0, "encode_cosine": 0.999}
AT_MOST = {"encode_p50_ms": 10.0}
ROUNDS = 5
WARM = 5
"""Requests first that are not counted: they compile and fill what later ones find."""


def queries(count: int) -> list[str]:
    """`count` distinct wordings of the demo world's topics, in random order; long for queries."""
    said = [text.strip() for pair in WORDINGS.values() for text in ",".join(pair).split(",")]
    distinct = list(dict.fromkeys(said))
    if count > len(distinct):
        raise SystemExit(f"--queries: there are {len(distinct)}")
    return [distinct[i] for i in np.random.default_rng(0).permutation(len(distinct))[:count]]


def encoders(dimension: int) -> tuple[QueryEncoder, QueryEncoder]:
    """(in eager torch, as served) of the default tower; what it has learned changes no speed."""
    config = SearchSageConfig()
    tower, tokens, origin = start(config, dimension, queries(300), seed=7)
    eager = QueryEncoder(tower, tokens, SPACE, longest=config.max_tokens, origin=origin)
    return eager, eager.exported() if installed() else eager


def padded(encoder: QueryEncoder, asked: Sequence[str]) -> Floats:
    """The tower as it is on one padded batch."""
    ids = encoder.tokens(asked)
    tokens = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, of_query in enumerate(ids):
        tokens[row, : len(of_query)] = torch.tensor(of_query)
        mask[row, : len(of_query)] = 1
    with torch.inference_mode():
        return encoder.tower(tokens, mask).numpy()


def in_passes(encode: Callable[[list[str]], Floats], asked: list[str], together: int) -> Floats:
    return np.concatenate([encode(asked[at : at + together]) for at in range(0, len(asked), together)])


def encoding(eager: QueryEncoder, served: QueryEncoder, asked: list[str]) -> dict[str, float]:
    """Ratios, the least cosine, and wall and CPU milliseconds of a query; prints a table."""
    sides = {
        (name, together): (lambda e=encode, n=together: in_passes(e, asked, n))
        for together in TOGETHER
        for name, encode in (("eager", lambda some: padded(eager, some)), ("served", served.encode))
    }
    spent, made = in_turns(sides, ROUNDS)
    print(
        f"{eager.origin}, {eager.tower.transformer.config.num_hidden_layers} layers, by {served.runtime.name}"
    )
    print("\n| queries at once | eager, ms | served, ms | ratio |\n|---|---|---|---|")
    out: dict[str, float] = {}
    for together in TOGETHER:
        base, ours = (1000 * min(spent[name, together]) / len(asked) for name in ("eager", "served"))
        print(f"| {together} | {base:.3f} | {ours:.3f} | {base / ours:.2f} |")
        out["encode_vs_eager" + (f"_{together}" if together > 1 else "")] = base / ours
    exact = made["eager", 1]
    out["encode_cosine"] = min(float((made["served", n] * exact).sum(1).min()) for n in TOGETHER)
    wall, cpu = _one_by_one(served, asked)
    out["encode_p50_ms"], out["encode_cpu_p50_ms"] = float(np.median(wall)), float(np.median(cpu))
    return out


def _one_by_one(served: QueryEncoder, asked: list[str]) -> tuple[list[float], list[float]]:
    """Wall and CPU milliseconds of every query alone."""
    wall, cpu = [], []
    for query in asked:
        begin = time.perf_counter(), time.process_time()
        served.encode([query])
        wall.append(1000 * (time.perf_counter() - begin[0]))
        cpu.append(1000 * (time.process_time() - begin[1]))
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=128)
    parser.add_argument("--requests", type=int, default=100)
    args = parser.parse_args()
    settings = tune_cpu(threads=1)
    print(machine(settings, f"float32 products {settings.matmul}"))
    eager, served = encoders(64)
    found: dict[str, Any] = encoding(eager, served, queries(args.queries))
    found |= measured(served, args.requests)
    for name, goal in (AT_LEAST | AT_MOST).items():
        met = found[name] >= goal if name in AT_LEAST else found[name] <= goal
        sign = ">=" if name in AT_LEAST else "<="
        print(f"{name} {found[name]:.4g}, goal {sign} {goal:g}: {'met' if met else 'MISSED'}")
    print(json.dumps({name: round(v, 5) if isinstance(v, float) else v for name, v in found.items()}))


if __name__ == "__main__":
    main()
