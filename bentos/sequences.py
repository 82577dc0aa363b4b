"""Keeps users' sequences up to date from the event log: one writer, whole rows, safe to repeat.

Feast's push overwrites a row, so two writers would lose updates; here one thread reads, merges and pushes
for all users of a batch at once. The merge is idempotent by event id, so replaying the log is harmless: that
is how events that were logged but not yet pushed when a process died, or that a batch job wrote over with
older rows, come back.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Items
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from feature_repo.sequence import Event, Sequence, event_of, merge
from validation.events import ActionRecord
from validation.tables import Vocabulary

logger = logging.getLogger("corkboard.sequences")

RETRY_S = 0.5
CLOSE_S = 5.0
REPLAY_USERS = 200
"""Users of one pushed frame when the log is replayed."""


class SequenceStore(Protocol):
    """The part of `Features` that keeps sequences."""

    def sequences(self, user_ids: Items[int]) -> dict[int, Sequence]: ...

    def push_sequences(self, sequences: Mapping[int, Sequence]) -> None: ...


@dataclass(frozen=True)
class _Work:
    events: Mapping[int, list[Event]]
    done: Future[None]


class SequenceWriter:
    """Merges events into stored sequences on a thread of its own. Start it with `start`."""

    def __init__(self, store: SequenceStore) -> None:
        self._store = store
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._waiting, self._door = 0, threading.Lock()
        self._thread = threading.Thread(target=self._run, name="sequences", daemon=True)

    def start(self) -> SequenceWriter:
        self._thread.start()
        return self

    def submit(self, events: Mapping[int, list[Event]]) -> Future[None]:
        """Merge `events` by user; the future is done once they are stored.

        It fails with the store's error when the first try failed; the events stay in line and are tried
        again until they are stored.
        """
        work = _Work(events, Future())
        with self._door:
            self._waiting += _count(events)
        self._queue.put(work)
        return work.done

    @property
    def waiting(self) -> int:
        """Events in line for the store."""
        return self._waiting

    def close(self) -> None:
        """Store what is in line, for a few seconds at most; the log brings the rest back at the next start."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        left: dict[int, list[Event]] = {}
        while True:
            batch = self._take(wait_s=RETRY_S if left else None)
            if not batch and not left:
                if self._stopping.is_set():
                    return
                continue
            waiting = [work for work in batch if work.done.set_running_or_notify_cancel()]
            for work in batch:  # those whose caller went away too: their events are in the log
                for user, events in work.events.items():
                    left.setdefault(user, []).extend(events)
            error = self._store_all(left)
            for work in waiting:
                if error is None:
                    work.done.set_result(None)
                else:
                    work.done.set_exception(error)
            if error is None:
                with self._door:
                    self._waiting -= _count(left)
                left = {}
            elif self._stopping.is_set():
                return

    def _take(self, wait_s: float | None) -> list[_Work]:
        """Everything in line; waits for the first (up to `wait_s`, or for good)."""
        batch: list[_Work | None] = []
        with contextlib.suppress(queue.Empty):
            batch.append(self._queue.get(timeout=wait_s))
            while True:
                batch.append(self._queue.get_nowait())
        return [work for work in batch if work is not None]

    def _store_all(self, events: Mapping[int, list[Event]]) -> Exception | None:
        try:
            stored = self._store.sequences(list(events))
            self._store.push_sequences({user: merge(stored[user], events[user]) for user in events})
        except Exception as error:
            # The events are in the log and stay in line here, so a store that is down only delays them.
            logger.warning("sequences of %d users wait for the store: %r", len(events), error)
            return error
        return None


def _count(events: Mapping[int, list[Event]]) -> int:
    return sum(map(len, events.values()))


def by_user(records: Iterable[ActionRecord], vocabulary: Vocabulary) -> dict[int, list[Event]]:
    """Events of the log by user."""
    events: dict[int, list[Event]] = {}
    for record in records:
        events.setdefault(record.user_id, []).append(event_of(record, vocabulary))
    return events


def replay(writer: SequenceWriter, records: Iterable[ActionRecord], vocabulary: Vocabulary) -> int:
    """Merge logged records again and wait until they are stored; returns how many there were.

    Raises the store's error when it cannot take them now (they stay in line).
    """
    events = by_user(records, vocabulary)
    users = sorted(events)
    for start in range(0, len(users), REPLAY_USERS):
        writer.submit({user: events[user] for user in users[start : start + REPLAY_USERS]}).result()
    return sum(map(len, events.values()))
