"""Query vectors of one release: encoded together where requests meet, and kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Protocol

from bentos.features import Floats
from validation.queries import LOGGED_QUERY

REMEMBERED = 10_000
"""Queries whose vectors are kept, of those no longer than impressions log: 10 MB at 256 dimensions."""
TOGETHER = 32
"""Queries encoded in one pass at most, so that nobody waits for a long one."""


class Encoder(Protocol):
    """What `training.models.searchsage.QueryEncoder` is to serving."""

    @property
    def stands_on(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def encode(self, queries: list[str]) -> Floats: ...

    def reads(self, query: str) -> bool: ...


class QueryVectors:
    """Gives vectors of queries. Thread-safe; `of` blocks.

    One thread encodes at a time, for itself and for all who came while the one before it was encoding: alone a
    request waits for nobody, and under load requests share their passes without a timer. Queries asked for
    twice at once are encoded once; the least recently asked for are forgotten.
    """

    def __init__(self, encoder: Encoder, remembered: int = REMEMBERED) -> None:
        self.encoder = encoder
        self._remembered = remembered
        self._kept: OrderedDict[str, Floats] = OrderedDict()
        self._waiting: OrderedDict[str, Future[Floats]] = OrderedDict()
        self._running: dict[str, Future[Floats]] = {}
        self._door, self._turn = threading.Lock(), threading.Lock()

    def of(self, query: str) -> Floats:
        """The vector of a query in normal spelling, (d,) float32. Raises what the encoder raises."""
        with self._door:
            if query in self._kept:
                self._kept.move_to_end(query)
                return self._kept[query]
            asked = self._running.get(query) or self._waiting.get(query)
            if asked is None:
                asked = self._waiting[query] = Future()
        while not asked.done():
            with self._turn:
                if not asked.done():
                    self._encode_waiting()
        return asked.result()

    def _encode_waiting(self) -> None:
        with self._door:
            queries = list(self._waiting)[:TOGETHER]
            self._running = {query: self._waiting.pop(query) for query in queries}
        try:
            vectors = self.encoder.encode(queries)
        except Exception as error:
            # Each of the requests fails open by itself; the next pass starts afresh.
            for asked in self._running.values():
                asked.set_exception(error)
        else:
            self._keep(queries, vectors)
        finally:
            with self._door:
                self._running = {}

    def _keep(self, queries: list[str], vectors: Floats) -> None:
        with self._door:
            for query, vector in zip(queries, vectors, strict=True):
                made = vector.copy()
                if len(query) <= LOGGED_QUERY:
                    self._kept[query] = made
                self._running[query].set_result(made)
            while len(self._kept) > self._remembered:
                self._kept.popitem(last=False)
