"""A whole search request, features in memory, and what share of it each stage takes.

    python -m tests.benchmarks.search_request                20,000 pins, 200 queries: half a minute
    python -m tests.benchmarks.search_request --pins 200000

The services' own funnel answers queries of two to four words, each for the first time, one in ten with a slip:
encoder, vector index, BM25, merge, filters, TransAct with a head an action on 200 results, calibration,
utility, diversity. Texts have words by Zipf's law and vectors point anywhere, so no topic filter cuts. Times
are wall times of one request after the other, shares those of the answers' own stages. `cached_p50_ms` is of
the same queries asked again; `short` counts answers that a deadline left something out of. The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bentos import ranking_features
from bentos.engines import Engines, LocalRetrieval
from bentos.features import Card, PinStats
from bentos.feed import Feed
from bentos.feed_service import FeedService
from bentos.heads import Heads
from bentos.impressions import Impressions, ServedPins
from bentos.messages import FeedAnswer, SearchRequest
from bentos.pool import Pool
from bentos.query_vectors import Encoder, QueryVectors
from feature_repo.schema import PIN_SCALARS, PIN_TOPICS
from feature_repo.vectors.replica import Replica
from feature_repo.vectors.rows import PinRows
from tests.benchmarks import ranking_request
from tests.bentos.fakes import COOK, NOW_MS, FakeFeatures, manifest, planted_release
from training.models.calibration import Calibrator, HeadCalibration, Platt
from training.models.lexical import LexicalIndex
from training.models.query_features import QUERY_FEATURES
from training.models.ranker import Candidates
from training.models.transact.network import TransAct
from training.models.transact.serving import fitting_scorer
from validation.manifest import CollectionCheck, Part

RANKED = 200
"""Results that are ranked, as the funnel cuts them."""
PAGE = 50
WARM = 20
"""Queries asked first and not counted."""
WORDS, TOPICS = 5_000, 40


@dataclass(frozen=True)
class Catalogue:
    """Planted pins: what they say, and where they lie."""

    texts: list[str]
    vectors: np.ndarray  # (n, d) float32 unit rows

    @classmethod
    def of(cls, pins: int, dimension: int, seed: int = 7) -> Catalogue:
        rng = np.random.default_rng(seed)
        zipf = 1 / np.arange(1, WORDS + 1)
        drawn = rng.choice(WORDS, (pins, 14), p=zipf / zipf.sum())
        vectors = rng.standard_normal((pins, dimension)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return cls([" ".join(word(place) for place in row) for row in drawn.tolist()], vectors)

    def queries(self, count: int, seed: int = 8) -> list[str]:
        """Distinct queries of two to four words that some pin says, every tenth with two letters swapped."""
        rng = np.random.default_rng(seed)
        made: dict[str, None] = {}
        while len(made) < count:
            said = self.texts[rng.integers(len(self.texts))].split()
            chosen = rng.choice(said, rng.integers(2, 5)).tolist()
            if len(made) % 10 == 0:
                chosen[0] = chosen[0][:2] + chosen[0][3] + chosen[0][2] + chosen[0][4:]
            made[" ".join(chosen)] = None
        return list(made)


def word(place: int) -> str:
    """The `place`-th word: seven letters that look like one."""
    consonants, vowels = "bcdfghklmnprtvz", "aeiou"
    letters = [place % 15, place // 15 % 5, place // 75 % 15, place // 1125 % 5, (place * 7) % 15]
    return "".join((consonants if i % 2 == 0 else vowels)[at] for i, at in enumerate(letters)) + "en"


@dataclass
class PlantedFeatures(FakeFeatures):
    """A store of any number of pins, in memory."""

    def pins(self, ids: np.ndarray) -> PinStats:
        topics = np.zeros((len(ids), PIN_TOPICS), np.int64)
        topics[:, 0] = ids % TOPICS + 1
        scalars = np.ones((len(ids), len(PIN_SCALARS)), np.float32)
        return PinStats(scalars, np.full(len(ids), NOW_MS - 86_400_000), topics, np.ones(len(ids), bool))

    def cards(self, ids: np.ndarray) -> dict[int, Card]:
        return {i: Card(i, f"Pin {i}") for i in ids.tolist()}


class Ranks(ranking_request.Ranks):
    """TransAct on a history that is there, and on what the query says of as many pins as there are."""

    async def rank(self, feed: Feed, deadline_ms: float) -> Heads:
        n = len(feed.candidates)
        features = self.candidates.features[:n].copy()
        features[:, -len(QUERY_FEATURES) :] = ranking_features.asked(feed)
        p = self.scorer.score(self.request, Candidates(self.candidates.content[:n], features))
        return Heads("bench@1", self.heads, feed.candidates.pin_ids, p, reads_query=True)


@contextmanager
def searching(encoder: Encoder, catalogue: Catalogue) -> Iterator[FeedService]:
    """A service that searches the catalogue with `encoder`, and ranks with TransAct on one thread."""
    from tests.benchmarks.ranking import world

    network, request, candidates = world(100, RANKED, 7)
    network: TransAct
    heads = network.config.actions
    pool = Pool(4)
    ranks = Ranks(pool, fitting_scorer(network, [(request, candidates)]), heads, request, candidates)
    curves = tuple(HeadCalibration(head=head, curve=Platt(slope=0.9, bias=-0.2)) for head in heads)
    with tempfile.TemporaryDirectory() as folder:
        release = replace(
            planted_release(Path(folder)),
            manifest=_manifest(encoder, len(catalogue.texts)),
            features=PlantedFeatures(catalogue.vectors),
            indexes={encoder.stands_on: _index(catalogue)},
            space=encoder.stands_on,
            pin_space=encoder.stands_on,
            lexical=LexicalIndex.fit(np.arange(1, len(catalogue.texts) + 1), catalogue.texts),
            queries=QueryVectors(encoder),
            calibrator=Calibrator(ranker="bench@1", heads=curves),
        )
        engines = Engines(pool, LocalRetrieval(pool), ranks)
        try:
            yield FeedService(
                lambda: release, engines, Impressions(None, ServedPins()), clock_ms=lambda: NOW_MS
            )
        finally:
            pool.close()


def measured(encoder: Encoder, requests: int = 200, pins: int = 20_000) -> dict[str, Any]:
    """`request_p50_ms`, `request_p99_ms` of whole requests on queries never asked before, their mean
    `request_cpu_ms`, `cached_p50_ms` of the same again, `short` answers, and the share of every stage.

    `encoder` may map into any space of any dimension: the catalogue is planted in it.
    """
    catalogue = Catalogue.of(pins, encoder.dimension)
    queries = catalogue.queries(requests + WARM)
    with searching(encoder, catalogue) as service:
        encoder.encode(queries[:WARM])
        _ask(service, queries[:WARM])
        begin = time.process_time()
        times, answers = _ask(service, queries[WARM:])
        cpu = 1000 * (time.process_time() - begin) / requests
        again, _ = _ask(service, queries[WARM:])
    shares = shares_of(answers)
    _told(shares)
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "request_p50_ms": round(float(p50), 2),
        "request_p99_ms": round(float(p99), 2),
        "request_cpu_ms": round(cpu, 2),
        "cached_p50_ms": round(float(np.median(again)), 2),
        "short": sum(bool(answer.missing) for answer in answers),
        "pins": pins,
        "shares": {name: round(share, 4) for name, (_, share) in shares.items()},
    }


def _ask(service: FeedService, queries: Sequence[str]) -> tuple[list[float], list[FeedAnswer]]:
    """Wall ms of each query, one after the other, and the answers."""

    async def all_of_them() -> tuple[list[float], list[FeedAnswer]]:
        times, answers = [], []
        for query in queries:
            begin = time.perf_counter()
            answers.append(await service.search(SearchRequest(query=query, user_id=COOK, limit=PAGE)))
            times.append(1000 * (time.perf_counter() - begin))
        return times, answers

    return asyncio.run(all_of_them())


def shares_of(answers: Sequence[FeedAnswer]) -> dict[str, tuple[float, float]]:
    """(mean ms, share of the whole) by stage; `retrieve` is its sources and what the pool adds."""
    whole = float(np.mean([answer.ms for answer in answers]))
    spent: dict[str, list[float]] = {}
    for answer in answers:
        for report in (*answer.stages, *answer.sources):
            spent.setdefault(report.name, []).append(report.ms)
    return {name: (float(np.mean(ms)), float(np.mean(ms)) / whole) for name, ms in spent.items()}


def _told(shares: dict[str, tuple[float, float]]) -> None:
    print("\n| stage of a search request | ms | share |\n|---|---|---|")
    for name, (ms, share) in shares.items():
        print(f"| {name} | {ms:.3f} | {100 * share:.1f} % |")


def _index(catalogue: Catalogue) -> Replica:
    n = len(catalogue.texts)
    topics = [[place % TOPICS + 1] for place in range(1, n + 1)]
    rows = PinRows.of(np.arange(1, n + 1), catalogue.vectors, topics, np.full(n, NOW_MS), np.ones(n))
    return Replica.of("pins__bench", rows)


def _manifest(encoder: Encoder, pins: int) -> Any:
    check = CollectionCheck(
        collection="pins__bench",
        space=encoder.stands_on,
        dim=encoder.dimension,
        rows=pins,
        recall_at_100=1.0,
        filtered_fill=1.0,
    )
    parts = {"searchsage": Part(model="searchsage", version=1, space=encoder.stands_on)}
    parts["lexical"] = Part(model="lexical", version=1)
    return manifest(parts=parts, collections=(check,), sources=("searchsage", "lexical"))


def default_encoder() -> Encoder:
    """The tower that training would start from here: the packaged transformer where it is installed."""
    from training.models.searchsage import QueryEncoder, SearchSageConfig
    from training.models.searchsage.network import start

    config = SearchSageConfig()
    texts = Catalogue.of(2_000, 8).texts
    tower, tokens, origin = start(config, 64, texts, seed=7)
    return QueryEncoder(tower, tokens, "content@1", longest=config.max_tokens, origin=origin)


def main() -> None:
    from training.cpu import tune_cpu

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--pins", type=int, default=20_000)
    args = parser.parse_args()
    tune_cpu(threads=1)
    encoder = default_encoder()
    print(f"queries are read by {encoder.origin}")
    print(json.dumps(measured(encoder, args.requests, args.pins)))


if __name__ == "__main__":
    main()
