"""Segments of the event log on disk: named, read in order, and cut where a crash tore the last one.

Only bytes written after the last fsync can be damaged by a crash, and they are the end of the last segment:
on opening, that segment is cut at its first damaged line and the cut bytes are kept beside it as `.torn`. A
damaged line in any earlier segment is not a crash but a broken disk: LogDamaged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import orjson
from pydantic import ValidationError

from validation.events import SEGMENT_SUFFIX, from_line, segments_of, written_before
from validation.events import AnyRecord as Record


class LogDamaged(RuntimeError):
    """A line that was once acknowledged cannot be read."""


def segment_name(stream: str, number: int) -> str:
    """File name of a stream's segment."""
    return f"{stream}-{number:08d}{SEGMENT_SUFFIX}"


def read(folder: Path, stream: str, *, since_ms: int = 0) -> Iterator[Record]:
    """Records of a stream in the order they were acknowledged, from `timestamp_ms >= since_ms` on.

    Segments last written well before `since_ms` are skipped unread. A torn end of the last segment (a writer at
    work, or a crash not yet recovered) ends the reading quietly; any other bad line raises LogDamaged.
    """
    segments = segments_of(folder, stream)
    for place, path in enumerate(segments):
        if written_before(path, since_ms):
            continue
        good = 0
        for record, end in _lines(path):
            good = end
            if record.timestamp_ms >= since_ms:
                yield record
        if place < len(segments) - 1 and good < path.stat().st_size:
            raise LogDamaged(f"{path}: the line at byte {good} cannot be read; restore the segment from a copy")


class Tail:
    """What a stream gained since the last look, for a reader beside the writer. Not thread-safe.

    The first `read` begins with `timestamp_ms >= since_ms`, as `read` of this module does.
    """

    def __init__(self, folder: Path, stream: str, *, since_ms: int = 0) -> None:
        self._folder, self._stream, self._since_ms = folder, stream, since_ms
        self._segment: Path | None = None
        self._end = 0

    def read(self) -> list[Record]:
        """New records in the order they were acknowledged.

        Raises LogDamaged where a segment that is no longer written to ends in a line that cannot be read.
        """
        found: list[Record] = []
        segments = [s for s in segments_of(self._folder, self._stream) if not self._behind(s)]
        for place, path in enumerate(segments):
            if path != self._segment:
                self._segment, self._end = path, 0
            for record, end in _lines(path, self._end):
                self._end = end
                if record.timestamp_ms >= self._since_ms:
                    found.append(record)
            if place < len(segments) - 1 and self._end < path.stat().st_size:
                raise LogDamaged(
                    f"{path}: the line at byte {self._end} cannot be read; restore the segment from a copy"
                )
        return found

    def _behind(self, segment: Path) -> bool:
        """Whether a segment was read to its end, or was last written well before the time read from."""
        if self._segment is not None:
            return segment.name < self._segment.name
        return written_before(segment, self._since_ms)


def recover(path: Path) -> int:
    """Cut a segment at its first damaged line; returns the bytes cut, which are kept as `<segment>.torn`."""
    good = 0
    for _, end in _lines(path):
        good = end
    torn = path.stat().st_size - good
    if torn:
        with path.open("r+b") as segment:
            segment.seek(good)
            with path.with_suffix(".torn").open("ab") as kept:
                kept.write(segment.read())
            segment.truncate(good)
            os.fsync(segment.fileno())
    return torn


def _lines(path: Path, start: int = 0) -> Iterator[tuple[Record, int]]:
    """Whole lines from byte `start` on with the byte each ends at, up to the first that is cut short or is no
    JSON.

    A line that is whole JSON and yet no record was not torn by a crash (another version wrote it): LogDamaged.
    """
    end = start
    with path.open("rb") as segment:
        segment.seek(start)
        for line in segment:
            if not line.endswith(b"\n"):
                return
            try:
                orjson.loads(line)
            except orjson.JSONDecodeError:
                return
            try:
                record = from_line(line)
            except ValidationError as error:
                raise LogDamaged(
                    f"{path}: the line at byte {end} is no record of this version: {_told(error)}"
                ) from error
            end += len(line)
            yield record, end


def _told(error: ValidationError) -> str:
    """What is wrong with a record, without what it says of a user."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))


def recent_ids(segments: list[Path], remembered: int) -> list[int]:
    """The different ones of the last `remembered` event ids, oldest first."""
    newest_first: list[list[int]] = []
    count = 0
    for path in reversed(segments):
        if count >= remembered:
            break
        ids = [record.event_id for record, _ in _lines(path)]
        newest_first.append(ids)
        count += len(ids)
    ids = [event_id for chunk in reversed(newest_first) for event_id in chunk]
    return list(dict.fromkeys(ids[-remembered:] if remembered else []))
