"""The data contract: tables, columns, types and the action vocabulary (see docs/architecture.md).

Two layers of names live here and nowhere else:

* the *contract* layer, what a user brings: Parquet tables with int64 or string ids and UTC timestamps;
* the *lake* layer, what is kept after the door: the same columns with every id an int64 (0 is padding),
  `action` an int8 code of the data set's vocabulary and `event_id` filled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum

import pyarrow as pa
from pydantic import AwareDatetime, BaseModel, ConfigDict, field_serializer, field_validator

PADDING_ID = 0

USER_ID = "user_id"
PIN_ID = "pin_id"
BOARD_ID = "board_id"
TOPIC_ID = "topic_id"
REQUEST_ID = "request_id"
EVENT_ID = "event_id"
ACTION = "action"
TIMESTAMP = "timestamp"
CREATED_AT = "created_at"
POSITION = "position"
SOURCE = "source"
PROPENSITY = "propensity"
ANCHOR = "anchor"
SURFACE = "surface"
AD_ID = "ad_id"
BID = "bid"
PREDICTED = "predicted"
STARTS_AT = "starts_at"
ENDS_AT = "ends_at"
STAGE = "stage"
RANK = "rank"
SCORE = "score"
LOGGED = "logged"
QUERY = "query"
RELEVANCE = "relevance"
DAY = "day"

SEARCH = "search"
"""Surface of the results of a query."""

RELATED_ADS = "related_ads"
"""Surface of sponsored pins beside related ones; such an impression's `source` is the ad's source."""

EARLIEST = datetime(2005, 1, 1, tzinfo=UTC)
"""Events before this are taken for clocks that were never set, unless a data set declares otherwise."""

TIME = pa.timestamp("us", tz="UTC")
VECTOR = pa.list_(pa.float32())
IDS = pa.list_(pa.int64())


class Polarity(StrEnum):
    """What an action says of the pin it was taken on."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    NEUTRAL = "neutral"


class EntityKind(StrEnum):
    """The kinds of id that a string may stand for; each has its own map to int64."""

    USER = "user"
    PIN = "pin"
    BOARD = "board"
    TOPIC = "topic"


class Vocabulary(BaseModel):
    """The actions a data set may hold, in order; the code of an action is its place counted from 1.

    Code 0 is padding. The order is part of the contract: an ingest may append actions, never reorder them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    actions: dict[str, Polarity]

    @field_validator("actions")
    @classmethod
    def _bounded(cls, actions: dict[str, Polarity]) -> dict[str, Polarity]:
        if not 1 <= len(actions) <= 126:
            raise ValueError(f"a vocabulary holds 1 to 126 actions, this one {len(actions)}")
        if Polarity.POSITIVE not in actions.values():
            raise ValueError("a vocabulary needs at least one positive action: nothing could be learned")
        return actions

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.actions)

    def code(self, action: str) -> int:
        """The int8 code of `action` (1-based). Raises KeyError for an action outside the vocabulary."""
        if action not in self.actions:
            raise KeyError(f"unknown action {action!r}; allowed: {', '.join(self.actions)}")
        return self.names.index(action) + 1

    def name(self, code: int) -> str:
        """The action of `code`. Raises IndexError outside 1..len."""
        if not 1 <= code <= len(self.actions):
            raise IndexError(f"action code {code} outside 1..{len(self.actions)}")
        return self.names[code - 1]

    def codes(self, polarity: Polarity) -> tuple[int, ...]:
        """Codes of every action of `polarity`, in order."""
        return tuple(i for i, p in enumerate(self.actions.values(), start=1) if p is polarity)


DEFAULT_VOCABULARY = Vocabulary(
    actions={
        "closeup": Polarity.POSITIVE,
        "click": Polarity.POSITIVE,
        "long_click": Polarity.POSITIVE,
        "save": Polarity.POSITIVE,
        "download": Polarity.POSITIVE,
        "hide": Polarity.NEGATIVE,
        "report": Polarity.NEGATIVE,
    }
)


class Contract(BaseModel):
    """What one data set declares about itself; written once beside the lake and read by every room.

    A source folder may carry `contract.yaml` with any of these keys. `string_ids` and `vector_dims` are
    found at the door and fixed by the first ingest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "tables"
    vocabulary: Vocabulary = DEFAULT_VOCABULARY
    string_ids: frozenset[EntityKind] = frozenset()
    vector_dims: dict[str, int] = {}
    """Dimension of each vector column of `pins`; found at the door and fixed by the first ingest."""
    board_name: str = "board"
    """What a board is called in this data set (a basket, a list)."""
    earliest: AwareDatetime = EARLIEST
    """The first instant that an action, an impression or a follow may have; a plain date is its UTC midnight.

    Features are counted for every day from the first event on, so one clock at 1970 would cost decades.
    """
    notes: str = ""
    """One paragraph for the model cards: how impressions, boards and negatives came to be."""

    @field_validator("earliest", mode="before")
    @classmethod
    def _midnight(cls, value: object) -> object:
        if isinstance(value, date) and not isinstance(value, datetime):
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        return value

    @field_validator("earliest")
    @classmethod
    def _since_1970(cls, value: datetime) -> datetime:
        if value.timestamp() < 0:
            raise ValueError("events are kept from 1970-01-01T00:00:00Z on")
        return value

    @field_serializer("string_ids")
    def _in_order(self, kinds: frozenset[EntityKind]) -> list[str]:
        return sorted(kind.value for kind in kinds)


@dataclass(frozen=True)
class Table:
    """One contract table in its lake form."""

    name: str
    required: tuple[str, ...]
    """Columns the source must bring."""
    schema: pa.Schema
    """The lake schema: every column, optional ones nullable."""
    key: tuple[str, ...]
    """Columns that make a row the same row again."""
    ids: dict[str, EntityKind]
    """Which columns hold entity ids of which kind (list columns map element by element)."""
    by_day: bool = False
    """True for event tables, which are kept one folder a UTC day of `timestamp`."""


PINS = Table(
    name="pins",
    required=(PIN_ID, CREATED_AT),
    schema=pa.schema(
        [
            pa.field(PIN_ID, pa.int64(), nullable=False),
            pa.field(CREATED_AT, TIME, nullable=False),
            ("title", pa.string()),
            ("description", pa.string()),
            ("topics", IDS),
            ("link_domain", pa.string()),
            ("image", pa.string()),
            ("visual_embedding", VECTOR),
            ("text_embedding", VECTOR),
        ]
    ),
    key=(PIN_ID,),
    ids={PIN_ID: EntityKind.PIN, "topics": EntityKind.TOPIC},
)

ACTIONS = Table(
    name="actions",
    required=(USER_ID, PIN_ID, ACTION, TIMESTAMP),
    schema=pa.schema(
        [
            pa.field(EVENT_ID, pa.int64(), nullable=False),
            pa.field(USER_ID, pa.int64(), nullable=False),
            pa.field(PIN_ID, pa.int64(), nullable=False),
            pa.field(ACTION, pa.int8(), nullable=False),
            pa.field(TIMESTAMP, TIME, nullable=False),
            (SURFACE, pa.string()),
            ("duration_s", pa.float32()),
            (BOARD_ID, pa.int64()),
            (QUERY, pa.string()),
            (REQUEST_ID, pa.int64()),
        ]
    ),
    key=(EVENT_ID,),
    ids={USER_ID: EntityKind.USER, PIN_ID: EntityKind.PIN, BOARD_ID: EntityKind.BOARD},
    by_day=True,
)

IMPRESSIONS = Table(
    name="impressions",
    required=(REQUEST_ID, USER_ID, PIN_ID, POSITION, TIMESTAMP),
    schema=pa.schema(
        [
            pa.field(REQUEST_ID, pa.int64(), nullable=False),
            pa.field(USER_ID, pa.int64(), nullable=False),
            pa.field(PIN_ID, pa.int64(), nullable=False),
            pa.field(POSITION, pa.int32(), nullable=False),
            pa.field(TIMESTAMP, TIME, nullable=False),
            (SURFACE, pa.string()),
            (SOURCE, pa.string()),
            ("source_topic", pa.int64()),
            (PROPENSITY, pa.float32()),
            ("stage", pa.string()),
            (ANCHOR, pa.int64()),
            (BID, pa.float64()),
            (PREDICTED, pa.float32()),
            (QUERY, pa.string()),
        ]
    ),
    key=(REQUEST_ID, PIN_ID),
    ids={
        USER_ID: EntityKind.USER,
        PIN_ID: EntityKind.PIN,
        "source_topic": EntityKind.TOPIC,
        ANCHOR: EntityKind.PIN,
    },
    by_day=True,
)

CANDIDATES = Table(
    name="candidates",
    required=(REQUEST_ID, USER_ID, PIN_ID, TIMESTAMP, SOURCE, RANK, STAGE, LOGGED),
    schema=pa.schema(
        [
            pa.field(REQUEST_ID, pa.int64(), nullable=False),
            pa.field(USER_ID, pa.int64(), nullable=False),
            pa.field(PIN_ID, pa.int64(), nullable=False),
            pa.field(TIMESTAMP, TIME, nullable=False),
            pa.field(SOURCE, pa.string(), nullable=False),
            pa.field(RANK, pa.int32(), nullable=False),
            (SCORE, pa.float32()),
            pa.field(STAGE, pa.string(), nullable=False),
            pa.field(LOGGED, pa.float32(), nullable=False),
            (SURFACE, pa.string()),
            ("release", pa.int32()),
        ]
    ),
    key=(REQUEST_ID, PIN_ID, SOURCE),
    ids={USER_ID: EntityKind.USER, PIN_ID: EntityKind.PIN},
    by_day=True,
)
"""What a sample of requests fetched, a row a pin and source that brought it; see `events.CandidateRecord`."""

BOARDS = Table(
    name="boards",
    required=(BOARD_ID, USER_ID),
    schema=pa.schema(
        [
            pa.field(BOARD_ID, pa.int64(), nullable=False),
            pa.field(USER_ID, pa.int64(), nullable=False),
            ("title", pa.string()),
        ]
    ),
    key=(BOARD_ID,),
    ids={BOARD_ID: EntityKind.BOARD, USER_ID: EntityKind.USER},
)

TOPICS = Table(
    name="topics",
    required=(TOPIC_ID, "name"),
    schema=pa.schema(
        [
            pa.field(TOPIC_ID, pa.int64(), nullable=False),
            pa.field("name", pa.string(), nullable=False),
            ("parent_id", pa.int64()),
        ]
    ),
    key=(TOPIC_ID,),
    ids={TOPIC_ID: EntityKind.TOPIC, "parent_id": EntityKind.TOPIC},
)

FOLLOWS = Table(
    name="follows",
    required=(USER_ID, TIMESTAMP),
    schema=pa.schema(
        [
            pa.field(USER_ID, pa.int64(), nullable=False),
            pa.field(TIMESTAMP, TIME, nullable=False),
            (TOPIC_ID, pa.int64()),
            (BOARD_ID, pa.int64()),
        ]
    ),
    key=(USER_ID, TOPIC_ID, BOARD_ID),
    ids={USER_ID: EntityKind.USER, TOPIC_ID: EntityKind.TOPIC, BOARD_ID: EntityKind.BOARD},
)

USERS = Table(
    name="users",
    required=(USER_ID,),
    schema=pa.schema(
        [
            pa.field(USER_ID, pa.int64(), nullable=False),
            ("country", pa.string()),
            ("language", pa.string()),
            (CREATED_AT, TIME),
            ("state", pa.string()),
        ]
    ),
    key=(USER_ID,),
    ids={USER_ID: EntityKind.USER},
)

ADS = Table(
    name="ads",
    required=(AD_ID, PIN_ID, SOURCE, BID, STARTS_AT, ENDS_AT),
    schema=pa.schema(
        [
            pa.field(AD_ID, pa.int64(), nullable=False),
            pa.field(PIN_ID, pa.int64(), nullable=False),
            pa.field(SOURCE, pa.string(), nullable=False),
            pa.field(BID, pa.float64(), nullable=False),
            pa.field(STARTS_AT, TIME, nullable=False),
            pa.field(ENDS_AT, TIME, nullable=False),
            ("daily_budget", pa.float64()),
        ]
    ),
    key=(AD_ID,),
    ids={PIN_ID: EntityKind.PIN},
)
"""Campaigns: a pin, the source it comes from (`standard`, `shopping`), and what a click on it pays while it
runs. Bids and budgets are in micro-currency, millionths of the account's currency."""

QUERY_JUDGEMENTS = Table(
    name="query_judgements",
    required=(QUERY, PIN_ID, RELEVANCE),
    schema=pa.schema(
        [
            pa.field(QUERY, pa.string(), nullable=False),
            pa.field(PIN_ID, pa.int64(), nullable=False),
            pa.field(RELEVANCE, pa.float32(), nullable=False),
        ]
    ),
    key=(QUERY, PIN_ID),
    ids={PIN_ID: EntityKind.PIN},
)
"""How well a pin answers a query, graded from 0; a pin that is not judged counts as 0. Search is measured by
it, nothing learns from it. Queries are kept as `queries.normal` writes them."""

TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        TOPICS,
        PINS,
        USERS,
        BOARDS,
        FOLLOWS,
        ADS,
        QUERY_JUDGEMENTS,
        IMPRESSIONS,
        CANDIDATES,
        ACTIONS,
    )
}
"""Every contract table, in the order in which they pass the door (what is pointed at before what points)."""

REQUIRED_TABLES = (PINS.name, ACTIONS.name)

LEARNED_TABLES = tuple(name for name in TABLES if name != QUERY_JUDGEMENTS.name)
"""Tables that anything learned may depend on."""

PIN_REFERENCES = tuple(
    t.name for t in TABLES.values() if t.by_day or t.name in (ADS.name, QUERY_JUDGEMENTS.name)
)
"""Tables whose `pin_id` must be of a pin that exists."""
