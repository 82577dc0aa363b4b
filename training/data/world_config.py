"""Sizes and laws of the demo world: everything that decides what the simulator writes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field, model_validator

MS_DAY = 86_400_000


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Behaviour(_Frozen):
    """How a user answers an impression (`world_behaviour.py` holds the formulas)."""

    examination_floor: float = Field(0.15, ge=0, le=1)
    """Chance of looking at a pin however far down it is."""
    examination_power: float = Field(0.5, ge=0)
    """Decay of examination with position, floor + (1 - floor) / (1 + position) ** power."""
    closeup: tuple[float, float, float] = (-3.6, 4.8, 0.6)
    """Logit of opening an examined pin: bias, per unit of affinity, per unit of pin quality."""
    click: tuple[float, float, float] = (-1.3, 1.4, 0.3)
    """Logit of clicking through after opening."""
    long_click: tuple[float, float, float] = (-0.8, 1.6, 0.0)
    """Logit of staying on the linked page after clicking."""
    save: tuple[float, float, float] = (-2.4, 3.0, 0.25)
    """Logit of saving to a board after opening."""
    hide: float = Field(0.02, ge=0, le=1)
    """Chance of hiding an examined, unopened pin of no interest; falls with (1 - affinity) squared."""
    hide_disliked: float = Field(0.25, ge=0, le=1)
    """Added to it where the pin is of a topic that the user dislikes."""
    user_spread: float = Field(0.4, ge=0)
    """Standard deviation of a user's own readiness to open pins, in logits."""
    same_root: float = Field(0.12, ge=0, le=1)
    """Match of a pin whose topic is only a sibling of the interest's."""
    style_share: float = Field(0.35, ge=0, le=1)
    """Share of the match that the right style decides; the topic decides the rest."""
    off_intent: float = Field(0.6, ge=0, le=1)
    """Strength left to a user's other interests while a session follows one."""


class LoggingPolicy(_Frozen):
    """The recommender that was running when the log was written. Shares of draws by source."""

    interest: float = Field(0.45, ge=0)
    """Topics the policy believes the user likes; partly stale, partly wrong."""
    followed_topics: float = Field(0.20, ge=0)
    popular: float = Field(0.20, ge=0)
    explore: float = Field(0.15, gt=0)
    """Uniform over the catalogue: keeps every propensity above zero."""
    belief_error: float = Field(0.30, ge=0, le=1)
    """Chance that a believed topic is a random one."""
    draws: int = Field(24, ge=1)
    """Independent draws that make one page; repeats and pins acted on before fall away."""
    page_noise: float = Field(1.5, ge=0)
    """Noise in the order of a page; without it, position would follow popularity exactly."""

    @model_validator(mode="after")
    def _sums_to_one(self) -> LoggingPolicy:
        total = self.interest + self.followed_topics + self.popular + self.explore
        if abs(total - 1) > 1e-6:
            raise ValueError(f"shares of the logging policy sum to {total:.4f}; they must sum to 1")
        return self


class QueryLaw(_Frozen):
    """How searches are worded (`world_queries.py`). The four shares are of all searches; the rest use the
    catalogue's own words in their order."""

    synonym: float = Field(0.22, ge=0, le=1)
    """Other words for the thing; before the last days, a held back one becomes a hypernym."""
    hypernym: float = Field(0.12, ge=0, le=1)
    """Other words for the topic."""
    reordered: float = Field(0.08, ge=0, le=1)
    mistyped: float = Field(0.08, ge=0, le=1)
    held_back: float = Field(0.3, ge=0, lt=1)
    """Share of each topic's synonyms, and of its hypernyms, that nobody uses before the last days."""
    held_back_until: float = Field(0.8, ge=0, le=1)
    """Share of the days after which they come into use."""
    pull: float = Field(6.0, ge=1)
    """How many times as readily a searcher opens a pin of the thing searched for as another of its topic."""
    judged: int = Field(300, ge=1)
    """Different queries of the last days whose answers are graded."""

    @model_validator(mode="after")
    def _shares(self) -> QueryLaw:
        total = self.synonym + self.hypernym + self.reordered + self.mistyped
        if total > 1:
            raise ValueError(f"shares of the ways to word a search sum to {total:.4f}; they must not exceed 1")
        return self


class AdSourceLaw(_Frozen):
    """One kind of campaign: how many there are, what they bid, and how users answer them."""

    share: float = Field(gt=0, le=1)
    """Of all campaigns; shares sum to 1."""
    bid: float = Field(gt=0)
    """Median bid a click, micro-currency."""
    behaviour: Behaviour


class AdsConfig(_Frozen):
    """Sponsored pins: campaigns, and the slots among related pins that show them."""

    pin_share: float = Field(0.05, gt=0, le=1)
    """Share of the catalogue that has a campaign."""
    page_share: float = Field(0.7, ge=0, le=1)
    """Share of closeups whose related pins have slots for ads."""
    slots: int = Field(2, ge=1)
    """Draws for one page; repeats fall away."""
    every: int = Field(4, ge=1)
    """One place in so many is an ad's: the first stands at 0-based position `every` - 1."""
    related: float = Field(0.8, ge=0, lt=1)
    """Share of draws from campaigns of the opened pin's topic, by the square root of their bids; the rest are
    uniform over every live campaign, which keeps propensities above zero."""
    days: tuple[int, int] = (7, 60)
    """Shortest and longest campaign."""
    sources: dict[str, AdSourceLaw] = {
        "standard": AdSourceLaw(
            share=0.6,
            bid=400_000,
            behaviour=Behaviour(
                closeup=(-4.0, 4.2, 0.3), click=(-1.0, 1.8, 0.0), long_click=(-1.2, 2.4, 0.0), hide=0.02
            ),
        ),
        "shopping": AdSourceLaw(
            share=0.4,
            bid=250_000,
            behaviour=Behaviour(
                closeup=(-3.4, 1.2, 1.0), click=(-0.4, 0.2, 0.7), long_click=(-0.3, 0.2, 0.8), hide=0.05
            ),
        ),
    }
    """By name. Standard ads are opened where they fit the interest, shopping ads where the pin is good."""

    @model_validator(mode="after")
    def _shares(self) -> AdsConfig:
        total = sum(source.share for source in self.sources.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"shares of the ad sources sum to {total:.4f}; they must sum to 1")
        if not 1 <= self.days[0] <= self.days[1]:
            raise ValueError(f"campaigns last {self.days[0]} to {self.days[1]} days; give the shorter first")
        return self


class WorldConfig(_Frozen):
    """One world. Equal configurations write equal tables, byte for byte."""

    users: int = Field(ge=1, le=50_000_000)
    pins: int = Field(ge=1, le=50_000_000)
    days: int = Field(ge=1)
    end: date = Field(default_factory=lambda: datetime.now(UTC).date())
    """First day after the world, UTC: every timestamp is before its midnight."""
    seed: int = 7
    leaves_per_root: int = Field(6, ge=1, le=6)
    """Topics under each of the eight roots."""
    visual_dim: int = Field(64, ge=8)
    visual_noise: float = Field(1.1, ge=0)
    """Length of a content vector's noise; its signal has length about 1."""
    max_interests: int = Field(5, ge=2, le=8)
    """A user has two to this many interests at a time."""
    disliked: int = Field(2, ge=0)
    """Topics a user cannot stand, for as long as none of them becomes an interest."""
    sessions_per_day: float = Field(0.4, gt=0)
    """Mean over users and days; single users differ by their state and their own rate."""
    requests_per_session: float = Field(1.7, ge=1)
    search_share: float = Field(0.15, ge=0, le=1)
    """Share of requests that are searches."""
    drift_per_day: float = Field(0.03, ge=0, le=1)
    """Chance that a user's interests change on a day."""
    behaviour: Behaviour = Behaviour()
    policy: LoggingPolicy = LoggingPolicy()
    queries: QueryLaw = QueryLaw()
    ads: AdsConfig | None = None
    """None: no sponsored pins. They are drawn apart: everything else is the same world with and without."""
    images: bool = True
    """False leaves the pictures out (half the bytes of a large catalogue)."""
    block_users: int = Field(20_000, ge=1)
    """Users simulated at once; with `block_pins`, what bounds memory."""
    block_pins: int = Field(50_000, ge=1)

    @classmethod
    def tiny(cls, **changes: object) -> WorldConfig:
        """200 users, 1,500 pins, 14 days: about a second, for tests."""
        return cls(
            **{
                "users": 200,
                "pins": 1_500,
                "days": 14,
                "leaves_per_root": 3,
                "sessions_per_day": 0.9,
                **changes,
            }
        )

    @classmethod
    def demo(cls, **changes: object) -> WorldConfig:
        """2,000 users, 12,000 pins, 35 days, with ads: what `make demo` shows."""
        return cls(**{"users": 2_000, "pins": 12_000, "days": 35, "ads": AdsConfig(), **changes})

    @property
    def end_time(self) -> datetime:
        """Exclusive end, a UTC midnight."""
        return datetime(self.end.year, self.end.month, self.end.day, tzinfo=UTC)

    @property
    def start_time(self) -> datetime:
        return self.end_time - timedelta(days=self.days)
