"""Sponsored pins of the demo world: campaigns, the slots they win beside related pins, and what users answer.

Whoever opens a pin sees related pins, and some of their places are ads. Campaigns are drawn with generators of
their own and are answered after everyone else, so that a world with ads is the world without them and some more
rows: requests and events are numbered from `FIRST_ID`, a day's rows lie in files of their own, and neither the
logging policy nor what users remember knows of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.data.world_behaviour import Answers, answer, match, strength
from training.data.world_config import MS_DAY, AdsConfig, WorldConfig
from training.data.world_pins import Pins
from training.data.world_policy import Page
from training.data.world_rows import ACTION_SCHEMA, action_rows, times
from training.data.world_topics import TopicTree
from training.data.world_users import Users
from training.data.world_visits import Visits
from validation.tables import ADS, BID, IMPRESSIONS, PREDICTED, QUERY, RELATED_ADS

FIRST_ID = 1 << 40
"""First request id and event id of ads."""

IMPRESSION_SCHEMA = pa.schema(
    [f for f in IMPRESSIONS.schema if f.name not in ("stage", "source_topic", PREDICTED, QUERY)]
)
PAGE_MS = 1_500
"""From a closeup to its related pins."""
_BID_SPREAD = 0.5


@dataclass(frozen=True)
class Campaigns:
    """Every campaign of a world; arrays (C,)."""

    pin: np.ndarray
    """Rows of pins; no pin has two campaigns."""
    source: np.ndarray
    """int8 places in `AdsConfig.sources`."""
    bid: np.ndarray
    """float64, micro-currency a click."""
    budget: np.ndarray
    """float64 a day, NaN for none."""
    starts_ms: np.ndarray
    ends_ms: np.ndarray

    @classmethod
    def draw(cls, config: WorldConfig, ads: AdsConfig, pins: Pins) -> Campaigns:
        """Campaigns from before the world's first day until after its last."""
        rng = np.random.default_rng([config.seed, 13])
        n = max(1, round(ads.pin_share * len(pins)))
        pin = np.sort(rng.choice(len(pins), n, replace=False))
        laws = list(ads.sources.values())
        source = rng.choice(len(laws), n, p=[law.share for law in laws]).astype(np.int8)
        bid = np.array([law.bid for law in laws])[source] * rng.lognormal(0, _BID_SPREAD, n)
        budget = np.where(rng.random(n) < 0.5, np.nan, np.round(bid * rng.uniform(50, 500, n)))
        start_ms = int(config.start_time.timestamp() * 1000)
        end_ms = int(config.end_time.timestamp() * 1000)
        since = np.maximum(pins.created_ms[pin], start_ms - ads.days[1] * MS_DAY // 2)
        starts = since + (rng.random(n) * (end_ms - since)).astype(np.int64)
        lasts = rng.uniform(ads.days[0], ads.days[1], n) * MS_DAY
        return cls(pin, source, np.round(bid), budget, starts, starts + lasts.astype(np.int64))

    def live(self, day_ms: int) -> np.ndarray:
        """Places of the campaigns that run the whole day."""
        return np.flatnonzero((self.starts_ms <= day_ms) & (self.ends_ms >= day_ms + MS_DAY))

    def rows(self, names: tuple[str, ...]) -> pa.Table:
        """The `ads` table."""
        n = len(self.pin)
        return pa.table(
            {
                "ad_id": np.arange(1, n + 1),
                "pin_id": self.pin + 1,
                "source": pa.array(np.array(names)[self.source]),
                "bid": self.bid,
                "starts_at": times(self.starts_ms),
                "ends_at": times(self.ends_ms),
                "daily_budget": pa.array(self.budget, mask=np.isnan(self.budget)),
            },
            schema=ADS.schema,
        )


@dataclass
class Advertiser:
    """Shows ads to a world's users, block by block, and keeps a day's rows until they are written."""

    tables: Path
    config: WorldConfig
    ads: AdsConfig
    tree: TopicTree
    pins: Pins
    users: Users
    campaigns: Campaigns
    next_request: int = FIRST_ID
    next_event: int = FIRST_ID
    _shown: list[pa.Table] = field(default_factory=list)
    _done: list[pa.Table] = field(default_factory=list)

    @classmethod
    def of(cls, tables: Path, config: WorldConfig, tree: TopicTree, pins: Pins, users: Users) -> Advertiser:
        """Draw the campaigns and write the `ads` table."""
        assert config.ads is not None
        campaigns = Campaigns.draw(config, config.ads, pins)
        pq.write_table(campaigns.rows(tuple(config.ads.sources)), tables / "ads.parquet", compression="zstd")
        return cls(tables, config, config.ads, tree, pins, users, campaigns)

    def show(self, acted: pa.Table, visits: Visits, first_request: int, day: int, block: int) -> None:
        """Show ads beside the related pins of what a block opened; `acted` are the block's action rows."""
        day_ms = int(self.config.start_time.timestamp() * 1000) + day * MS_DAY
        live = self.campaigns.live(day_ms)
        opened = acted.filter(pc.equal(acted.column("action"), "closeup"))
        rng = np.random.default_rng([self.config.seed, 14, day, block])
        chosen = np.flatnonzero(rng.random(len(opened)) < self.ads.page_share)
        if not len(chosen) or not len(live):
            return
        visit = opened.column("request_id").to_numpy()[chosen] - first_request
        anchor = opened.column("pin_id").to_numpy()[chosen] - 1
        at_ms = opened.column("timestamp").cast(pa.int64()).to_numpy()[chosen] // 1000 + PAGE_MS
        pages = Visits(
            who=visits.who[visit],
            at_ms=at_ms,
            intent=visits.intent[visit],
            search=np.zeros(len(visit), bool),
            word=np.zeros(len(visit), np.int64),
        )
        page, campaign = self._pages(anchor, live, rng)
        self._write(page, campaign, anchor, pages, rng)

    def _pages(self, anchor: np.ndarray, live: np.ndarray, rng: np.random.Generator) -> tuple[Page, np.ndarray]:
        """The ads of each page, and the campaign behind each; propensities as in `world_policy`."""
        leaf = self.pins.leaf[self.campaigns.pin[live]]
        weight = np.sqrt(self.campaigns.bid[live])
        order = np.argsort(leaf, kind="stable")
        heap = np.concatenate([[0.0], np.cumsum(weight[order])])
        bounds = np.searchsorted(leaf[order], np.arange(len(self.tree.leaves) + 1))
        low, high = heap[bounds[:-1]], heap[bounds[1:]]
        row = np.repeat(np.arange(len(anchor)), self.ads.slots)
        topic = self.pins.leaf[anchor][row]
        near = (rng.random(len(row)) < self.ads.related) & (high[topic] > low[topic])
        spot = low[topic] + rng.random(len(row)) * (high[topic] - low[topic])
        drawn = order[np.clip(np.searchsorted(heap, spot, side="right") - 1, 0, len(live) - 1)]
        place = np.where(near, drawn, rng.integers(0, len(live), len(row)))
        _, first = np.unique(row * len(live) + place, return_index=True)
        kept = np.sort(first)
        kept = kept[self.campaigns.pin[live[place[kept]]] != anchor[row[kept]]]
        row, place, topic = row[kept], place[kept], topic[kept]

        share = np.where(high[topic] > low[topic], self.ads.related, 0.0)
        total = np.maximum(high[topic] - low[topic], 1e-300)
        chance = share * (leaf[place] == topic) * weight[place] / total + (1 - share) / len(live)
        lengths = np.bincount(row, minlength=len(anchor))
        nth = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        page = Page(
            request=row,
            pin=self.campaigns.pin[live[place]],
            position=(nth + 1) * self.ads.every - 1,
            source=self.campaigns.source[live[place]],
            propensity=1 - (1 - chance) ** self.ads.slots,
        )
        return page, live[place]

    def _write(
        self,
        page: Page,
        campaign: np.ndarray,
        anchor: np.ndarray,
        pages: Visits,
        rng: np.random.Generator,
    ) -> None:
        matches, affinity = self._affinity(page, pages)
        answers = self._answers(page, affinity, pages, rng)
        names = np.array(list(self.ads.sources))
        shown = {
            "request_id": page.request + self.next_request,
            "user_id": pages.who[page.request] + 1,
            "pin_id": page.pin + 1,
            "position": page.position.astype(np.int32),
            "timestamp": times(pages.at_ms[page.request]),
            "surface": pa.array([RELATED_ADS] * len(page.pin), pa.string()),
            "source": pa.array(names[page.source], pa.string()),
            "propensity": page.propensity.astype(np.float32),
            "anchor": anchor[page.request] + 1,
            BID: self.campaigns.bid[campaign],
        }
        self._shown.append(pa.table(shown, schema=IMPRESSION_SCHEMA))
        done = action_rows(
            page,
            pages,
            np.full(len(anchor), None, dtype=object),
            answers,
            affinity,
            self.users,
            matches.argmax(axis=1),
            self.next_request,
            self.next_event,
            rng,
        )
        surface = pa.array([RELATED_ADS] * len(done), pa.string())
        self._done.append(done.set_column(done.schema.get_field_index("surface"), "surface", surface))
        self.next_request += len(anchor)
        self.next_event += len(done)

    def _affinity(self, page: Page, pages: Visits) -> tuple[np.ndarray, np.ndarray]:
        """Match (n, K) of every interest of the user, and the affinity (n,) of the visit's intent."""
        law, who, pin = self.config.behaviour, pages.who[page.request], page.pin
        matches = match(
            self.users.leaf[who],
            self.users.style[who],
            self.pins.leaf[pin],
            self.pins.second[pin],
            self.pins.mix[pin],
            self.pins.style[pin],
            self.tree.leaf_root,
            law,
        )
        strong = strength(self.users.weight[who], pages.intent[page.request], law)
        return matches, (matches * strong).max(axis=1)

    def _answers(self, page: Page, affinity: np.ndarray, pages: Visits, rng: np.random.Generator) -> Answers:
        """Each source's ads are answered by its own law."""
        quality, bias = self.pins.quality[page.pin], self.users.bias[pages.who[page.request]]
        kinds = ("closeup", "click", "long_click", "save", "hide")
        whole = {kind: np.zeros(len(page.pin), bool) for kind in kinds}
        for code, source in enumerate(self.ads.sources.values()):
            at = np.flatnonzero(page.source == code)
            own = answer(affinity[at], quality[at], bias[at], page.position[at], source.behaviour, rng)
            for kind in kinds:
                whole[kind][at] = getattr(own, kind)
        return Answers(**whole)

    def write_day(self, name: str) -> None:
        """Write what was shown and done since the last day, as `ads-<name>` beside the day's other rows."""
        for table, rows, schema in (
            ("impressions", self._shown, IMPRESSION_SCHEMA),
            ("actions", self._done, ACTION_SCHEMA),
        ):
            if rows:
                pq.write_table(
                    pa.concat_tables(rows).cast(schema), self.tables / table / f"ads-{name}", compression="zstd"
                )
            rows.clear()
