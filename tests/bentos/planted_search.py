"""Search over the planted catalogue: what pins say, and an encoder that knows a few words of each topic."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from bentos.query_vectors import QueryVectors
from tests.bentos.fakes import ABOUT, DIM, PINS, SPACE, TOPICS, FakeFeatures
from training.models.lexical import LexicalIndex, PopularQueries
from validation.manifest import Part, ReleaseManifest

MEANINGS = {"cake": 1, "chocolate": 1, "dessert": 1, "bench": 2, "furniture": 4, "table": 4, "stars": 5}
"""Topic of each word that the encoder knows; no pin says dessert, furniture or stars."""
POPULAR = PopularQueries({"chocolate cake": 9, "garden bench": 5, "carrot cake": 3})


@dataclass
class PlantedEncoder:
    """Words to the directions of their topics, anything else to a direction that no topic has."""

    stands_on: str = SPACE
    dimension: int = DIM
    passes: list[list[str]] = field(default_factory=list)
    gate: threading.Event | None = None
    """Where given, a pass waits for it."""
    broken: bool = False
    unread: tuple[str, ...] = ("xqzvk", "שלום")
    """Words of which queries are not read."""

    def reads(self, query: str) -> bool:
        return not set(query.split()) & set(self.unread)

    def encode(self, queries: list[str]) -> np.ndarray:
        self.passes.append(list(queries))
        if self.gate is not None:
            assert self.gate.wait(10)
        if self.broken:
            raise RuntimeError("the encoder is broken")
        out = np.zeros((len(queries), self.dimension), np.float32)
        for row, query in zip(out, queries, strict=True):
            for word in query.split():
                row[MEANINGS.get(word, TOPICS + 1) - 1] += 1
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def planted_index(features: FakeFeatures) -> LexicalIndex:
    """Titles, descriptions and topics as the planted cards have them."""
    ids = np.arange(1, PINS + 1)
    cards = features.cards(ids)
    said = [f"{c.title} {c.description} Topic {c.topics[0]}" if c else "" for c in map(cards.get, ids.tolist())]
    return LexicalIndex.fit(ids, said)


def search_manifest(base: ReleaseManifest, *, words: bool = True, meaning: bool = True) -> ReleaseManifest:
    """The manifest with the parts of search."""
    parts = dict(base.parts)
    if words:
        parts["lexical"] = Part(model="lexical", version=1)
    if meaning:
        parts["searchsage"] = Part(model="searchsage", version=1, space=SPACE)
    sources = (*base.sources, *(name for name in ("searchsage", "lexical") if name in parts))
    return base.model_copy(update={"parts": parts, "sources": sources})


def search_parts(features: FakeFeatures, base: ReleaseManifest) -> dict[str, object]:
    """What search changes of a planted release."""
    return {
        "manifest": search_manifest(base),
        "lexical": planted_index(features),
        "popular_queries": POPULAR,
        "queries": QueryVectors(PlantedEncoder()),
    }


assert len(ABOUT) == TOPICS + 1
