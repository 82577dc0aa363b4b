"""What every vector index promises: Milvus Lite, the real server, and the replica in both its forms."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from feature_repo.vectors.exact import recall, top_k
from feature_repo.vectors.index import Filter, Hits, VectorIndex, VectorShapeError
from feature_repo.vectors.rows import PinRows
from tests.feature_repo.vectors.conftest import COMMON_TOPIC, CONTRACT_COLLECTION, RARE_TOPIC, Backend

pytestmark = pytest.mark.slow

K = 50


@pytest.fixture(scope="module")
def queries(pins: PinRows) -> NDArray[np.float32]:
    """Twenty unit vectors near the pins, none of them a pin's own."""
    rng = np.random.default_rng(3)
    near = pins.vectors[rng.choice(len(pins), 20)] + 0.1 * rng.normal(size=(20, pins.dim))
    return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)


def oracle(pins: PinRows, queries: NDArray[np.float32], k: int, flt: Filter | None = None) -> Hits:
    """The filter read row by row, then brute force."""
    keep = [
        row
        for row in range(len(pins))
        if flt is None
        or (
            (not flt.topics or set(flt.topics) & set(pins.topics(row).tolist()))
            and (flt.min_quality is None or pins.quality[row] >= flt.min_quality)
            and (flt.created_from_ms is None or pins.created_at_ms[row] >= flt.created_from_ms)
            and (flt.created_before_ms is None or pins.created_at_ms[row] < flt.created_before_ms)
        )
    ]
    return top_k(queries, pins.vectors[keep], pins.ids[keep], k)


def test_is_a_vector_index(backend: Backend, pins: PinRows) -> None:
    assert isinstance(backend.index, VectorIndex)
    assert backend.index.name == CONTRACT_COLLECTION
    assert (backend.index.dim, backend.index.rows) == (pins.dim, len(pins))


def test_finds_the_nearest_in_order(backend: Backend, pins: PinRows, queries: NDArray[np.float32]) -> None:
    found = backend.index.search(queries, K)
    assert found.ids.dtype == np.int64 and found.scores.dtype == np.float32
    assert found.ids.shape == found.scores.shape == (len(queries), K)
    assert (np.diff(found.scores, axis=1) <= 0).all(), "best first"
    assert recall(found, oracle(pins, queries, K)).mean() >= 0.95
    for row in found.ids:
        assert len(set(row.tolist())) == K, "no pin twice"


def test_scores_are_inner_products(backend: Backend, pins: PinRows, queries: NDArray[np.float32]) -> None:
    found = backend.index.search(queries * 3, 5)
    at = {int(i): row for row, i in enumerate(pins.ids)}
    rows = np.array([[at[int(i)] for i in line] for line in found.ids])
    expected = np.einsum("qd,qkd->qk", queries * 3, pins.vectors[rows])
    np.testing.assert_allclose(found.scores, expected, atol=1e-4)


@pytest.mark.parametrize(
    "flt",
    [
        Filter(topics=(RARE_TOPIC,)),
        Filter(topics=(4,)),
        Filter(topics=(COMMON_TOPIC,)),
        Filter(topics=(4, 9, RARE_TOPIC)),
        Filter(min_quality=0.5),
        Filter(min_quality=0.995),
        Filter(created_from_ms=1_700_005_000_000_000),
        Filter(created_before_ms=1_700_000_050_000_000),
        Filter(
            topics=(COMMON_TOPIC,),
            min_quality=0.3,
            created_from_ms=1_700_002_000_000,
            created_before_ms=1_700_008_000_000,
        ),
        Filter(topics=(987_654_321,)),
    ],
    ids=lambda f: ",".join(f"{k}={v}" for k, v in vars(f).items() if v not in ((), None)),
)
def test_filtered_answers_are_full_and_right(
    backend: Backend, pins: PinRows, queries: NDArray[np.float32], flt: Filter
) -> None:
    expected = oracle(pins, queries, K, flt)
    found = backend.index.search(queries, K, flt=flt)
    np.testing.assert_array_equal(found.counts, expected.counts)
    allowed = set(oracle(pins, queries[:1], len(pins), flt).ids.ravel().tolist()) | {0}
    assert set(found.ids.ravel().tolist()) <= allowed, "every hit passes the filter"
    if expected.counts.max() > 0:
        assert recall(found, expected).mean() >= 0.95


def test_a_short_row_ends_in_padding(backend: Backend, queries: NDArray[np.float32]) -> None:
    found = backend.index.search(queries, K, flt=Filter(topics=(RARE_TOPIC,)))
    assert (found.counts == 3).all()
    assert (found.ids[:, 3:] == 0).all() and np.isneginf(found.scores[:, 3:]).all()
    assert (found.ids[:, :3] > 0).all() and np.isfinite(found.scores[:, :3]).all()


def test_k_beyond_the_collection(backend: Backend, pins: PinRows, queries: NDArray[np.float32]) -> None:
    found = backend.index.search(queries[:2], len(pins) + 500)
    assert (found.counts == len(pins)).all()
    assert set(found.ids[0].tolist()) == set(pins.ids.tolist()) | {0}


def test_no_queries_no_answers(backend: Backend, pins: PinRows) -> None:
    assert backend.index.search(np.empty((0, pins.dim), np.float32), 5).ids.shape == (0, 5)


def test_fetch_keeps_the_order_asked_for(backend: Backend, pins: PinRows) -> None:
    ids = np.array([pins.ids[9], 5, pins.ids[0], 0, pins.ids[9], -4])
    fetched = backend.index.fetch(ids)
    assert fetched.present.tolist() == [True, False, True, False, True, False]
    np.testing.assert_array_equal(fetched.vectors[[0, 2, 4]], pins.vectors[[9, 0, 9]])
    assert not fetched.vectors[~fetched.present].any()
    assert backend.index.fetch(np.empty(0, np.int64)).vectors.shape == (0, pins.dim)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (np.ones((1, 31), np.float32), "31"),
        (np.ones(32, np.float32), "shape"),
        (np.full((1, 32), np.nan, np.float32), "NaN"),
    ],
)
def test_bad_queries_are_refused(backend: Backend, bad: NDArray[np.float32], said: str) -> None:
    with pytest.raises(VectorShapeError, match=said):
        backend.index.search(bad, 5)


@pytest.mark.parametrize("k", [0, -1, 16_385])
def test_k_outside_its_range_is_refused(backend: Backend, queries: NDArray[np.float32], k: int) -> None:
    with pytest.raises(VectorShapeError, match="k is"):
        backend.index.search(queries, k)


def test_threads_get_the_same_answers(backend: Backend, queries: NDArray[np.float32]) -> None:
    alone = backend.index.search(queries, 10, flt=Filter(topics=(COMMON_TOPIC,)))
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(lambda _: backend.index.search(queries, 10, flt=Filter(topics=(COMMON_TOPIC,))), range(8))
        )
    for found in together:
        np.testing.assert_array_equal(found.ids, alone.ids)
