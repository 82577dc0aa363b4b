"""Requests and answers of the services: what OpenAPI shows and what the page reads.

Ids are the data set's own: whole numbers or strings, as its tables have them. A whole number past 2^53 is
written as a string in answers, since JSON readers in browsers would round it; both forms are accepted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bentos.given import GivenId, GivenText, Int64
from validation.queries import MAX_QUERY

ExternalId = int | str

MAX_DURATION_S = 7 * 86_400
"""Longest time that one event may claim to have lasted."""

MAX_LIMIT = 200
"""Pins, users or queries one answer may hold."""

MAX_EVENTS = 1_000
"""Events one request may carry."""

MAX_IDS = 1_000
"""Ids one request may name."""


def _limit(default: int, description: str = "How many.") -> int:
    """How many an answer holds; the bounds are shown by OpenAPI and enforced by name (LimitOutOfRange)."""
    bounds = {"minimum": 1, "maximum": MAX_LIMIT}
    return Field(default, strict=True, description=description, json_schema_extra=bounds)


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FeedRequest(Message):
    """Ask for a home feed."""

    user_id: GivenId
    limit: int = _limit(50)
    exclude: list[GivenId] = Field(
        default_factory=list, description=f"Pins already on the screen, at most {MAX_IDS}."
    )


class RelatedRequest(Message):
    """Ask for pins related to one pin, or to the pins of one board."""

    pin_id: GivenId | None = Field(None, description="The pin; or name a board.")
    board_id: GivenId | None = Field(None, description="The board; or name a pin.")
    user_id: GivenId | None = Field(None, description="Who asks; leaves out what they hid and logs who saw it.")
    limit: int = _limit(25)


class RelatedAdsRequest(Message):
    """Ask for the ads of a page of pins related to one pin."""

    pin_id: GivenId = Field(description="The pin the page is of.")
    user_id: GivenId | None = Field(None, description="Who asks; ads are priced for them, and logged.")
    limit: int = _limit(25, "Places of the page; ads get one in so many as the policy says.")


def query_field(default: Any, description: str) -> Any:
    """Typed text; its length is shown by OpenAPI and enforced by name (QueryTooLong)."""
    return Field(default, description=description, json_schema_extra={"maxLength": MAX_QUERY})


class SearchRequest(Message):
    """Ask for pins by what somebody typed."""

    query: str = query_field(..., "Words, in any script; what is past the encoder's longest input is cut off.")
    user_id: GivenId | None = Field(None, description="Who asks; results are ranked for them, and logged.")
    limit: int = _limit(50)


class SuggestionsRequest(Message):
    """Ask how others went on who began to type the same."""

    prefix: str = query_field("", "What is typed so far; nothing asks for what is searched for most.")
    limit: int = _limit(8)


class SuggestionsAnswer(Message):
    """Queries that at least three people made, those of most people first."""

    release: int
    queries: list[str]


# What an answer holds dozens of is no model: it needs no validation. Without slots, which orjson writes slower.
@dataclass(frozen=True)
class Topic:
    topic_id: ExternalId
    name: str


@dataclass(frozen=True)
class Why:
    """Why a pin is where it is, for people."""

    kind: Annotated[
        str,
        Field(
            description="interest, recent, next, taste, together, board, topic, popular, similar, words or"
            " meaning."
        ),
    ]
    text: Annotated[str, Field(description="One short line: 'Because you saved Oak bench'.")]
    pin_id: Annotated[ExternalId | None, Field(description="The pin it follows from, if one.")] = None
    topic_id: Annotated[ExternalId | None, Field(description="The topic it follows from, if one.")] = None


@dataclass(kw_only=True)
class Pin:
    """A pin as a card shows it."""

    pin_id: ExternalId
    title: str = ""
    description: str = ""
    link_domain: str = ""
    image: Annotated[
        str, Field(description="URL, path or data URI; empty where the data set has no picture.")
    ] = ""
    topics: list[Topic] = field(default_factory=list)


@dataclass(kw_only=True)
class FeedPin(Pin):
    """A pin of an answer, with where it came from."""

    position: Annotated[int, Field(description="0 is the first place.")]
    source: Annotated[str, Field(description="Candidate source that brought it.")]
    score: Annotated[float, Field(description="What it was ordered by; its utility where it was ranked.")]
    heads: Annotated[
        dict[str, float], Field(description="Probability of each action that the ranker foretells.")
    ] = field(default_factory=dict)
    why: Why
    sponsored: Annotated[
        str | None,
        Field(
            description="The ad's source, where the pin is one: it must be marked as such. Its score is the "
            "expected value of showing it, micro-currency."
        ),
    ] = None


@dataclass(frozen=True)
class StageReport:
    """One stage of the funnel in this very answer."""

    name: str
    count: Annotated[int, Field(description="Pins left after it.")]
    ms: float


@dataclass(frozen=True)
class SourceReport:
    """One candidate source in this very answer."""

    name: str
    count: int
    ms: float
    missing: Annotated[
        str | None, Field(description="Why it brought nothing: deadline, the error's name, or skipped.")
    ] = None


@dataclass(frozen=True)
class InterestReport:
    """One of the user's interests: a cluster of what they acted on in the last months, as of last night."""

    pin_id: Annotated[ExternalId, Field(description="The cluster's medoid.")]
    importance: Annotated[float, Field(description="Its share of the importance of all the user's clusters.")]
    size: Annotated[int, Field(description="Pins in the cluster.")]
    asked: Annotated[
        bool,
        Field(
            description="Its neighbours are among this answer's candidates; which are asked is drawn by"
            " importance."
        ),
    ]


class UtilityReport(Message):
    """What ordered the pins of this very answer: utility = sum of weights x probabilities."""

    ranker: str
    calibrated: bool = Field(description="False: the ranker's scores stand for probabilities as they are.")
    policy: str = Field(description="Digest of the weights and the diversity: another number, another digest.")
    weights: dict[str, float] = Field(description="What one action is worth, by head of the ranker.")
    unweighed: list[str] = Field(
        description="Actions with a weight that the ranker does not foretell: those weights change nothing."
    )
    theta: float = Field(description="1 orders by utility alone, under the caps; 0 by variety alone.")


class Correction(Message):
    """A word that the catalogue does not know, and the one it was read as."""

    typed: str
    read: str
    sure: bool = Field(True, description="Whether no other word of the catalogue is as near.")


class QueryReport(Message):
    """What was searched for in this very answer."""

    text: str = Field(description="The query in normal spelling.")
    corrected: list[Correction] = Field(description="Words read as others; only the search by words does.")
    unknown: list[str] = Field(description="Words that no pin says, and that are taken for no slip.")
    without: list[str] = Field(
        description="Parts of search that the release has not, and why; empty where it searches by words and "
        "by meaning."
    )


class FeedAnswer(Message):
    """Pins, the release that chose them, and what each stage did."""

    request_id: int
    user_id: ExternalId | None
    release: int
    spaces: list[str]
    pins: list[FeedPin]
    stages: list[StageReport]
    sources: list[SourceReport]
    interests: list[InterestReport] = Field(
        [], description="The user's, most important first, where the answer's sources ask for them."
    )
    query: QueryReport | None = Field(None, description="None but for a search.")
    utility: UtilityReport | None = Field(None, description="None where nothing was ranked.")
    policy_refused: str | None = Field(
        None, description="Why the file of weights is not what this answer was made by, and how to mend it."
    )
    quality: float = Field(1.0, description="Share of the funnel's work that was done; below 1 under load.")
    missing: list[str] = Field(
        description="Sources and stages that failed open in this answer; empty when all is well."
    )
    fallback: str | None = Field(
        None, description="What the answer rests on where the request's subject is unknown."
    )
    ms: float


class Event(Message):
    """Something a user did to a pin."""

    user_id: GivenId
    pin_id: GivenId
    action: GivenText = Field(description="One of the data set's actions.")
    event_id: GivenId | None = Field(
        None, description="Makes a repeat harmless; without it every delivery counts as a new event."
    )
    timestamp_ms: Int64 | None = Field(None, description="When it happened, Unix ms UTC; now if left out.")
    surface: GivenText | None = Field(
        None, description="Where: homefeed, related, search or any other name the data set uses."
    )
    duration_s: float | None = Field(None, ge=0, le=MAX_DURATION_S, allow_inf_nan=False)
    board_id: GivenId | None = None
    query: Annotated[str, Field(max_length=MAX_QUERY)] | None = Field(
        None, description="What was searched for, where the pin is a result of it."
    )
    request_id: GivenId | None = Field(None, description="The answer in which the user saw the pin.")


class EventsRequest(Message):
    events: list[Event] = Field(
        min_length=1, max_length=MAX_EVENTS, description=f"1 to {MAX_EVENTS} events; all are kept or none."
    )


class EventsAnswer(Message):
    """Every event of the request is on disk, but for those of forgotten users, which neither number counts."""

    accepted: int = Field(description="Events not seen before.")
    duplicates: int = Field(description="Events whose id is already in the log.")
    applied: bool = Field(description="True when the next feed reflects them; false when that follows shortly.")


class UsersRequest(Message):
    limit: int = _limit(24)


class UserSketch(Message):
    """A user as the page's picker shows them."""

    user_id: ExternalId
    actions: int = Field(description="Actions of the last day that the data set holds.")
    topics: list[Topic] = Field(
        default_factory=list, description="Topics they follow, or act on where they follow none."
    )


class UsersAnswer(Message):
    users: list[UserSketch]
    dataset: str
    actions: dict[str, Literal["positive", "negative", "neutral"]] = Field(
        description="The data set's actions, in order."
    )
    board_name: str


class PinsRequest(Message):
    pin_ids: list[GivenId] = Field(description=f"1 to {MAX_IDS} pins.")


class PinsAnswer(Message):
    pins: list[Pin]
    unknown: list[ExternalId]
