"""Events in: checked, durably logged, merged into the user's sequence, and only then answered."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

import numpy as np

from bentos.errors import (
    BadId,
    EventTooOld,
    FutureTimestamp,
    LogUnavailable,
    PinNotFound,
    TooManyEvents,
    UndeclaredIds,
    UnknownAction,
)
from bentos.event_log import EventLog, LogClosed, LogFull, SyncFailed
from bentos.failing import needed
from bentos.features import Features
from bentos.ids import Ids
from bentos.messages import Event, EventsAnswer, EventsRequest, ExternalId
from bentos.metrics import metrics
from bentos.pool import Pool
from bentos.sequences import SequenceWriter, by_user
from validation.events import CLOCK_SKEW_MS, ActionRecord
from validation.ids import MAX_ID, hash_id
from validation.tables import EntityKind, Vocabulary

logger = logging.getLogger("corkboard.events")

STREAM = "actions"
APPLY_DEADLINE_S = 1.0
"""How long an answer waits for the sequence; the log has the events either way."""
CHECK_DEADLINE_MS = 2_000

MAX_WAITING = 50_000
"""Events in line for the log, or for the feature store, from which on more are refused."""

MAX_AGE_DAYS = 30
"""Oldest event taken in: one wrong clock would move the lake's start, and with it every training window."""
MS_PER_DAY = 86_400_000


def _clock_ms() -> int:
    return int(time.time() * 1000)


class EventIntake:
    """Takes requests of events. `log` and `writer` are open; both are closed with it."""

    def __init__(
        self,
        log: EventLog,
        writer: SequenceWriter,
        features: Features,
        ids: Ids,
        vocabulary: Vocabulary,
        pool: Pool,
        *,
        clock_ms: Callable[[], int] = _clock_ms,
    ) -> None:
        self._log, self._writer, self._features = log, writer, features
        self._ids, self._vocabulary, self._pool = ids, vocabulary, pool
        self._clock_ms = clock_ms

    async def accept(self, request: EventsRequest, *, release: int | None = None) -> EventsAnswer:
        """Keep all events of the request or none, but for those of users who were forgotten.

        Such an event is acknowledged, and neither kept nor applied; the metric `corkboard_events` counts it as
        forgotten. The answer says nothing of it: who was forgotten is nobody's to ask.

        Raises TooManyEvents while MAX_WAITING wait for the log or the store, UnknownAction, BadId,
        UndeclaredIds, FutureTimestamp, EventTooOld or PinNotFound naming the first event that is wrong,
        LogUnavailable when the log cannot take them, StoreUnavailable without the id map.
        """
        self._check_line()
        self._check(request.events)
        records = await needed(
            self._pool, "ids", CHECK_DEADLINE_MS, lambda: self._records(request.events, release)
        )
        await self._check_pins(request.events, records)
        metrics().events.labels("forgotten").inc(records.count(None))
        # Begun is finished, even when the client hangs up: what is in the log must reach the sequence.
        return await asyncio.shield(self._keep([record for record in records if record is not None]))

    async def _keep(self, records: list[ActionRecord]) -> EventsAnswer:
        if not records:
            return EventsAnswer(accepted=0, duplicates=0, applied=True)
        try:
            appended = await asyncio.wrap_future(self._log.append(records))
        except LogFull as error:
            raise TooManyEvents(f"{error}; nothing was kept; send them again in a second") from error
        except SyncFailed as error:
            raise LogUnavailable(
                f"what was sent may be kept or not: {error}; send it again, with the same event ids, once the"
                " service was started again"
            ) from error
        except (LogClosed, OSError) as error:
            raise LogUnavailable(f"nothing was kept: {error}; send it again") from error
        # A repeat is merged again too: its first delivery may have died between the log and the store.
        applied = await self._apply(records)
        accepted = sum(appended.fresh)
        counted = metrics().events
        counted.labels("accepted").inc(accepted)
        counted.labels("duplicate").inc(len(records) - accepted)
        return EventsAnswer(accepted=accepted, duplicates=len(records) - accepted, applied=applied)

    async def _apply(self, records: list[ActionRecord]) -> bool:
        stored = asyncio.wrap_future(self._writer.submit(by_user(records, self._vocabulary)))
        try:
            await asyncio.wait_for(asyncio.shield(stored), APPLY_DEADLINE_S)
        except TimeoutError:
            stored.add_done_callback(lambda done: done.cancelled() or done.exception())
            return False
        except Exception as error:
            # The writer keeps the events in line; the answer says that they are not in the feed yet.
            logger.warning("events are logged but not yet applied: %r", error)
            return False
        return True

    def _check_line(self) -> None:
        """Back-pressure, before anything is kept: what was acknowledged is never given up."""
        lines = {"log": self._log.waiting, "store": self._writer.waiting}
        for line, count in lines.items():
            metrics().waiting.labels(line).set(count)
        if max(lines.values()) >= MAX_WAITING:
            line = max(lines, key=lines.__getitem__)
            raise TooManyEvents(
                f"{lines[line]} events wait for the {line}; nothing was kept; send them again in a second"
            )

    def _check(self, events: list[Event]) -> None:
        """What needs no store: actions and times."""
        now = self._clock_ms()
        earliest, latest = now - MAX_AGE_DAYS * MS_PER_DAY, now + CLOCK_SKEW_MS
        for place, event in enumerate(events):
            if event.action not in self._vocabulary.actions:
                allowed = ", ".join(self._vocabulary.actions)
                raise UnknownAction(f"event {place}: unknown action {event.action!r}; allowed: {allowed}")
            if event.timestamp_ms is not None and not 0 < event.timestamp_ms <= latest:
                raise FutureTimestamp(
                    f"event {place}: timestamp_ms {event.timestamp_ms} is not between 1 and {latest}, five"
                    " minutes past the server's clock; send Unix milliseconds, UTC"
                )
            if event.timestamp_ms is not None and event.timestamp_ms < earliest:
                raise EventTooOld(
                    f"event {place}: timestamp_ms {event.timestamp_ms} is more than {MAX_AGE_DAYS} days old;"
                    f" events are taken from {earliest} on, older ones come in through `corkboard ingest`"
                )

    async def _check_pins(self, events: list[Event], records: list[ActionRecord | None]) -> None:
        """Raises PinNotFound. A catalogue that cannot be read lets events pass: the ingest looks again."""
        wanted = np.unique(np.array([record.pin_id for record in records if record], np.int64))
        try:
            known = await self._pool.call("cards", CHECK_DEADLINE_MS, lambda: self._features.cards(wanted))
        except Exception as error:
            # An event is worth more than this check of it: the door quarantines unknown pins later.
            logger.warning("events are taken in without a look at the catalogue: %r", error)
            return
        for place, (event, record) in enumerate(zip(events, records, strict=True)):
            if record is not None and record.pin_id not in known:
                raise _not_in_catalogue(place, event)

    def _records(self, events: list[Event], release: int | None) -> list[ActionRecord | None]:
        """A record an event; None for one of a user who was forgotten."""
        now = self._clock_ms()
        return [self._record(place, event, now, release) for place, event in enumerate(events)]

    def _record(self, place: int, event: Event, now: int, release: int | None) -> ActionRecord | None:
        pin_id = _at(place, lambda: self._ids.inside(EntityKind.PIN, event.pin_id))
        if pin_id == 0:  # a string that was never given a number
            raise _not_in_catalogue(place, event)
        event_id = _number(place, "event_id", event.event_id)
        user_id = _at(place, lambda: self._ids.inside_or_new(EntityKind.USER, event.user_id))
        if user_id == 0:  # forgotten
            return None
        return ActionRecord(
            event_id=event_id,
            user_id=user_id,
            pin_id=pin_id,
            action=event.action,
            timestamp_ms=event.timestamp_ms or now,
            surface=event.surface,
            duration_s=event.duration_s,
            board_id=None if event.board_id is None else self._board(place, event.board_id),
            query=event.query,
            request_id=None if event.request_id is None else _number(place, "request_id", event.request_id),
            release=release,
        )

    def _board(self, place: int, board: ExternalId) -> int:
        """The board's lake id. One event must not choose the form of board ids for a data set without any."""
        if not self._ids.declared(EntityKind.BOARD):
            raise UndeclaredIds(
                f"event {place}: board_id {board!r}, but the data set has no boards; leave it out, or ingest"
                " boards first"
            )
        return _at(place, lambda: self._ids.inside_or_new(EntityKind.BOARD, board))

    def close(self) -> None:
        """Finish what was taken in: the log first, then the sequences."""
        self._log.close()
        self._writer.close()


def _not_in_catalogue(place: int, event: Event) -> PinNotFound:
    return PinNotFound(f"event {place}: pin {event.pin_id!r} is not in the catalogue")


def _number(place: int, name: str, value: ExternalId | None) -> int:
    """A given id (text is hashed, unless it is a whole number), or a new random one."""
    if value is None:
        return secrets.randbits(62) + 1
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit()):
            if not value:
                raise BadId(f"event {place}: {name} '' is empty; leave it out")
            return hash_id(value)
        if len(value.lstrip("0")) > len(str(MAX_ID)):
            raise BadId(f"event {place}: {name} of {len(value)} digits; numbers end at 2^63-1")
        value = int(value)
    if not 0 < value <= MAX_ID:
        raise BadId(f"event {place}: {name} {value} is not a whole number from 1 to 2^63-1")
    return value


def _at(place: int, translate: Callable[[], int]) -> int:
    """`translate()`, with the event's place in the message of a bad id."""
    try:
        return translate()
    except BadId as error:
        raise BadId(f"event {place}: {error.message}") from error
