"""Segments of the event log that nobody needs any more go: their rows are in the lake, no service reads them.

A segment is removed when all of these hold, oldest first, so that the log never has a hole:

* it is sealed: the stream has a newer one, and services only ever write to the newest;
* the ingest has read it to its last byte (what the door refused is in quarantine);
* it was last written well before everything that services read of the log when they open.

Recovery. Everything that the lake and its cursors rest on is flushed before the first segment goes, and a
cursor outlives its segment: killed at any instant, the next run finishes, and no row is lost or doubled.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path

from validation.events import SEGMENT_SUFFIX, segments_of, written_before
from validation.ingest import alone
from validation.ingest_events import LOCK, cursors, move_cursors
from validation.lake import Lake

MS_PER_DAY = 86_400_000

SHOWN_DAYS = 2
"""Days before the lake's end from which services remember what they showed."""


@dataclass(frozen=True)
class Compacted:
    """What a compaction did."""

    removed: tuple[str, ...]
    freed_bytes: int
    uningested: tuple[str, ...]
    """Sealed segments that are old enough to go, and that `ingest --events` has not read to their end."""


def compact_events(
    events_dir: Path,
    lake: Path,
    *,
    before_ms: int,
    flush: Callable[[], None] = os.sync,
    remove: Callable[[Path], None] = Path.unlink,
) -> Compacted:
    """Removes the segments that are no longer needed from `before_ms` on (Unix ms, see `needed_from_ms`).

    Raises LakeError where there is no lake, IngestBusy while another process brings the log in.
    """
    door = Lake(lake)
    door.contract()
    with alone(door, LOCK):
        read = cursors(door)
        going: list[Path] = []
        waiting: list[Path] = []
        for stream in _streams(events_dir):
            for segment in segments_of(events_dir, stream)[:-1]:
                if not written_before(segment, before_ms):
                    break
                if read.get(segment.name, 0) != segment.stat().st_size:
                    waiting.append(segment)
                    break
                going.append(segment)
        freed = sum(segment.stat().st_size for segment in going)
        if going:
            flush()
        for segment in going:
            remove(segment)
        kept = {name: end for name, end in read.items() if (events_dir / name).exists()}
        if kept != read:
            move_cursors(door, kept)
    return Compacted(tuple(s.name for s in going), freed, tuple(s.name for s in waiting))


def needed_from_ms(lake: Lake, now: datetime, walked_until: datetime | None = None) -> int:
    """The oldest time, Unix ms, of which a service reads the log when it opens.

    `walked_until` is the end of the oldest data that the graph of a release in use was built of: walks take in
    the saves since. Raises LakeError.
    """
    needed = [sequences_from_ms(lake, now), shown_from_ms(lake)]
    if walked_until is not None:
        needed.append(int(walked_until.timestamp() * 1000))
    return min(needed)


def sequences_from_ms(lake: Lake, now: datetime) -> int:
    """Where the newest batch sequences end, less a day, Unix ms.

    They end with the last whole day of the lake. A lake that holds actions of today ends at a midnight still
    to come, which no training run has reached. The day less is for a run that began before the last midnight.
    """
    midnight = datetime.combine(now.astimezone(UTC).date(), time(), UTC)
    return int(min(lake.interval()[1], midnight).timestamp() * 1000) - MS_PER_DAY


def shown_from_ms(lake: Lake) -> int:
    """From when on services remember what users were shown, Unix ms."""
    return int(lake.interval()[1].timestamp() * 1000) - SHOWN_DAYS * MS_PER_DAY


def _streams(events_dir: Path) -> list[str]:
    return sorted({path.stem.rpartition("-")[0] for path in events_dir.glob(f"*-[0-9]*{SEGMENT_SUFFIX}")})
