"""Collections on Milvus: made once, written idempotently, dropped by their real name only."""

from __future__ import annotations

import numpy as np
import pytest

from feature_repo.vectors.collection import MilvusIndex, expression
from feature_repo.vectors.exact import recall, top_k
from feature_repo.vectors.index import CollectionMissing, Filter, Hits, VectorIndexError
from feature_repo.vectors.milvus import Milvus, connect
from feature_repo.vectors.replica import from_milvus
from feature_repo.vectors.rows import PinRows, concatenate
from feature_repo.vectors.server import MilvusUnreachable
from tests.feature_repo.vectors.conftest import DIM, planted_pins

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def few() -> PinRows:
    return planted_pins(400, seed=1)


@pytest.fixture(scope="module")
def written(milvus: Milvus, few: PinRows) -> MilvusIndex:
    index = milvus.create("pins__written__1", DIM)
    index.upsert(few)
    index.flush()
    return milvus.open("pins__written__1", consistency="Strong")


def test_create_opens_what_is_there(milvus: Milvus, written: MilvusIndex, few: PinRows) -> None:
    assert written.name in milvus.collections()
    assert milvus.create(written.name, DIM).dim == DIM
    assert milvus.open(written.name, consistency="Strong").rows == len(few)
    with pytest.raises(VectorIndexError, match="32-d vectors, not 16-d"):
        milvus.create(written.name, 16)


def test_upsert_replaces(written: MilvusIndex, few: PinRows) -> None:
    written.upsert(few)
    assert written.rows == len(few)
    turned = PinRows.of(few.ids[:1], -few.vectors[:1], [[77]], [1], [0.5])
    written.upsert(turned)
    assert written.rows == len(few)
    np.testing.assert_array_equal(written.fetch(few.ids[:1]).vectors, -few.vectors[:1])
    found = written.search(-few.vectors[:1], 1, flt=Filter(topics=(77,)))
    assert found.ids.tolist() == [[few.ids[0]]]
    written.upsert(few.take(np.array([0])))


def test_scan_and_digests_give_back_what_was_written(written: MilvusIndex, few: PinRows) -> None:
    expected = few.take(np.argsort(few.ids))
    scanned = concatenate(list(written.scan()))
    for field, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(scanned, field), value, err_msg=field)
    ids, digests = written.digests()
    np.testing.assert_array_equal(ids, expected.ids)
    np.testing.assert_array_equal(digests, expected.digests())


def test_strong_scans_see_the_latest_write(written: MilvusIndex, few: PinRows) -> None:
    for sign in (-1, 1, -1, 1):
        written.upsert(
            PinRows.of(
                few.ids[:1], sign * few.vectors[:1], [few.topics(0)], few.created_at_ms[:1], few.quality[:1]
            )
        )
        scanned = concatenate(list(written.scan()))
        np.testing.assert_array_equal(scanned.vectors[scanned.ids == few.ids[0]], sign * few.vectors[:1])


def test_exact_search_is_the_oracle(written: MilvusIndex, few: PinRows) -> None:
    found = written.search_exactly(few.vectors[:5], 30)
    assert (recall(found, top_k(few.vectors[:5], few.vectors, few.ids, 30)) == 1).all()
    np.testing.assert_array_equal(found.ids[:, 0], few.ids[:5])


def test_short_answers_are_asked_again_exactly(
    written: MilvusIndex, few: PinRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = MilvusIndex(written._client, written.name, dim=DIM, exact=False, consistency="Strong")
    honest = MilvusIndex._ask

    def forgetful(self: MilvusIndex, queries: np.ndarray, k: int, flt: Filter | None) -> Hits:
        hits = honest(self, queries, k, flt)
        hits.ids[1::2, 3:], hits.scores[1::2, 3:] = 0, -np.inf
        return hits

    monkeypatch.setattr(MilvusIndex, "_ask", forgetful)
    for flt in (None, Filter(topics=(4, 5, 6))):
        found = graph.search(few.vectors[:6], 20, flt=flt)
        exact = graph.search_exactly(few.vectors[:6], 20, flt=flt)
        assert (exact.counts == 20).all()
        np.testing.assert_array_equal(found.counts, exact.counts)
        assert recall(found, exact).min() >= 0.95


def test_replica_of_a_collection_and_its_cache(
    written: MilvusIndex, few: PinRows, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(MilvusIndex, "digests", lambda self: pytest.fail("there is no copy to compare with"))
        first = from_milvus(written, cache=tmp_path)
    assert (first.name, first.rows, first.exact) == (written.name, len(few), True)
    np.testing.assert_array_equal(
        first.search(few.vectors[:9], 12).ids, top_k(few.vectors[:9], few.vectors, few.ids, 12).ids
    )
    with monkeypatch.context() as patched:
        patched.setattr(MilvusIndex, "scan", lambda self: pytest.fail("the kept copy should have been read"))
        again = from_milvus(written, cache=tmp_path)
    np.testing.assert_array_equal(again.search(few.vectors, 7).ids, first.search(few.vectors, 7).ids)

    written.delete(few.ids[:3])
    assert from_milvus(written, cache=tmp_path).rows == len(few) - 3, "a changed collection is copied anew"
    written.upsert(few.take(np.arange(3)))
    assert from_milvus(written, cache=tmp_path).rows == len(few)


def test_drop_refuses_aliases(milvus: Milvus) -> None:
    index = milvus.create("pins__dropped__1", DIM)
    index.upsert(planted_pins(10))
    milvus.client.create_alias("pins__dropped__1", "pins__alias")
    try:
        with pytest.raises(CollectionMissing, match="not a collection"):
            milvus.drop("pins__alias")
        assert milvus.exists("pins__dropped__1")
        with pytest.raises(CollectionMissing):
            milvus.open("pins__alias")
    finally:
        milvus.client.drop_alias("pins__alias")
    milvus.drop("pins__dropped__1")
    assert not milvus.exists("pins__dropped__1")
    with pytest.raises(CollectionMissing, match="pins__dropped__1"):
        milvus.open("pins__dropped__1")


def test_empty_collection_answers(milvus: Milvus) -> None:
    index = milvus.create("pins__empty__1", DIM)
    assert index.rows == 0
    assert index.search(np.ones((2, DIM), np.float32), 5).counts.tolist() == [0, 0]
    assert not index.fetch(np.array([1, 2])).present.any()
    assert from_milvus(index).search(np.ones((2, DIM), np.float32), 5).counts.tolist() == [0, 0]
    milvus.drop("pins__empty__1")


def test_nobody_there() -> None:
    with pytest.raises(MilvusUnreachable, match=r"127\.0\.0\.1:9"):
        connect("http://127.0.0.1:9", timeout_s=1)
    with pytest.raises(MilvusUnreachable, match="http://host:port"):
        connect("items.db")
    with pytest.raises(MilvusUnreachable) as refused:
        connect("http://ann:secret@127.0.0.1:9", timeout_s=1)
    assert "secret" not in str(refused.value)


def test_expressions_are_plain_numbers() -> None:
    flt = Filter(topics=(9, 3, 3), min_quality=0.25, created_from_ms=5, created_before_ms=9)
    assert expression(flt) == (
        "array_contains_any(topics, [3, 9]) and quality >= 0.25 and created_at_ms >= 5 and created_at_ms < 9"
    )
    assert expression(None) == expression(Filter()) == ""
    assert expression(Filter(topics=(np.int64(4),), min_quality=np.float32(0.5))) == (
        "array_contains_any(topics, [4]) and quality >= 0.5"
    )
    with pytest.raises(ValueError):
        Filter(topics=("1] or true",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="finite"):
        Filter(min_quality=float("nan"))
