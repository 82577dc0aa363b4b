"""What is counted of an answer: all of how long it took, and the times of its parts now and then."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from prometheus_client import REGISTRY

from bentos.feed import Feed, Surface
from bentos.messages import SourceReport, StageReport
from bentos.metrics import TIMED, observe
from tests.bentos.fakes import NOW_MS, planted_release


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"corkboard_{name}_seconds_count", labels) or 0.0


def test_parts_are_timed_of_one_answer_in_so_many(tmp_path: Path) -> None:
    feed = Feed(Surface.RELATED_ADS, planted_release(tmp_path), now_ms=NOW_MS, limit=1)
    feed.stages.append(StageReport("user", 0, 1.0))
    feed.sources.append(SourceReport(name="counted", count=0, ms=1.0))
    counts, before = [], count("answer", surface="related_ads")
    for _ in range(2 * TIMED):
        observe(feed, 0.01)
        counts.append((count("stage", surface="related_ads", stage="user"), count("source", source="counted")))
    assert counts[-1] == (counts[0][0] + 1, counts[0][1] + 1)
    assert sum(later != sooner for sooner, later in pairwise(counts)) == 1
    assert count("answer", surface="related_ads") == before + 2 * TIMED
