"""A collection copied into this process: a tenth of the server's latency, a hundredth of Milvus Lite's.

Small copies are searched by brute force (exact, nothing to build, about 3 ms a query at `FLAT_FLOATS`),
larger ones by a faiss HNSW graph (0.6 ms there, after a minute of building that `cache` saves the next
process). A filtered answer is never short: up to `BRUTE_ROWS` pins that pass are compared one by one; where
more pass, the graph is over-fetched and an answer that still comes back short is asked again by brute force.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.vectors.collection import MilvusIndex
from feature_repo.vectors.exact import top_k
from feature_repo.vectors.index import Fetched, Filter, Hits, VectorIndexError, check_queries
from feature_repo.vectors.rows import PinRows, concatenate
from validation.file_digests import digests_of

if TYPE_CHECKING:
    import faiss

FLAT_FLOATS = 8_000_000
"""rows x dim up to which brute force serves; above it a graph is built."""

MAX_FLOATS = 256_000_000
"""rows x dim a process takes on by default: 1 GiB of vectors (4M pins of 64-d, 1M of 256-d)."""

BRUTE_ROWS = 20_000
"""Pins passing a filter up to which they are compared one by one without asking the graph."""

META = "replica.json"
"""A kept copy's file that says what it is of, and the digests of the others."""

_NONE = np.empty(0, np.int64)

HNSW_M = 16
HNSW_EF_CONSTRUCTION = 200
MIN_EF = 128


class ReplicaTooLarge(VectorIndexError):
    """The collection is past the stated size of an in-process copy; search Milvus itself."""


class Replica:
    """An immutable in-process `VectorIndex`. Safe to search from several threads."""

    def __init__(self, name: str, rows: PinRows, graph: faiss.IndexHNSWFlat | None) -> None:
        """`rows` by rising id; `graph` over the same rows in the same order, None = brute force."""
        self._name = name
        self._rows = rows
        self._graph = graph
        owners = np.repeat(np.arange(len(rows)), np.diff(rows.topic_offsets))
        order = np.argsort(rows.topic_values, kind="stable")
        topics, owners = rows.topic_values[order], owners[order]
        new = np.ones(len(topics), bool)  # a pin that names a topic twice is in its list once
        new[1:] = (topics[1:] != topics[:-1]) | (owners[1:] != owners[:-1])
        topics, owners = topics[new], owners[new]
        self._topics, starts = np.unique(topics, return_index=True)
        self._postings = np.split(owners, starts[1:])

    @classmethod
    def of(
        cls, name: str, rows: PinRows, *, max_floats: int = MAX_FLOATS, graph: bool | None = None
    ) -> Replica:
        """Index `rows` in memory. `graph`: build HNSW (default: only where brute force would be slower).

        Raises ReplicaTooLarge past `max_floats` = rows x dim.
        """
        _check_size(name, len(rows), rows.dim, max_floats)
        rows = rows.take(np.argsort(rows.ids))
        if graph is None:
            graph = len(rows) * rows.dim > FLAT_FLOATS
        return cls(name, rows, _build(rows) if graph else None)

    @property
    def name(self) -> str:
        return self._name

    @property
    def dim(self) -> int:
        return self._rows.dim

    @property
    def rows(self) -> int:
        return len(self._rows)

    @property
    def exact(self) -> bool:
        return self._graph is None

    def search(self, vectors: NDArray[np.float32], k: int, *, flt: Filter | None = None) -> Hits:
        """See `VectorIndex.search`."""
        queries = check_queries(vectors, k, self.dim, self._name)
        if not flt:
            if self._graph is None:
                return top_k(queries, self._rows.vectors, self._rows.ids, k)
            return self._repaired(self._walk(queries, k, k), queries, k, None)
        passing = self._passing(flt)
        if self._graph is None or len(passing) <= BRUTE_ROWS:
            return self._brute(queries, k, passing)
        fetch = min(self.rows, int(1.5 * k * self.rows / len(passing)) + 16)
        return self._repaired(self._walk(queries, k, fetch, passing), queries, k, passing)

    def fetch(self, ids: NDArray[np.int64]) -> Fetched:
        """See `VectorIndex.fetch`."""
        wanted = np.asarray(ids, np.int64)
        if self.rows == 0:
            return Fetched(np.zeros((len(wanted), self.dim), np.float32), np.zeros(len(wanted), bool))
        at = np.minimum(np.searchsorted(self._rows.ids, wanted), self.rows - 1)
        present = self._rows.ids[at] == wanted
        vectors = self._rows.vectors[at]
        if not present.all():
            vectors[~present] = 0
        return Fetched(vectors, present)

    def _passing(self, flt: Filter) -> NDArray[np.int64]:
        """Row positions that pass, rising."""
        if flt.topics:
            at = np.searchsorted(self._topics, flt.topics)
            lists = [
                self._postings[i]
                for i, topic in zip(at, flt.topics, strict=True)
                if i < len(self._topics) and self._topics[i] == topic
            ]
            passing = lists[0] if len(lists) == 1 else np.unique(np.concatenate([_NONE, *lists]))
        else:
            passing = np.arange(self.rows)
        if flt.min_quality is not None:
            passing = passing[self._rows.quality[passing] >= flt.min_quality]
        if flt.created_from_ms is not None:
            passing = passing[self._rows.created_at_ms[passing] >= flt.created_from_ms]
        if flt.created_before_ms is not None:
            passing = passing[self._rows.created_at_ms[passing] < flt.created_before_ms]
        return passing

    def _brute(self, queries: NDArray[np.float32], k: int, passing: NDArray[np.int64] | None) -> Hits:
        if passing is None:
            return top_k(queries, self._rows.vectors, self._rows.ids, k)
        return top_k(queries, self._rows.vectors[passing], self._rows.ids[passing], k)

    def _walk(
        self, queries: NDArray[np.float32], k: int, fetch: int, passing: NDArray[np.int64] | None = None
    ) -> Hits:
        """Up to k hits a query out of the graph's `fetch` nearest, kept in their order."""
        import faiss

        assert self._graph is not None
        fetch = min(fetch, self.rows)
        params = faiss.SearchParametersHNSW(efSearch=max(MIN_EF, fetch + fetch // 2))
        scores, places = self._graph.search(queries, fetch, params=params)
        keep = places >= 0
        if passing is not None:
            allowed = np.zeros(self.rows, bool)
            allowed[passing] = True
            keep &= allowed[places]
        hits = Hits.empty(len(queries), k)
        for q in range(len(queries)):
            kept = np.flatnonzero(keep[q])[:k]
            hits.ids[q, : len(kept)] = self._rows.ids[places[q, kept]]
            hits.scores[q, : len(kept)] = scores[q, kept]
        return hits

    def _repaired(
        self, hits: Hits, queries: NDArray[np.float32], k: int, passing: NDArray[np.int64] | None
    ) -> Hits:
        """`hits` with every short row asked again by brute force."""
        expected = min(k, self.rows if passing is None else len(passing))
        short = np.flatnonzero(hits.counts < expected)
        if len(short):
            again = self._brute(queries[short], k, passing)
            hits.ids[short], hits.scores[short] = again.ids, again.scores
        return hits


def from_milvus(index: MilvusIndex, *, max_floats: int = MAX_FLOATS, cache: Path | None = None) -> Replica:
    """Copy a Milvus collection into this process.

    With `cache` (a folder), the copy is kept there under the collection's name and read back next time if the
    collection still holds the same rows: no vectors travel, no graph is built. Raises ReplicaTooLarge.
    """
    _check_size(index.name, index.rows, index.dim, max_floats)
    folder = None if cache is None else cache / index.name
    if folder is not None and folder.exists():
        kept = _load(folder, index.name, _content(*index.digests()))
        if kept is not None:
            return kept
    pages = list(index.scan())
    rows = concatenate(pages) if pages else PinRows.of([], np.empty((0, index.dim), np.float32), [], [], [])
    replica = Replica.of(index.name, rows, max_floats=max_floats)
    if folder is not None:
        _save(replica, folder, _content(rows.ids, rows.digests()))
    return replica


def _check_size(name: str, rows: int, dim: int, max_floats: int) -> None:
    if rows * dim > max_floats:
        raise ReplicaTooLarge(
            f"{name}: {rows} rows x {dim} = {rows * dim:,} floats, a replica holds up to {max_floats:,}; "
            "search the Milvus collection itself"
        )


def _build(rows: PinRows) -> faiss.IndexHNSWFlat:
    import faiss

    graph = faiss.IndexHNSWFlat(rows.dim, HNSW_M, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = HNSW_EF_CONSTRUCTION
    graph.add(rows.vectors)
    return graph


def _content(ids: NDArray[np.int64], digests: NDArray[np.int64]) -> str:
    """Digest of a whole collection, from its rows' digests by rising id."""
    order = np.argsort(ids)
    h = hashlib.blake2b(digest_size=16)
    h.update(ids[order].tobytes())
    h.update(digests[order].tobytes())
    return h.hexdigest()


def _save(replica: Replica, folder: Path, content: str) -> None:
    """Write the copy beside its final name, then move it there, so that a reader sees all of it or none."""
    import faiss

    staged = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    rows = replica._rows
    np.savez(
        staged / "rows.npz",
        ids=rows.ids,
        vectors=rows.vectors,
        topic_offsets=rows.topic_offsets,
        topic_values=rows.topic_values,
        created_at_ms=rows.created_at_ms,
        quality=rows.quality,
    )
    if replica._graph is not None:
        faiss.write_index(replica._graph, str(staged / "graph.faiss"))
    meta = {
        "collection": replica.name,
        "content": content,
        "graph": replica._graph is not None,
        "files": digests_of(staged),
    }
    (staged / META).write_text(json.dumps(meta))
    shutil.rmtree(folder, ignore_errors=True)
    try:
        staged.rename(folder)
    except OSError:
        # Another process of the same release put its copy there first; both hold the same rows.
        shutil.rmtree(staged, ignore_errors=True)


def _load(folder: Path, name: str, content: str) -> Replica | None:
    """The kept copy, or None where there is none, its files are damaged or the collection has changed since."""
    import faiss

    try:
        meta, found = json.loads((folder / META).read_text()), digests_of(folder)
        found.pop(META, None)
        if (meta.get("collection"), meta.get("content"), meta.get("files")) != (name, content, found):
            return None
        with np.load(folder / "rows.npz", allow_pickle=False) as kept:
            rows = PinRows(**{field: kept[field] for field in kept.files})
        graph = faiss.read_index(str(folder / "graph.faiss")) if meta["graph"] else None
    except (OSError, ValueError, RuntimeError):  # there is none, or another process is putting its own there
        return None
    return Replica(name, rows, graph)
