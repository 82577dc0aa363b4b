"""The durable event log: what is acknowledged here is never lost and never kept twice.

Contract. A log is one *stream* of records (`validation.events`) as JSON lines in numbered segments,
`<stream>-00000001.jsonl`, written by one process (a lock says so). `append` returns a future that is done only
after the records, and those of every other caller that came meanwhile (group commit), were written and
fsynced. Records of a stream that nobody waits for may gather in memory for `gather_s` first, and a process
that is killed loses these. A record whose event id is among the last `remembered` ids is not written again and
is acknowledged with the batch that made it durable; older repeats are dropped by the ingest, which keys on the
event id.

How segments are read, and recovered after a crash, is said in `log_segments.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bentos.log_segments import recent_ids, recover, segment_name
from validation.events import AnyRecord as Record
from validation.events import segments_of, to_line
from validation.whole_files import sync_folder

logger = logging.getLogger("corkboard.events")

SEGMENT_BYTES = 64 << 20
REMEMBERED_IDS = 200_000

WAITING = 50_000
"""Records in line for the disk, at most."""


class LogClosed(RuntimeError):
    """Appended to a log that was closed, or that failed to reach the disk and must be reopened."""


class LogFull(RuntimeError):
    """More records wait for the disk than may; none of these was kept."""


class LogInUse(RuntimeError):
    """Another process writes this stream."""


class SyncFailed(OSError):
    """Records were written, all or some, and whether they are on disk nobody knows."""


@dataclass(frozen=True)
class Appended:
    """What became of one `append`: for each record, was it new?"""

    fresh: tuple[bool, ...]


class RecordLog(Protocol):
    """What writers of a stream need of it."""

    @property
    def stream(self) -> str: ...

    def append_lines(self, event_ids: tuple[int, ...], lines: tuple[bytes, ...]) -> Future[Appended]:
        """Raises LogFull, LogClosed."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class _Entry:
    event_ids: Sequence[int]
    text: bytes
    """A line for each."""
    done: Future[Appended]


class EventLog:
    """One stream of a durable log, open for writing. Build it with `EventLog.open`."""

    def __init__(
        self,
        folder: Path,
        stream: str,
        *,
        lock: int,
        segment: Path,
        recent: Iterable[int],
        segment_bytes: int,
        remembered: int,
        waiting: int,
        gather_s: float,
        sync: Callable[[int], None],
    ) -> None:
        self.folder, self.stream = folder, stream
        self._lock, self._segment = lock, segment
        self._order, self._remembered = deque(recent), remembered
        """Ids that are known again, oldest first."""
        self._recent = set(self._order)
        self._segment_bytes, self._gather_s, self._sync = segment_bytes, gather_s, sync
        self._waiting, self._most_waiting = 0, waiting
        self._file = -1
        self._size = 0
        self._failed: Exception | None = None
        self._refused = False
        """The disk took nothing the last time; it is said once."""
        self._closed = threading.Event()
        self._door = threading.Lock()
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"event-log-{stream}", daemon=True)

    @classmethod
    def open(
        cls,
        folder: Path,
        stream: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        remembered: int = REMEMBERED_IDS,
        waiting: int = WAITING,
        gather_s: float = 0.0,
        sync: Callable[[int], None] = os.fsync,
    ) -> EventLog:
        """Lock the stream, recover its last segment and start writing after it.

        Raises LogInUse if another process holds the stream, LogDamaged as the module says.
        """
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder / f"{stream}.lock")
        try:
            segments = segments_of(folder, stream)
            if segments:
                recover(segments[-1])
            recent = recent_ids(segments, remembered)
        except BaseException:
            os.close(lock)
            raise
        log = cls(
            folder,
            stream,
            lock=lock,
            segment=segments[-1] if segments else folder / segment_name(stream, 1),
            recent=recent,
            segment_bytes=segment_bytes,
            remembered=remembered,
            waiting=waiting,
            gather_s=gather_s,
            sync=sync,
        )
        log._open_segment(log._segment)
        log._thread.start()
        return log

    def append(self, records: Sequence[Record]) -> Future[Appended]:
        """Queue records; the future is done when all of them are on disk.

        Raises LogFull at once when as many wait as may, LogClosed at once, or through the future, when they
        could not be kept; through the future SyncFailed, when they may be kept or not, and any other OSError,
        when the disk took none of them.
        """
        return self.append_lines(tuple(r.event_id for r in records), tuple(to_line(r) for r in records))

    def append_lines(self, event_ids: tuple[int, ...], lines: tuple[bytes, ...]) -> Future[Appended]:
        """`append` of records that were written as lines (`to_line`) elsewhere."""
        return self.append_text(event_ids, b"".join(lines))

    def append_text(self, event_ids: Sequence[int], text: bytes) -> Future[Appended]:
        """`append_lines` of lines that follow each other in `text`."""
        entry = _Entry(event_ids, text, Future())
        with self._door:
            if self._closed.is_set() or self._failed:
                why = f": {self._failed}" if self._failed else ""
                raise LogClosed(
                    f"the event log {self.stream!r} takes no more records{why}; restart the service"
                )
            if self._waiting and self._waiting + len(event_ids) > self._most_waiting:
                raise LogFull(f"{self._waiting} records of the event log {self.stream!r} wait for the disk")
            self._waiting += len(event_ids)
            self._queue.put(entry)
        return entry.done

    @property
    def waiting(self) -> int:
        """Records in line for the disk."""
        return self._waiting

    def close(self) -> None:
        """Write what is queued, then release the stream. Safe to call twice."""
        with self._door:
            if self._closed.is_set():
                return
            self._closed.set()
            self._queue.put(None)
        self._thread.join()
        os.close(self._file)
        os.close(self._lock)

    def _run(self) -> None:
        closing = False
        while not closing:
            batch = [self._queue.get()]
            if self._gather_s:
                self._closed.wait(self._gather_s)
            with contextlib.suppress(queue.Empty):
                while True:
                    batch.append(self._queue.get_nowait())
            closing = None in batch
            with self._door:
                self._waiting -= sum(len(e.event_ids) for e in batch if e is not None)
            # A caller that went away before its turn is not written; from here on none can be cancelled.
            entries = [e for e in batch if e is not None and e.done.set_running_or_notify_cancel()]
            if entries:
                self._commit(entries)

    def _commit(self, entries: list[_Entry]) -> None:
        """One group: drop the known, write once, sync once, answer everyone."""
        if self._failed:
            for entry in entries:
                entry.done.set_exception(LogClosed(f"the event log {self.stream!r} failed: {self._failed}"))
            return
        fresh: dict[int, None] = {}
        texts: list[bytes] = []
        answers: list[Appended] = []
        for entry in entries:
            flags = []
            for event_id in entry.event_ids:
                new = event_id not in self._recent and event_id not in fresh
                if new:
                    fresh[event_id] = None
                flags.append(new)
            texts.append(entry.text if all(flags) else _chosen(entry.text, flags))
            answers.append(Appended(tuple(flags)))
        try:
            if fresh:
                self._write(b"".join(texts))
        except OSError as error:
            if not self._refused:
                logger.error("the event log %r keeps nothing: %s", self.stream, error)
            self._refused = True
            for entry in entries:
                entry.done.set_exception(error)
            return
        self._refused = False
        self._remember(fresh)
        for entry, answer in zip(entries, answers, strict=True):
            entry.done.set_result(answer)

    def _write(self, data: bytes) -> None:
        """Append `data` and sync. A failed write is undone, and ends the log where it cannot be: what would
        follow half a line is lost on recovery. A failed sync ends it too, since the kernel may drop dirty pages
        after reporting it once, and a second sync would then claim what is not there."""
        if self._size and self._size + len(data) > self._segment_bytes:
            number = int(self._segment.stem.rpartition("-")[2]) + 1
            full = self._file
            self._open_segment(self.folder / segment_name(self.stream, number))
            os.close(full)
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            with self._in_doubt():  # whole lines before the half one are found on recovery
                os.ftruncate(self._file, self._size)
            raise
        with self._in_doubt():
            self._sync(self._file)
        self._size += len(data)

    @contextlib.contextmanager
    def _in_doubt(self) -> Iterator[None]:
        """What fails in here ends the log. Raises SyncFailed for it."""
        try:
            yield
        except OSError as error:
            self._failed = error
            raise SyncFailed(error.errno, error.strerror) from error

    def _open_segment(self, path: Path) -> None:
        """Write to `path` from now on; to what was written to before, where that fails."""
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            sync_folder(self.folder)
        except OSError:
            os.close(file)
            raise
        self._segment, self._file, self._size = path, file, os.fstat(file).st_size

    def _remember(self, fresh: Collection[int]) -> None:
        self._recent.update(fresh)
        self._order.extend(fresh)
        excess = len(self._order) - self._remembered
        self._recent.difference_update([self._order.popleft() for _ in range(excess)])


def _chosen(text: bytes, flags: Iterable[bool]) -> bytes:
    """The lines of `text` whose flag is set."""
    lines = zip(text.splitlines(keepends=True), flags, strict=True)
    return b"".join(line for line, chosen in lines if chosen)


def _lock(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise LogInUse(
            f"{path}: another process writes this stream; one process writes a home's events"
            " (stop the other service, or give this one its own CORKBOARD_HOME)"
        ) from error
    return handle
