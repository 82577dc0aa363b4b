"""One record of the durable event log: what the services write and the next training run reads.

The log is a folder of segments, `<segment>.jsonl`, appended to and never rewritten; segments sort by name in
the order in which they were begun. One line is one record, UTF-8 JSON, ended by `\\n`: a last line without
its newline was never acknowledged and is not a record. Ids are the lake's int64 ids (`validation.ids`),
actions are the vocabulary's names, times are Unix milliseconds, UTC.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

SEGMENT_SUFFIX = ".jsonl"

CLOCK_SKEW_MS = 5 * 60_000
"""How far ahead of the server's clock an event's own time may run."""

Id = Annotated[int, Field(gt=0, lt=2**63)]
UnixMs = Annotated[int, Field(ge=0, lt=253_402_300_800_000)]
"""Milliseconds since 1970 UTC, before the year 10000."""


class _Logged(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    event_id: Id
    """Makes the record the same record again: appending it twice counts once."""
    user_id: Id
    timestamp_ms: UnixMs
    """When it happened, by the client's word or, failing that, the server's clock."""
    surface: str | None = None
    release: int | None = None
    """Version of the release that served the answer this belongs to."""


class _Record(_Logged):
    pin_id: Id


class ActionRecord(_Record):
    """What a user did to a pin."""

    kind: Literal["action"] = "action"
    action: str
    duration_s: float | None = Field(default=None, ge=0)
    board_id: Id | None = None
    query: str | None = None
    request_id: Id | None = None
    """The answer in which the user saw the pin."""


class ImpressionRecord(_Record):
    """One pin of one answer."""

    kind: Literal["impression"] = "impression"
    request_id: Id
    position: int = Field(ge=0, lt=2**31)
    """0 is the first place of the answer."""
    source: str | None = None
    """Candidate source that brought the pin."""
    source_topic: Id | None = None
    """Topic the pin was retrieved by, if one."""
    anchor: Id | None = None
    """Pin the shown one follows from: PinnerSage's medoid, the pin that related pins are of."""
    propensity: float | None = Field(default=None, gt=0, le=1)
    """Probability with which the policy put this pin in this place."""
    stage: str | None = None
    """Funnel stage that decided the place (`merged`, `light`, `ranked`, `exploration`)."""
    score: float | None = None
    ranker: str | None = None
    """`model@version` that foretold `heads`, where the pin was ranked."""
    heads: dict[str, float] | None = None
    """Probability of each action, as the place was decided by."""
    calibrated: bool | None = None
    """Whether `heads` are calibrated."""
    policy: str | None = None
    """Digest of the utility weights and diversity that made `score` of `heads`."""
    bid: float | None = Field(default=None, ge=0)
    """Of a sponsored pin: micro-currency that a click pays."""
    predicted: float | None = Field(default=None, ge=0, le=1)
    """Of a sponsored pin: calibrated click probability that it was ranked by."""
    query: str | None = None
    """What the user searched for, on the search surface."""


class Reached(StrEnum):
    """How far down the funnel a candidate came before it was cut."""

    FETCHED = "fetched"
    """A source brought it; the merge had no room for it."""
    MERGED = "merged"
    """A filter took it: hidden, or seen."""
    LIGHT = "light"
    """It stood in line for light scoring; the shortlist left it out."""
    RANKED = "ranked"
    """It made the shortlist for heavy ranking; the answer has others."""
    SHOWN = "shown"


class CandidateRecord(_Record):
    """One pin that one source brought to a request of the sample, and what became of it."""

    kind: Literal["candidate"] = "candidate"
    request_id: Id
    source: str
    rank: int = Field(ge=0, lt=2**31)
    """Place in the source's own list, 0 is its best."""
    score: float | None = None
    """What the source ordered by; comparable within the source and release only."""
    stage: Reached
    logged: float = Field(gt=0, le=1)
    """Chance that the pin was logged, given that its request was: 1 where it was shown."""


Packed = Annotated[bytes, Field(repr=False)]
"""A matrix of little-endian float32, row by row; base64 in the line."""


class RankingRecord(_Logged):
    """What the ranking of one answer saw and said of the n pins shown, to hold against what training sees."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    kind: Literal["ranking"] = "ranking"
    request_id: Id
    query: str | None = None
    ranker: str
    """`model@version`."""
    pin_ids: tuple[Id, ...]
    features: tuple[str, ...]
    """Names of the F features, as training rows name them."""
    values: Packed
    """(n, F), NaN where nothing was known."""
    heads: tuple[str, ...]
    """Names of the H heads."""
    scores: Packed
    """(n, H) probabilities."""
    calibrated: bool
    """Whether `scores` are calibrated."""
    sequence_length: int = Field(ge=0)
    """Actions in the user's sequence, before the request."""
    sequence_newest_ms: UnixMs
    """Time of the newest of them, 0 for none."""
    history_as_of_ms: UnixMs = 0
    """Midnight of the user's history, for a ranker that selects from it; 0 where none was read."""
    history_length: int = Field(0, ge=0)
    """Actions of that history."""
    history_shown: int = Field(0, ge=0)
    """Impressions of that history."""

    @model_validator(mode="after")
    def _belongs(self) -> RankingRecord:
        n = len(self.pin_ids)
        for name, packed, width in (
            ("values", self.values, len(self.features)),
            ("scores", self.scores, len(self.heads)),
        ):
            if len(packed) != 4 * n * width:
                raise ValueError(f"{name} has {len(packed)} bytes; {n} x {width} float32 are {4 * n * width}")
        return self


class ForgottenRecord(BaseModel):
    """Where a record of a forgotten user was. It says nothing, and nobody reads it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["forgotten"] = "forgotten"
    event_id: Id = 1
    timestamp_ms: UnixMs = 0


AnyRecord = ActionRecord | ImpressionRecord | CandidateRecord | RankingRecord | ForgottenRecord
Record = Annotated[AnyRecord, Field(discriminator="kind")]
RECORD: TypeAdapter[AnyRecord] = TypeAdapter(Record)


def to_line(record: AnyRecord) -> bytes:
    """The record as one line of the log, newline included; absent fields are left out."""
    return record.__pydantic_serializer__.to_json(record, exclude_none=True) + b"\n"


def to_lines(records: Sequence[Mapping[str, object]]) -> tuple[bytes, ...]:
    """`to_line` of records given as their fields, in the record's order and without those that are absent.

    A tenth of the time: nothing is validated, and all are written at once. A text cannot hold what parts them,
    for its quotes are escaped.
    """
    begin = b'{"event_id":'
    told = orjson.dumps(records)[1:-1].replace(b"}," + begin, b"}\n" + begin)
    return tuple((told + b"\n").splitlines(keepends=True)) if records else ()


def from_line(line: bytes | str) -> AnyRecord:
    """The record of one line. Raises pydantic.ValidationError naming the field that is wrong."""
    return RECORD.validate_json(line)


def segments_of(folder: Path, stream: str) -> list[Path]:
    """The stream's segments, oldest first; none where there is no folder."""
    begin = f"{stream}-"
    try:
        names = sorted(os.listdir(folder))  # whoever follows a stream looks twice a second: no glob
    except FileNotFoundError:
        return []
    return [
        folder / name
        for name in names
        if name.startswith(begin) and name.endswith(SEGMENT_SUFFIX) and name[len(begin)].isdigit()
    ]


def whole_lines(segment: Path, start: int = 0) -> Iterator[tuple[bytes, int]]:
    """(line, byte after it) of every line from byte `start` that ends with its newline."""
    with segment.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            yield line, start


def readable(folder: Path, stream: str, tell: Callable[[str], None] = lambda _: None) -> Iterator[AnyRecord]:
    """Records of a stream, in the order of the log; a line cut short by a crash ends a segment.

    A line that is no record is passed by; `tell` hears how many of a segment were, never what is in them.
    """
    for segment in segments_of(folder, stream):
        unreadable = 0
        for line, _ in whole_lines(segment):
            try:
                record = from_line(line)
            except ValidationError:
                unreadable += 1
                continue
            yield record
        if unreadable:
            tell(f"{unreadable} unreadable line{'s' * (unreadable > 1)} of {segment.name}")


def written_before(segment: Path, time_ms: float) -> bool:
    """Whether a segment was last written well before a time: it holds no event of that time or later, since an
    event is logged after it happened, but for a clock that runs ahead by up to CLOCK_SKEW_MS."""
    return segment.stat().st_mtime * 1000 + CLOCK_SKEW_MS < time_ms
