"""Building a space's collection: resumable, exact about what it holds, measured after re-opening."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from feature_repo.vectors import exact
from feature_repo.vectors.collection import MilvusIndex
from feature_repo.vectors.index import Filter, Hits, VectorIndexError, VectorShapeError
from feature_repo.vectors.milvus import connect
from feature_repo.vectors.replica import Replica
from feature_repo.vectors.rows import PinRows
from tests.feature_repo.vectors.conftest import planted_pins
from tests.feature_repo.vectors.servers import milvus_lite, shared_lite, shared_standalone
from training import index
from validation.manifest import CollectionCheck

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uri() -> str:
    return shared_lite()


def build(uri: str, space: str, rows: PinRows, said: list[str] | None = None) -> CollectionCheck:
    topics = [rows.topics(i) for i in range(len(rows))]
    listen = (lambda _: None) if said is None else said.append
    return index.build(uri, space, rows.ids, rows.vectors, topics, rows.created_at_ms, rows.quality, listen)


@pytest.mark.parametrize("start", [shared_lite, shared_standalone])
def test_builds_verifies_and_rests(start: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    uri = start()
    rows = planted_pins(1_500)
    said: list[str] = []
    check = build(uri, "indexed@1", rows, said)
    assert (check.collection, check.space, check.dim, check.rows) == ("pins__indexed__1", "indexed@1", 32, 1500)
    assert check.recall_at_100 >= 0.95
    assert check.filtered_fill == 1.0
    assert check.filtered_recall_at_100 is not None and check.filtered_recall_at_100 >= 0.95
    assert any("1500/1500" in line for line in said)
    stored = index.read(uri, "indexed@1")
    np.testing.assert_array_equal(stored.digests(), rows.take(np.argsort(rows.ids)).digests())
    assert index.check(uri, "indexed@1", stored).rows == 1500

    monkeypatch.setattr(MilvusIndex, "upsert", lambda *_: pytest.fail("nothing changed, nothing to write"))
    assert build(uri, "indexed@1", rows).rows == 1500


def test_an_interrupted_build_goes_on(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = planted_pins(900, seed=2)
    monkeypatch.setattr("feature_repo.vectors.collection.BATCH", 200)
    honest = MilvusIndex.upsert
    written: list[int] = []

    def counted(self: MilvusIndex, part: PinRows, *rest: object) -> None:
        written.append(len(part))
        honest(self, part, *rest)  # type: ignore[arg-type]

    def dies(self: MilvusIndex, part: PinRows, *rest: object) -> None:
        honest(self, part.take(np.arange(400)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MilvusIndex, "upsert", dies)
        with pytest.raises(KeyboardInterrupt):
            build(uri, "indexed@2", rows)
    monkeypatch.setattr(MilvusIndex, "upsert", counted)
    assert build(uri, "indexed@2", rows).rows == 900
    assert written == [500], "only what was missing"


def test_a_changed_catalogue_changes_only_its_rows(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = planted_pins(600, seed=3)
    build(uri, "indexed@3", rows)
    kept = rows.take(np.arange(20, 600))
    changed = PinRows.of(
        kept.ids,
        kept.vectors,
        [kept.topics(i) for i in range(580)],
        kept.created_at_ms,
        np.where(np.arange(580) < 7, 0.123, kept.quality),
    )
    written: list[int] = []
    honest = MilvusIndex.upsert
    monkeypatch.setattr(
        MilvusIndex, "upsert", lambda self, part, *rest: (written.append(len(part)), honest(self, part, *rest))
    )
    assert build(uri, "indexed@3", changed).rows == 580
    assert written == [7]
    np.testing.assert_array_equal(
        index.read(uri, "indexed@3").digests(), changed.take(np.argsort(changed.ids)).digests()
    )


def test_pins_without_content_are_left_out(uri: str) -> None:
    rows = planted_pins(300, seed=4)
    vectors = rows.vectors.copy()
    vectors[:30] = 0
    said: list[str] = []
    check = build(
        uri, "indexed@4", PinRows.of(rows.ids, vectors, [[]] * 300, rows.created_at_ms, rows.quality), said
    )
    assert check.rows == 270
    assert (check.filtered_fill, check.filtered_recall_at_100) == (1.0, 1.0), "no topics, nothing to filter"
    assert any("30 pins without content" in line for line in said)


def test_bad_input_is_refused_before_anything_is_written(uri: str) -> None:
    rows = planted_pins(50)
    with pytest.raises(VectorShapeError, match="NaN"):
        index.build(
            uri, "indexed@9", rows.ids, rows.vectors * np.nan, [[]] * 50, rows.created_at_ms, rows.quality
        )
    with pytest.raises(ValueError, match="not a space"):
        build(uri, "indexed", rows)
    milvus = connect(uri)
    assert not milvus.exists("pins__indexed__9")
    milvus.create("pins__narrow__1", 8)
    milvus.close()
    with pytest.raises(VectorIndexError, match="never changes its dimension"):
        build(uri, "narrow@1", rows)


class Forgetful(Replica):
    """A graph that loses hits of filtered searches and swaps some of the others."""

    exact = False

    def search(self, vectors: NDArray[np.float32], k: int, *, flt: Filter | None = None) -> Hits:
        hits = super().search(vectors, k, flt=flt)
        if flt:
            hits.ids[:, k // 2 :], hits.scores[:, k // 2 :] = 0, -np.inf
        else:
            hits.ids[:, : k // 4], hits.scores[:, : k // 4] = hits.ids[:, -1:], -1.0
        return hits


def test_verification_sees_what_an_index_gets_wrong() -> None:
    rows = planted_pins(2_000, seed=6)
    good = index.verify(Replica.of("a", rows), rows, "indexed@1")
    assert (good.recall_at_100, good.filtered_fill, good.filtered_recall_at_100) == (1.0, 1.0, 1.0)
    lossy = Forgetful("a", rows.take(np.argsort(rows.ids)), None)
    bad = index.verify(lossy, rows, "indexed@1")
    assert bad.recall_at_100 == pytest.approx(0.75)
    assert (
        bad.filtered_fill < 1.0 and bad.filtered_recall_at_100 is not None and bad.filtered_recall_at_100 < 1.0
    )
    with pytest.raises(index.CollectionBroken, match="holds 2000 rows after re-opening, 1999"):
        index.verify(Replica.of("a", rows), rows.take(np.arange(1_999)), "indexed@1")


def test_a_killed_server_comes_back_with_a_build_half_done(tmp_path: Path) -> None:
    rows = planted_pins(400, seed=8)
    with milvus_lite(tmp_path) as uri:
        milvus = connect(uri)
        milvus.create("pins__indexed__1", 32).upsert(rows.take(np.arange(150)))
        milvus.close()
    with milvus_lite(tmp_path) as uri:
        assert build(uri, "indexed@1", rows).rows == 400
        stored = index.read(uri, "indexed@1")
        found = exact.top_k(rows.vectors[:5], stored.vectors, stored.ids, 1)
        np.testing.assert_array_equal(found.ids[:, 0], rows.ids[:5])
