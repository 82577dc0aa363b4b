"""A space's pins put into Milvus and proved there: create, upsert, flush, re-open, verify.

`build` may be stopped at any point and called again: each stored row carries a digest of its content, so a
second run writes only what is missing or different, and removes what no longer belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from feature_repo.vectors.collection import MilvusIndex
from feature_repo.vectors.exact import recall, top_k
from feature_repo.vectors.index import Filter, VectorIndex, VectorIndexError
from feature_repo.vectors.milvus import Milvus, connect
from feature_repo.vectors.rows import PinRows, concatenate
from validation.manifest import CollectionCheck, Space

HELD_QUERIES = 200
CHECK_K = 100
CHECKED_TOPICS = 20
EXACT_SHARE = 0.2
"""Of the queries and topics that measure a graph, what a brute-force index is asked: it misses no hits, it can
only have lost rows, and Milvus Lite takes seconds of CPU for them all."""
_SEED = 20_200_707

Progress = Callable[[str], None]


class CollectionBroken(VectorIndexError):
    """After re-opening, the collection does not hold what was written."""


def build(
    milvus_uri: str,
    space: str,
    pin_ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    topics: NDArray[np.int64] | Sequence[Sequence[int] | NDArray[np.int64] | None],
    created_at_ms: NDArray[np.int64],
    quality: NDArray[np.float64],
    progress: Progress = lambda _: None,
) -> CollectionCheck:
    """Make the collection of `space` (`content@7`) hold exactly these pins, then measure it re-opened.

    `pin_ids` (n,), `vectors` (n, d), `topics` zero-padded (n, t) or one list per pin, `created_at_ms` (n,)
    Unix ms, `quality` (n,) what `Filter.min_quality` cuts on. Pins whose vector is all zeros have nothing to
    be found by and are left out; `rows` of the answer counts those indexed.

    Raises VectorShapeError for bad rows before anything is written, VectorIndexError if the space exists with
    another dimension, CollectionBroken if the re-opened collection does not hold what was written.
    """
    rows = PinRows.of(pin_ids, vectors, topics, created_at_ms, quality)
    blank = ~rows.vectors.any(axis=1)
    if blank.any():
        progress(f"{space}: {blank.sum()} pins without content have no vector and are not indexed")
        rows = rows.take(np.flatnonzero(~blank))
    name = Space.parse(space).collection
    milvus = connect(milvus_uri)
    try:
        index = milvus.create(name, rows.dim)
        if _write(milvus, index, rows, lambda line: progress(f"{name}: {line}")):
            progress(f"{name}: re-opening")
            index = milvus.reopen(name)
        else:
            index = milvus.open(name, consistency="Strong")
        check = verify(index, rows, space)
    finally:
        milvus.close()
    progress(
        f"{name}: {check.rows} pins, recall@{CHECK_K} {check.recall_at_100:.3f}, "
        f"filtered fill {check.filtered_fill:.3f}, filtered recall {check.filtered_recall_at_100:.3f}"
    )
    return check


def read(milvus_uri: str, space: str) -> PinRows:
    """Everything the collection of `space` holds, by rising pin id. Raises CollectionMissing."""
    milvus = connect(milvus_uri)
    try:
        index = milvus.open(Space.parse(space).collection, consistency="Strong")
        return concatenate([_no_rows(index.dim), *index.scan()])
    finally:
        milvus.close()


def check(milvus_uri: str, space: str, rows: PinRows) -> CollectionCheck:
    """Measure the collection of `space` as it stands, which should hold `rows`; `verify` says what is measured.

    Raises CollectionMissing, CollectionBroken.
    """
    milvus = connect(milvus_uri)
    try:
        return verify(milvus.open(Space.parse(space).collection, consistency="Strong"), rows, space)
    finally:
        milvus.close()


def verify(index: VectorIndex, rows: PinRows, space: str) -> CollectionCheck:
    """Measure `index` against the `rows` it should hold.

    Queries are held pins' own vectors, as the retrieval sources use (medoids are pins). Recall counts a hit
    by its score, so that pins sharing one vector stand for one another. Filters are single topics, half of
    them drawn among the rarest, where graph indexes fail. Raises CollectionBroken for a wrong row count.
    """
    stored = index.rows
    if stored != len(rows):
        raise CollectionBroken(
            f"{index.name} holds {stored} rows after re-opening, {len(rows)} were written; "
            "run the build again (it writes what is missing), or drop the collection first"
        )
    rng = np.random.default_rng(_SEED)
    share = EXACT_SHARE if index.exact else 1.0
    held = rng.choice(len(rows), min(int(HELD_QUERIES * share), len(rows)), replace=False)
    queries = rows.vectors[held]
    found = index.search(queries, CHECK_K)
    plain = recall(found, top_k(queries, rows.vectors, rows.ids, CHECK_K))
    fill, filtered = _filtered(index, rows, queries[: HELD_QUERIES // 10], int(CHECKED_TOPICS * share), rng)
    return CollectionCheck(
        collection=index.name,
        space=space,
        dim=rows.dim,
        rows=stored,
        recall_at_100=float(plain.mean()) if len(plain) else 1.0,
        filtered_fill=fill,
        filtered_recall_at_100=filtered,
    )


def _write(milvus: Milvus, index: MilvusIndex, rows: PinRows, progress: Progress) -> bool:
    """Bring the collection to `rows`; False if it already was."""
    strong = milvus.open(index.name, consistency="Strong")
    stored_ids, stored_digests = strong.digests()
    order = np.argsort(rows.ids)
    rows = rows.take(order)
    at = np.searchsorted(stored_ids, rows.ids)
    same = np.zeros(len(rows), bool)
    if len(stored_ids):
        at = np.minimum(at, len(stored_ids) - 1)
        same = (stored_ids[at] == rows.ids) & (stored_digests[at] == rows.digests())
    gone = np.setdiff1d(stored_ids, rows.ids, assume_unique=True)
    missing = np.flatnonzero(~same)
    if len(missing) == 0 and len(gone) == 0:
        progress(f"already holds these {len(rows)} pins")
        return False
    if len(gone):
        progress(f"removing {len(gone)} pins")
        index.delete(gone)
    index.upsert(rows.take(missing), _by_tenths(len(missing), progress))
    progress("flushing")
    index.flush()
    milvus.wait_indexed(index.name)
    return True


def _no_rows(dim: int) -> PinRows:
    return PinRows.of([], np.empty((0, dim), np.float32), [], [], [])


def _by_tenths(total: int, progress: Progress) -> Callable[[int], None]:
    """A counter that speaks each time another tenth of `total` is done."""
    said = 0

    def count(done: int) -> None:
        nonlocal said
        if done * 10 // total > said:
            said = done * 10 // total
            progress(f"{done}/{total} pins written")

    return count


def _filtered(
    index: VectorIndex, rows: PinRows, queries: NDArray[np.float32], count: int, rng: np.random.Generator
) -> tuple[float, float]:
    """(fill, recall) of searches filtered by `count` topics; (1, 1) where no pin has a topic."""
    topics, counts = np.unique(rows.topic_values, return_counts=True)
    if len(topics) == 0 or len(queries) == 0:
        return 1.0, 1.0
    rarest = topics[np.argsort(counts, kind="stable")][: count // 2]
    drawn = rng.choice(topics, min(count - len(rarest), len(topics)), replace=False)
    owners = np.repeat(np.arange(len(rows)), np.diff(rows.topic_offsets))
    returned = expected = 0
    recalls = []
    for topic in np.union1d(rarest, drawn):
        of_topic = np.unique(owners[rows.topic_values == topic])
        exact = top_k(queries, rows.vectors[of_topic], rows.ids[of_topic], CHECK_K)
        found = index.search(queries, CHECK_K, flt=Filter(topics=(int(topic),)))
        returned += int(np.minimum(found.counts, exact.counts).sum())
        expected += int(exact.counts.sum())
        recalls.append(recall(found, exact))
    return returned / expected, float(np.concatenate(recalls).mean())
