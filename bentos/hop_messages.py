"""What the home feed asks retrieval and ranking, and what they answer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bentos.given import GivenText, Int64, UnixMs
from bentos.messages import Message, SourceReport, query_field

MAX_CANDIDATES = 2_000
"""Candidates one ranking request may carry."""

MAX_BROUGHT = 10_000
"""Pins that the sources of one light ranking request may have brought, repeats included."""


def _missing() -> Any:
    return Field(default_factory=list, description="What the answer went without, as FeedAnswer says it.")


class RetrieveRequest(Message):
    """Ask for candidates. Ids here are the lake's int64: this speaks to the home feed, not to the public."""

    surface: Literal["homefeed", "related", "related_ads", "search"] = "homefeed"
    user_id: Int64 = Field(0, description="0 = nobody known.")
    pin_id: Int64 = Field(0, description="The pin that related pins are asked for.")
    board_id: Int64 = Field(0, description="The board that related pins are asked for.")
    query: str = query_field("", "What is searched for, in normal spelling.")
    release: Int64 | None = Field(None, description="Answer with this release or refuse.")
    seed: Int64 = 0
    now_ms: UnixMs | None = None
    quality: float = Field(1.0, ge=0, le=1, description="Sources dearer than this are left out.")


class RetrieveAnswer(Message):
    """Candidates after the merge, parallel lists."""

    release: int
    pin_ids: list[int]
    scores: list[float]
    sources: list[str]
    anchors: list[int] = Field(description="The pin, board or topic each candidate follows from; 0 = none.")
    kinds: list[str]
    reports: list[SourceReport]
    fallback: str | None = None
    missing: list[str] = _missing()


class HeldRequest(Message):
    """Ask whether a release is held."""

    release: Int64


class HeldAnswer(Message):
    """It is; a process that does not hold it refuses."""

    release: int


class RankRequest(Message):
    """Ask for scores of candidates, by the lake's int64 ids."""

    user_id: Int64 = Field(0, description="0 = nobody known.")
    pin_ids: list[Int64] = Field(description=f"1 to {MAX_CANDIDATES} candidates.")
    release: Int64 | None = Field(None, description="Answer with this release or refuse.")
    now_ms: UnixMs | None = None
    anchor: Int64 = Field(0, description="Ads: the pin they are shown beside.")
    query: str = query_field("", "Search: what is searched for, in normal spelling.")
    seen: bool = Field(False, description="Whether to say what was read, for the log of rankings.")


class Brought(Message):
    """What one source brought to the request, best first, parallel lists."""

    source: GivenText
    pin_ids: list[Int64]
    scores: list[float]


class LightRequest(RankRequest):
    """Ask for light scores; the trees read what every source said of a pin."""

    brought: list[Brought] = Field(default_factory=list, description=f"At most {MAX_BROUGHT} pins in all.")


class LightAnswer(Message):
    """Light scores, parallel to the request's `pin_ids`."""

    release: int
    scores: list[float]
    missing: list[str] = _missing()


class SeenAnswer(Message):
    """What a ranking read of the user and of the request's `pin_ids`."""

    features: list[str]
    values: list[list[float | None]] = Field(
        description="For each pin a list parallel to `features`; null where nothing is known."
    )
    sequence_length: int = Field(description="Actions in the user's sequence, before the request.")
    sequence_newest_ms: UnixMs = Field(description="When the newest of them happened; 0 for none.")
    history_as_of_ms: UnixMs = Field(description="Midnight of the user's history; 0 where none was read.")
    history_length: int = Field(description="Actions of that history.")
    history_shown: int = Field(description="Impressions of that history.")


class RankAnswer(Message):
    """What the ranker foretells, before calibration."""

    release: int
    ranker: str
    heads: list[str]
    reads_query: bool = Field(False, description="Whether the ranker weighs what is searched for.")
    probabilities: list[list[float | None]] = Field(
        description="For each of `heads` a list parallel to the request's `pin_ids`; null where there is none."
    )
    missing: list[str] = _missing()
    seen: SeenAnswer | None = Field(None, description="Where the request asks for it.")
