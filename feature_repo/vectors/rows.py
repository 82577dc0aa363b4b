"""`PinRows`: the contents of one collection as parallel arrays, checked before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.vectors.index import VectorShapeError

MAX_TOPICS = 64
"""Topics kept per pin for filtering, the first ones; the capacity of the collection's array field."""


@dataclass(frozen=True)
class PinRows:
    """n pins of one space. Topics are a ragged array: pin i has `topic_values[offsets[i]:offsets[i+1]]`."""

    ids: NDArray[np.int64]
    """(n,), distinct, > 0."""
    vectors: NDArray[np.float32]
    """(n, d), finite, C-contiguous."""
    topic_offsets: NDArray[np.int64]
    """(n + 1,)"""
    topic_values: NDArray[np.int64]
    created_at_ms: NDArray[np.int64]
    """(n,), Unix ms UTC."""
    quality: NDArray[np.float64]
    """(n,), finite; what `Filter.min_quality` cuts on."""

    @classmethod
    def of(
        cls,
        ids: ArrayLike,
        vectors: ArrayLike,
        topics: NDArray[np.int64] | Sequence[Sequence[int] | NDArray[np.int64] | None],
        created_at_ms: ArrayLike,
        quality: ArrayLike,
    ) -> PinRows:
        """Checked rows. `topics` is zero-padded (n, t) or one list per pin (None = no topic).

        Raises VectorShapeError naming the column and the first bad pin: lengths that differ, ids that are
        not distinct and positive, NaN or infinity in vectors or quality.
        """
        ids = np.ascontiguousarray(ids, np.int64)
        vectors = np.ascontiguousarray(vectors, np.float32)
        created = np.ascontiguousarray(created_at_ms, np.int64)
        quality = np.ascontiguousarray(quality, np.float64)
        if ids.ndim != 1 or vectors.ndim != 2:
            raise VectorShapeError(f"ids must be (n,) and vectors (n, d); got {ids.shape}, {vectors.shape}")
        for column, length in (
            ("vectors", len(vectors)),
            ("topics", len(topics)),
            ("created_at_ms", len(created)),
            ("quality", len(quality)),
        ):
            if length != len(ids):
                raise VectorShapeError(f"{column} has {length} rows for {len(ids)} pin ids")
        if len(ids) and ids.min() <= 0:
            raise VectorShapeError(f"pin id {ids.min()}: ids start at 1, 0 is padding")
        distinct, counts = np.unique(ids, return_counts=True)
        if len(distinct) != len(ids):
            raise VectorShapeError(
                f"pin {distinct[counts > 1][0]} appears {counts.max()} times; give each once"
            )
        for column, finite in (
            ("vectors", np.isfinite(vectors).all(axis=1)),
            ("quality", np.isfinite(quality)),
        ):
            if not finite.all():
                bad = np.flatnonzero(~finite)
                raise VectorShapeError(
                    f"{column}: {len(bad)} pins hold NaN or infinity, first pin {ids[bad[0]]}; "
                    "drop them before indexing"
                )
        offsets, values = _ragged(topics)
        return cls(ids, vectors, offsets, values, created, quality)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    def topics(self, row: int) -> NDArray[np.int64]:
        """Topic ids of the pin at `row`."""
        return self.topic_values[self.topic_offsets[row] : self.topic_offsets[row + 1]]

    def take(self, rows: NDArray[np.int64]) -> PinRows:
        """The rows at these positions, in this order."""
        counts = np.diff(self.topic_offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        starts = np.repeat(self.topic_offsets[rows] - offsets[:-1], counts)
        values = self.topic_values[np.arange(offsets[-1]) + starts]
        return PinRows(
            self.ids[rows], self.vectors[rows], offsets, values, self.created_at_ms[rows], self.quality[rows]
        )

    def digests(self) -> NDArray[np.int64]:
        """(n,) a 63-bit digest of each row's whole content: equal rows have equal digests on any machine."""
        out = np.empty(len(self), np.int64)
        for i in range(len(self)):
            h = hashlib.blake2b(digest_size=8)
            h.update(self.vectors[i].tobytes())
            h.update(self.topics(i).tobytes())
            h.update(self.created_at_ms[i].tobytes())
            h.update(self.quality[i].tobytes())
            out[i] = int.from_bytes(h.digest(), "little") >> 1
        return out


def concatenate(parts: Sequence[PinRows]) -> PinRows:
    """The rows of `parts` one after another. Needs at least one part."""
    counts = np.concatenate([np.diff(p.topic_offsets) for p in parts])
    return PinRows(
        ids=np.concatenate([p.ids for p in parts]),
        vectors=np.concatenate([p.vectors for p in parts]),
        topic_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        topic_values=np.concatenate([p.topic_values for p in parts]),
        created_at_ms=np.concatenate([p.created_at_ms for p in parts]),
        quality=np.concatenate([p.quality for p in parts]),
    )


def _ragged(
    topics: NDArray[np.int64] | Sequence[Sequence[int] | NDArray[np.int64] | None],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(offsets (n + 1,), values) without padding zeros, at most MAX_TOPICS a pin."""
    if isinstance(topics, np.ndarray) and topics.dtype != object:
        padded = np.asarray(topics, np.int64).reshape(len(topics), -1)[:, :MAX_TOPICS]
        real = padded != 0
        counts, values = real.sum(axis=1), padded[real]
    else:
        lists = [np.empty(0, np.int64) if t is None else np.asarray(t, np.int64).ravel() for t in topics]
        lists = [t[t != 0][:MAX_TOPICS] for t in lists]
        counts = np.array([len(t) for t in lists], np.int64)
        values = np.concatenate(lists) if lists else np.empty(0, np.int64)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), values.astype(np.int64)
