"""The replica's own corners: what its graph misses is asked again, sizes have a bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.vectors.exact import recall, top_k
from feature_repo.vectors.index import Filter
from feature_repo.vectors.replica import Replica, ReplicaTooLarge, _load, _save
from feature_repo.vectors.rows import PinRows
from tests.feature_repo.vectors.conftest import COMMON_TOPIC, planted_pins
from validation.file_digests import digests_of


@pytest.fixture(scope="module")
def graph(pins: PinRows) -> Replica:
    return Replica.of("pins__graph__1", pins, graph=True)


def test_small_copies_are_exact_large_ones_get_a_graph(pins: PinRows, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Replica.of("a", pins).exact
    monkeypatch.setattr("feature_repo.vectors.replica.FLAT_FLOATS", len(pins) * pins.dim - 1)
    assert not Replica.of("a", pins).exact


def test_stated_size_is_held(pins: PinRows) -> None:
    size = len(pins) * pins.dim
    assert Replica.of("a", pins, max_floats=size).rows == len(pins)
    with pytest.raises(ReplicaTooLarge, match="search the Milvus collection"):
        Replica.of("a", pins, max_floats=size - 1)


def test_wide_filters_over_fetch_from_the_graph(
    graph: Replica, pins: PinRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_repo.vectors.replica.BRUTE_ROWS", 0)
    queries = pins.vectors[:30]
    common = np.array([COMMON_TOPIC in pins.topics(i) for i in range(len(pins))])
    exact = top_k(queries, pins.vectors[common], pins.ids[common], 40)
    found = graph.search(queries, 40, flt=Filter(topics=(COMMON_TOPIC,)))
    np.testing.assert_array_equal(found.counts, exact.counts)
    assert recall(found, exact).mean() >= 0.95


def test_a_short_filtered_answer_is_asked_again(
    graph: Replica, pins: PinRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter on one far cluster: over-fetching by its share of the catalogue reaches too few of its pins."""
    monkeypatch.setattr("feature_repo.vectors.replica.BRUTE_ROWS", 0)
    topic = int(pins.topics(0)[0])
    inside = np.array([topic in pins.topics(i) for i in range(len(pins))])
    far = -pins.vectors[inside].mean(axis=0, keepdims=True)
    walked = graph._walk(
        far, 30, int(1.5 * 30 / inside.mean()) + 16, np.flatnonzero(inside[np.argsort(pins.ids)])
    )
    assert walked.counts[0] < 30, "the graph alone falls short here, else this test shows nothing"
    found = graph.search(far, 30, flt=Filter(topics=(topic,)))
    np.testing.assert_array_equal(found.ids, top_k(far, pins.vectors[inside], pins.ids[inside], 30).ids)


def test_equal_vectors_all_count_as_right() -> None:
    """Fifty pins share one vector; any ten of them are a perfect answer."""
    base = planted_pins(200, seed=5)
    vectors = base.vectors.copy()
    vectors[:50] = vectors[0]
    replica = Replica.of("a", PinRows.of(base.ids, vectors, [[]] * 200, base.created_at_ms, base.quality))
    found = replica.search(vectors[:1], 10)
    assert set(found.ids[0].tolist()) <= set(base.ids[:50].tolist())
    reversed_ids = top_k(vectors[:1], vectors[::-1], base.ids[::-1], 10)
    assert recall(found, reversed_ids).tolist() == [1.0]


@pytest.mark.parametrize("damaged", ["rows.npz", "graph.faiss", "replica.json"])
def test_a_kept_copy_that_was_damaged_is_none(graph: Replica, tmp_path: Path, damaged: str) -> None:
    folder = tmp_path / graph.name
    _save(graph, folder, "content")
    kept = _load(folder, graph.name, "content")
    assert kept is not None and kept.rows == graph.rows and not kept.exact
    assert _load(folder, graph.name, "other content") is None
    content = bytearray((folder / damaged).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / damaged).write_bytes(content)
    assert _load(folder, graph.name, "content") is None
    _save(graph, folder, "content")
    assert _load(folder, graph.name, "content") is not None, "the next copy takes its place"


@pytest.mark.parametrize("gone", ["rows.npz", "graph.faiss"])
def test_a_kept_copy_that_another_process_replaces_meanwhile_is_none(
    graph: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    def replaced(folder: Path) -> dict[str, str]:
        found = digests_of(folder)
        (folder / gone).unlink()
        return found

    _save(graph, tmp_path / graph.name, "content")
    monkeypatch.setattr("feature_repo.vectors.replica.digests_of", replaced)
    assert _load(tmp_path / graph.name, graph.name, "content") is None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_filter_agrees_with_reading_every_row(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    topics = [rng.choice(6, rng.integers(0, 4), replace=False) for _ in range(count)]
    rows = PinRows.of(
        rng.permutation(count) + 1,
        rng.normal(size=(count, 4)),
        topics,
        rng.integers(0, 10, count),
        rng.integers(0, 5, count) / 4,
    )
    flt = Filter(
        topics=tuple(data.draw(st.lists(st.integers(1, 7), max_size=3))),
        min_quality=data.draw(st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0])),
        created_from_ms=data.draw(st.none() | st.integers(0, 10)),
        created_before_ms=data.draw(st.none() | st.integers(0, 10)),
    )
    expected = {
        int(rows.ids[i])
        for i in range(count)
        if (not flt.topics or set(flt.topics) & set(topics[i].tolist()))
        and (flt.min_quality is None or rows.quality[i] >= flt.min_quality)
        and (flt.created_from_ms is None or rows.created_at_ms[i] >= flt.created_from_ms)
        and (flt.created_before_ms is None or rows.created_at_ms[i] < flt.created_before_ms)
    }
    query = rng.normal(size=(1, 4)).astype(np.float32)
    for as_graph in (False, True):
        found = Replica.of("a", rows, graph=as_graph).search(query, 50, flt=flt)
        assert set(found.ids[0].tolist()) - {0} == expected
        assert found.counts[0] == len(expected)


@pytest.mark.slow
def test_recall_on_a_larger_catalogue() -> None:
    rows = planted_pins(10_000, dim=64, seed=11)
    replica = Replica.of("pins__large__1", rows, graph=True)
    queries = rows.vectors[:200]
    exact = top_k(queries, rows.vectors, rows.ids, 100)
    assert recall(replica.search(queries, 100), exact).mean() >= 0.9
    flt = Filter(topics=(3,))
    inside = np.array([3 in rows.topics(i) for i in range(len(rows))])
    exact = top_k(queries, rows.vectors[inside], rows.ids[inside], 100)
    np.testing.assert_array_equal(replica.search(queries, 100, flt=flt).ids, exact.ids)
