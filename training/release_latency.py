"""CPU that each part of a release takes of a request, on the machine that releases.

CPU time, not wall time: the machine may be busy with other work. One made-up user with a full history and a
shortlist of candidates, whose values do not matter: every kernel does the same work for any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import HISTORY_LENGTH, PIN_SCALARS, SHOWN_LENGTH, USER_SCALARS
from training.models.interactions import INTERACTION_FEATURES
from training.models.light_ranking import SHORTLIST
from training.models.ranker import Candidates, Past, Ranker, Request, load_ranker
from training.pipelines.retrievers import CONDITIONAL, DCM, PINNERFORMER, TWO_TOWER
from training.release_parts import LEXICAL, LIGHT, PIXIE, RANKER, SEARCHSAGE
from validation.manifest import ADS, Part

Floats = NDArray[np.float32]
Run = Callable[[], object]

ACTIONS, CANDIDATES = 100, SHORTLIST
"""Actions of the user, as many as the online sequence holds, and candidates ranked."""

FETCHED, PRICED, WALKED = 2000, 100, 600
"""Candidates that are ordered before these are chosen, ads that are priced, pins that a walk brings."""

TYPED, MISTYPED, FOUND = 8, 8, 300
"""Words of a query, as many again that are mistyped, and pins found by them."""

NOW_MS = 1_700_000_000_000
_HOUR_MS = 3_600_000
_RUNS = 9


def latency_metrics(parts: Mapping[str, Part], files: Callable[[Part], Path]) -> dict[str, float]:
    """`latency/<role>_cpu_ms` of every part that works in the request: median of `latency/runs` runs, one
    thread."""
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            found = {role: _run(role, files(part)) for role, part in parts.items() if role in _RUNNERS}
            spent = {f"latency/{role}_cpu_ms": cpu_ms(run) for role, run in found.items()}
            return {**spent, "latency/runs": float(_RUNS)} if spent else {}
    finally:
        torch.set_num_threads(threads)


def cpu_ms(run: Run, runs: int = _RUNS) -> float:
    """Median CPU of `run`, ms, all threads of the process counted, once it has warmed up."""
    for _ in range(2):
        run()
    spent = []
    for _ in range(runs):
        before = time.process_time()
        run()
        spent.append(time.process_time() - before)
    return float(np.median(spent)) * 1000


def _run(role: str, files: Path) -> Run:
    return _RUNNERS[role](files)


def _ranker(files: Path) -> Run:
    ranker = load_ranker(files)
    request, candidates = made_up(ranker)
    served = ranker.fitted_to([(request, candidates)])
    return lambda: served.score_heads(request, candidates)


def made_up(ranker: Ranker) -> tuple[Request, Candidates]:
    """A request with a full history, and `CANDIDATES` pins, as the ranker reads them."""
    rng, actions = np.random.default_rng(0), np.arange(ACTIONS)
    request = Request(
        history=_unit(rng, ACTIONS, ranker.content_dim),
        actions=1 + actions % 4,
        surfaces=np.ones(ACTIONS, np.int64),
        times_ms=NOW_MS - (actions + 1) * _HOUR_MS,
        request_ms=NOW_MS,
        user=_unit(rng, 1, ranker.user_dim)[0],
        past=_full_past(rng, ranker.content_dim) if ranker.reads_history else None,
    )
    features = rng.random((CANDIDATES, len(ranker.spec.names)), np.float32)
    return request, Candidates(_unit(rng, CANDIDATES, ranker.content_dim), features)


def _full_past(rng: np.random.Generator, dim: int) -> Past:
    """As much as the feature store keeps, all of it behind the sequence."""
    before = NOW_MS // 1000 * 1000 - (ACTIONS + 1) * _HOUR_MS
    acted, shown = np.arange(HISTORY_LENGTH), np.arange(SHOWN_LENGTH)
    return Past(
        history=_unit(rng, HISTORY_LENGTH, dim),
        actions=1 + acted % 4,
        surfaces=np.ones(HISTORY_LENGTH, np.int64),
        times_ms=before - acted * _HOUR_MS,
        shown=_unit(rng, SHOWN_LENGTH, dim),
        shown_ms=before - shown * _HOUR_MS,
    )


def _pinnerformer(files: Path) -> Run:
    from training.models.pinnerformer import ActionArrays, PinnerFormer, Precision, embed_users

    network = PinnerFormer.load(files)
    rows = np.arange(ACTIONS, dtype=np.int32)
    arrays = ActionArrays(
        pin_rows=rows,
        actions=(1 + rows % 4).astype(np.int8),
        surfaces=np.ones(ACTIONS, np.int8),
        durations_s=np.zeros(ACTIONS, np.float32),
        times_ms=NOW_MS - rows[::-1].astype(np.int64) * _HOUR_MS,
    )
    content = _unit(np.random.default_rng(0), ACTIONS, network.content_dim)
    start, end = np.zeros(1, np.int64), np.array([ACTIONS])
    return lambda: embed_users(network, arrays, start, end, content, precision=Precision.FLOAT32)


def _dcm(files: Path) -> Run:
    from training.models.interests import InterestNetwork, user_embeddings

    network = InterestNetwork.load(files)
    seen = _history(network.config.dim, network.config.length)
    return lambda: user_embeddings(network, seen)


def _conditional(files: Path) -> Run:
    from training.models.interests import InterestNetwork, topic_embeddings

    network = InterestNetwork.load(files)
    seen, topics = _history(network.config.dim, network.config.length), np.array(network.topics[:5], np.int64)
    return lambda: topic_embeddings(network, seen, topics)


def _two_tower(files: Path) -> Run:
    from training.models.two_tower import TwoTower, user_vectors

    network = TwoTower.load(files)
    seen = _history(network.content_dim, network.config.length)
    return lambda: user_vectors(network, seen)


def _pixie(files: Path) -> Run:
    from training.models.pixie import Pixie, Query, ReleasedPixie

    released, seeds = ReleasedPixie.load(files), count()
    graph = released.graph
    last = np.linspace(0, graph.pins - 1, min(ACTIONS, graph.pins)).astype(np.int32)
    pixie, query = Pixie(graph, released.settings.walk), Query.of(graph.ids_of(last))
    return lambda: pixie.recommend(query, WALKED, seed=next(seeds))


def _light(files: Path) -> Run:
    from training.models.light_ranking import LightRanker

    ranker = LightRanker.load(files)
    rows = np.random.default_rng(0).random((FETCHED, len(ranker.spec.names)), np.float32)
    return lambda: ranker.score(rows)


def _searchsage(files: Path) -> Run:
    from training.models.searchsage import QueryEncoder

    encoder = QueryEncoder.load(files)
    query = "pin " * encoder.longest
    return lambda: encoder.encode([query])


def _lexical(files: Path) -> Run:
    from training.models.lexical import LexicalIndex

    index, number = LexicalIndex.load(files), count()
    common = index.commonest(TYPED + MISTYPED)
    query = " ".join([*common[:TYPED], *(word + word[-1] for word in common[TYPED:])])
    return lambda: index.search(f"{query} {next(number)}", FOUND)  # no query is one it remembers


def _ads(files: Path) -> Run:
    from training.models.ads.model import AdsModel
    from training.models.ads.rows import assemble

    model, rng = AdsModel.load(files), np.random.default_rng(0)
    dim, names = model.network.seen.vector_dim, [*model.network.config.sources, "another"]
    topics, sources = np.ones((PRICED, 1), np.int64), np.resize(np.array(names), PRICED)
    rows = assemble(
        user_scalars=rng.random(len(USER_SCALARS), np.float32),
        pin_scalars=rng.random((PRICED, len(PIN_SCALARS)), np.float32),
        interactions=rng.random((PRICED, len(INTERACTION_FEATURES)), np.float32),
        sources=sources,
        user_ids=np.ones(PRICED, np.int64),
        pin_ids=np.arange(1, PRICED + 1),
        pin_topics=topics,
        anchor_topics=topics,
        pin_vectors=_unit(rng, PRICED, dim),
        anchor_vectors=_unit(rng, PRICED, dim),
    )
    return lambda: model.score(rows, sources)


def _history(dim: int, length: int):  # type: ignore[no-untyped-def]  # training.models.interests.Histories
    from training.models.interests import history

    vectors = _unit(np.random.default_rng(0), ACTIONS, dim)
    times = NOW_MS - np.arange(1, ACTIONS + 1) * _HOUR_MS
    return history(vectors, np.ones(ACTIONS, np.int64), times, NOW_MS, length=length)


def _unit(rng: np.random.Generator, rows: int, dim: int) -> Floats:
    vectors = rng.normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


_RUNNERS: dict[str, Callable[[Path], Run]] = {
    RANKER: _ranker,
    PINNERFORMER: _pinnerformer,
    DCM: _dcm,
    CONDITIONAL: _conditional,
    TWO_TOWER: _two_tower,
    LIGHT: _light,
    SEARCHSAGE: _searchsage,
    LEXICAL: _lexical,
    PIXIE: _pixie,
    ADS: _ads,
}
