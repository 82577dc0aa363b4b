"""The vector index port: what retrieval may ask of any backend.

Scores are inner products, larger is nearer; on unit vectors that is the cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from validation.tables import PADDING_ID

MAX_K = 16_384
"""Milvus' bound on results per query vector."""

MISSING_SCORE = -np.inf
"""Score beside a padding id: below every real one, so that a careless sort still puts padding last."""


class VectorIndexError(Exception):
    """Any refusal of a vector index; the message names the collection and the mend."""


class CollectionMissing(VectorIndexError):
    """The collection does not exist on this Milvus."""


class VectorShapeError(VectorIndexError, ValueError):
    """Vectors of the wrong dimension, type, count, or with NaN or infinity in them."""


@dataclass(frozen=True)
class Filter:
    """Conditions a hit must meet, all of them. Plain numbers only: nothing a user typed reaches a query."""

    topics: tuple[int, ...] = ()
    """At least one of these topic ids; empty = any pin."""
    min_quality: float | None = None
    created_from_ms: int | None = None
    """Created at or after this instant, Unix ms UTC."""
    created_before_ms: int | None = None
    """Created before this instant, Unix ms UTC."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "topics", tuple(sorted({int(t) for t in self.topics})))
        for name in ("created_from_ms", "created_before_ms"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else int(value))
        if self.min_quality is not None:
            if not np.isfinite(self.min_quality):
                raise ValueError(f"Filter.min_quality is {self.min_quality}; it must be finite")
            object.__setattr__(self, "min_quality", float(self.min_quality))

    def __bool__(self) -> bool:
        return bool(self.topics) or any(
            v is not None for v in (self.min_quality, self.created_from_ms, self.created_before_ms)
        )


@dataclass(frozen=True)
class Hits:
    """Nearest pins of q queries, best first; a row shorter than k ends in padding.

    Raises VectorIndexError for ids below 0 and scores that are no number: no index may answer so.
    """

    ids: NDArray[np.int64]
    """(q, k), 0 = padding."""
    scores: NDArray[np.float32]
    """(q, k), `-inf` beside padding."""

    def __post_init__(self) -> None:
        if (self.ids < 0).any() or np.isnan(self.scores).any():
            raise VectorIndexError(
                "an index answered with ids below 0 or scores that are no number; rebuild it"
            )

    @classmethod
    def empty(cls, queries: int, k: int) -> Hits:
        """All padding."""
        return cls(
            np.full((queries, k), PADDING_ID, np.int64), np.full((queries, k), MISSING_SCORE, np.float32)
        )

    @property
    def counts(self) -> NDArray[np.int64]:
        """(q,) real hits of each query."""
        return np.count_nonzero(self.ids != PADDING_ID, axis=1)


@dataclass(frozen=True)
class Fetched:
    """Stored vectors of the ids asked for, in their order."""

    vectors: NDArray[np.float32]
    """(n, d); zeros where absent."""
    present: NDArray[np.bool_]
    """(n,)"""


@runtime_checkable
class VectorIndex(Protocol):
    """Search over one space's pins. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """The collection, `pins__content__7`."""
        ...

    @property
    def dim(self) -> int: ...

    @property
    def rows(self) -> int:
        """Pins searchable now."""
        ...

    @property
    def exact(self) -> bool:
        """True where every search is brute force."""
        ...

    def search(self, vectors: NDArray[np.float32], k: int, *, flt: Filter | None = None) -> Hits:
        """The k nearest pins of each of `vectors` (q, d) among those that pass `flt`.

        A filtered row holds min(k, pins that pass) hits: an index that comes back short is asked again
        exactly. Raises VectorShapeError for a bad query or k outside 1..MAX_K.
        """
        ...

    def fetch(self, ids: NDArray[np.int64]) -> Fetched:
        """Vectors of `ids` (n,), duplicates and padding allowed."""
        ...


def check_queries(vectors: NDArray[np.float32], k: int, dim: int, name: str) -> NDArray[np.float32]:
    """`vectors` as C-contiguous float32 (q, dim). Raises VectorShapeError naming what is wrong."""
    queries = np.ascontiguousarray(vectors, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise VectorShapeError(
            f"{name}: queries have shape {queries.shape}, the collection holds {dim}-d vectors; "
            "query with vectors of the collection's own space"
        )
    if not np.isfinite(queries).all():
        raise VectorShapeError(f"{name}: a query vector holds NaN or infinity")
    if not 1 <= k <= MAX_K:
        raise VectorShapeError(f"{name}: k is {k}; ask for 1 to {MAX_K}")
    return queries
