"""Ads beside a pin: near it, running now, by expected value, in their slots, marked and logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bentos import ranking
from bentos.campaigns import Campaigns
from bentos.engines import Engines, RemoteRanking
from bentos.errors import BadId, LimitOutOfRange, PinNotFound
from bentos.feed_service import FeedService
from bentos.hop_messages import RankRequest
from bentos.impressions import STREAM
from bentos.loader import check_release
from bentos.log_segments import read
from bentos.messages import FeedAnswer, RelatedAdsRequest, RelatedRequest
from bentos.pool import Pool
from bentos.ranking import RankingParts
from bentos.serving import ReleaseRejected
from tests.bentos.conftest import run
from tests.bentos.fakes import COOK, DIM, NOW_MS, SPACE, Stack, manifest, pin_of, topic_of
from training.models.ads.ranking import AdsPolicy, AdsPolicyError, expected_value, read_ads_policy
from training.models.ads.rows import AdRows, Floats
from validation.events import ImpressionRecord, from_line, to_line
from validation.manifest import Part
from validation.tables import ADS

DAY = 86_400_000
ADS_PART = Part(model="ads_multi_tower", version=3, space=SPACE)


@dataclass(frozen=True)
class Seen:
    vector_dim: int = DIM


@dataclass(frozen=True)
class Network:
    seen: Seen = Seen()


@dataclass(frozen=True)
class PlantedAds:
    """A click is likelier the nearer the ad; shopping ads are hidden by half of those who see them."""

    network: Network = Network()
    heads: tuple[str, ...] = ("click", "hide")

    def score(self, rows: AdRows, sources: np.ndarray) -> Floats:
        near = np.einsum("nd,nd->n", rows.vectors[:, 0], rows.vectors[:, 1])
        hides = np.where(np.asarray(sources) == "shopping", 0.5, 0.001)
        return np.stack([np.clip(near, 0, 1) * 0.1, hides], axis=1).astype(np.float32)


def campaigns(folder: Path, rows: list[tuple[int, str, float, int, int]]) -> Campaigns:
    """Campaigns of (pin, source, bid, begin and end in days from now)."""
    pins, sources, bids, starts, ends = (list(column) for column in zip(*rows, strict=True))
    file = folder / "ads.parquet"
    when = {
        name: pa.array([(NOW_MS + d * DAY) * 1000 for d in days]).cast(pa.timestamp("us", "UTC"))
        for name, days in (("starts_at", starts), ("ends_at", ends))
    }
    columns = {"ad_id": range(1, len(rows) + 1), "pin_id": pins, "source": sources, "bid": bids, **when}
    pq.write_table(pa.table(columns).cast(pa.schema([ADS.schema.field(n) for n in columns])), file)
    return Campaigns(file)


RUNNING = [
    (pin_of(1, 5), "standard", 400_000.0, -3, 3),
    (pin_of(1, 6), "standard", 900_000.0, -3, 3),
    (pin_of(1, 7), "shopping", 900_000.0, -3, 3),  # hidden too often to be worth its bid
    (pin_of(1, 8), "standard", 0.0, -3, 3),  # paused
    (pin_of(1, 9), "standard", 900_000.0, 1, 3),  # booked
    (pin_of(1, 10), "standard", 900_000.0, -3, 0),  # ends now
    (pin_of(2, 5), "standard", 9_000_000.0, -3, 3),  # of another topic
]


@pytest.fixture
def ads_stack(stack_of: Callable[..., Stack], tmp_path: Path) -> Stack:
    parts = manifest().parts | {"ads": ADS_PART}
    return stack_of(campaigns=campaigns(tmp_path, RUNNING), ads=PlantedAds(), manifest=manifest(parts=parts))


def ask(stack: Stack, limit: int = 12, **changes: object) -> FeedAnswer:
    request = {"pin_id": pin_of(1, 0), "user_id": COOK, "limit": limit, **changes}
    return run(stack.service.related_ads(RelatedAdsRequest(**request)))


def test_ads_are_those_that_run_near_the_pin_by_what_they_bring(ads_stack: Stack) -> None:
    answer = ask(ads_stack)
    assert answer.missing == []
    assert [p.pin_id for p in answer.pins] == [pin_of(1, 6), pin_of(1, 5)]
    assert [p.sponsored for p in answer.pins] == ["standard", "standard"]
    assert [p.position for p in answer.pins] == [3, 7]  # one in four places
    for pin, bid in zip(answer.pins, (900_000.0, 400_000.0), strict=True):
        value = bid * pin.heads["click"] - 500_000 * pin.heads["hide"]
        assert pin.score == pytest.approx(value, rel=1e-3)
    assert all(topic_of(p.pin_id) == 1 for p in answer.pins)


@pytest.mark.parametrize(("limit", "ads"), [(3, 0), (4, 1), (7, 1), (8, 2), (200, 2)])
def test_at_most_one_place_in_so_many_is_an_ad(ads_stack: Stack, limit: int, ads: int) -> None:
    answer = ask(ads_stack, limit)
    assert len(answer.pins) == ads
    assert all(p.position < limit for p in answer.pins)


def test_what_was_shown_is_logged_with_bid_and_prediction(ads_stack: Stack) -> None:
    answer = ask(ads_stack)
    ads_stack.service.impressions.close()
    logged = [r for r in read(ads_stack.events, STREAM) if isinstance(r, ImpressionRecord)]
    logged = [r for r in logged if r.request_id == answer.request_id]
    assert [r.pin_id for r in logged] == [p.pin_id for p in answer.pins]
    for record, pin in zip(logged, answer.pins, strict=True):
        assert (record.surface, record.source, record.anchor) == ("related_ads", "standard", pin_of(1, 0))
        assert (record.position, record.stage, record.policy) == (pin.position, "expected_value", None)
        assert record.predicted == pin.heads["click"]
        assert record.ranker == "ads_multi_tower@3"
    assert [r.bid for r in logged] == [900_000.0, 400_000.0]
    lines = [line for file in ads_stack.events.glob(f"{STREAM}-*") for line in file.open("rb")]
    assert [to_line(from_line(line)) for line in lines] == lines


def test_an_ingest_that_changes_campaigns_changes_the_next_page(ads_stack: Stack, tmp_path: Path) -> None:
    assert len(ask(ads_stack).pins) == 2
    campaigns(tmp_path, [(pin_of(1, 11), "video", 100_000.0, -1, 1)])
    answer = ask(ads_stack)
    assert [(p.pin_id, p.sponsored) for p in answer.pins] == [(pin_of(1, 11), "video")]


def test_a_pin_of_two_campaigns_is_sold_to_the_higher_bid(tmp_path: Path) -> None:
    pin = pin_of(1, 5)
    live = campaigns(tmp_path, [(pin, "standard", 1.0, -1, 1), (pin, "shopping", 2.0, -1, 1)]).live(NOW_MS)
    assert len(live) == 1
    assert live.of(pin).source == "shopping"
    assert live.of(pin_of(1, 6)) is None
    assert len(Campaigns(tmp_path / "none.parquet").live(NOW_MS)) == 0


def test_an_ad_that_cannot_be_priced_is_not_shown(
    ads_stack: Stack, stack_of: Callable[..., Stack], tmp_path: Path
) -> None:
    class Broken(PlantedAds):
        def score(self, rows: AdRows, sources: np.ndarray) -> Floats:
            raise RuntimeError("weights are gone")

    release = replace(ads_stack.release, ads=Broken())
    service = FeedService(
        lambda: release, ads_stack.service.engines, ads_stack.service.impressions, clock_ms=lambda: NOW_MS
    )
    answer = run(service.related_ads(RelatedAdsRequest(pin_id=pin_of(1, 0), user_id=COOK)))
    assert answer.pins == []
    assert answer.missing == ["price: RuntimeError"]


def test_a_release_without_an_ads_model_shows_none_and_says_so(stack: Stack) -> None:
    answer = ask(stack)
    assert answer.pins == []
    assert answer.fallback == "release 1 prices no ads"  # the data has no ads: its manifest gives no reason
    skipped = stack.release.manifest.model_copy(update={"skipped": {"ads": "no ads model is trained"}})
    assert replace(stack.release, manifest=skipped).no_ads == "release 1 prices no ads: no ads model is trained"
    related = run(stack.service.related(RelatedRequest(pin_id=pin_of(1, 0), user_id=COOK, limit=5)))
    assert [p.sponsored for p in related.pins] == [None] * 5


def test_requests_that_cannot_be_answered_are_refused_by_name(ads_stack: Stack) -> None:
    with pytest.raises(PinNotFound):
        ask(ads_stack, pin_id=10**9)
    with pytest.raises(LimitOutOfRange):
        ask(ads_stack, limit=0)


def test_a_model_of_another_content_space_is_rejected_with_its_release(ads_stack: Stack) -> None:
    other = replace(PlantedAds(), network=Network(seen=Seen(DIM + 1)))
    with pytest.raises(ReleaseRejected, match="reads 17-d vectors"):
        check_release(replace(ads_stack.release, ads=other))


@pytest.fixture
def ranking_parts(ads_stack: Stack) -> Iterator[RankingParts]:
    class Holder:
        ready = True

        def at(self, version: int | None) -> object:
            return ads_stack.release

    pool = Pool(2)
    yield RankingParts(pool, Holder())  # type: ignore[arg-type]
    pool.close()


def test_ads_beside_no_pin_are_refused_by_name(ranking_parts: RankingParts) -> None:
    with pytest.raises(BadId, match="anchor 0: ads are priced beside a pin"):
        run(ranking.ads(ranking_parts, RankRequest(user_id=COOK, pin_ids=[pin_of(1, 5)])))
    assert BadId.status == 400


def test_a_ranking_process_prices_alike(ads_stack: Stack, ranking_parts: RankingParts) -> None:
    parts = ranking_parts
    remote = RemoteRanking(
        lambda r: ranking.light(parts, r), lambda r: ranking.rank(parts, r), lambda r: ranking.ads(parts, r)
    )
    engines = Engines(ads_stack.pool, ads_stack.service.engines.retrieval, remote)
    service = replace(ads_stack.service, engines=engines)
    there = run(service.related_ads(RelatedAdsRequest(pin_id=pin_of(1, 0), user_id=COOK, limit=12)))
    here = ask(ads_stack)
    assert there.missing == []
    assert [(p.pin_id, p.score, p.heads) for p in there.pins] == [
        (p.pin_id, p.score, p.heads) for p in here.pins
    ]


def test_expected_value_by_hand() -> None:
    p = np.array([[0.02, 0.01], [0.04, 0.1]], np.float32)
    bids = np.array([1_000_000.0, 1_000_000.0])
    policy = AdsPolicy(hide_penalty=500_000)
    np.testing.assert_allclose(expected_value(bids, p, ("click", "hide"), policy), [15_000, -10_000], rtol=1e-5)
    np.testing.assert_allclose(expected_value(bids, p[:, :1], ("click",), policy), [20_000, 40_000], rtol=1e-5)
    with pytest.raises(ValueError, match="ranked by click"):
        expected_value(bids, p[:, :1], ("hide",), policy)


def test_the_policy_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "ads.yaml"
    assert read_ads_policy(file) == AdsPolicy()
    file.write_text("every: 6\nhide_penalty: 1e6\n")
    assert read_ads_policy(file).every == 6
    unparsed = ("since: 2026-13-45", "every: !!int ''", "every: !!bool maybe", "[" * 3000)
    for bad in ("every: 1", "everi: 4", "relevance: .nan", "[1", *unparsed):
        file.write_text(bad)
        with pytest.raises(AdsPolicyError, match=r"ads\.yaml"):
            read_ads_policy(file)
