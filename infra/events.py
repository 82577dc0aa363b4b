"""What `corkboard events` does: the log replayed into the online store, and its spent segments removed."""

from __future__ import annotations

from datetime import UTC, datetime

from infra.console import say
from infra.home import Home

SHOWN = 5
"""Users named of those whose sequences differ."""


def replay(home: Home, *, check: bool) -> bool:
    """Bring the online sequences to what lake and log say, or only compare; True where they are equal then."""
    from feature_repo.jobs.replay import replay_sequences
    from feature_repo.online.reader import OnlineFeatures
    from validation.lake import Lake

    store = OnlineFeatures.open(home.root)
    found = replay_sequences(Lake(home.lake), home.events, store, write=not check, progress=say)
    say(f"{found.users} users, {found.events} events of the log: {len(found.differing)} sequences differed")
    if found.left:
        shown = ", ".join(map(str, found.left[:SHOWN])) + (", ..." if len(found.left) > SHOWN else "")
        say(f"{len(found.left)} sequences differ from lake and log (lake ids {shown})")
    return not found.left


def compact(home: Home) -> None:
    """Remove what nobody needs, and say what still waits for the ingest. Raises LakeError."""
    from validation.event_compaction import compact_events, needed_from_ms
    from validation.lake import Lake

    lake = Lake(home.lake)
    lake.contract()
    before = needed_from_ms(lake, datetime.now(UTC), walked_until(home))
    done = compact_events(home.events, home.lake, before_ms=before)
    say(f"{len(done.removed)} segments removed, {done.freed_bytes / 1e6:.1f} MB")
    if done.uningested:
        say(f"{', '.join(done.uningested)}: not all in the lake yet; run `corkboard ingest --events` first")


def walked_until(home: Home) -> datetime | None:
    """The end of the oldest data that the graph of a release under an alias was built of; None for none."""
    from infra.jobs import aliases, context

    versions = sorted(set(aliases(home).values()))
    if not versions:
        return None
    from training.release import load_manifest
    from training.release_parts import PIXIE, registry_of

    ctx = context(home)
    registry = registry_of(ctx)
    released = [load_manifest(ctx, version).parts.get(PIXIE) for version in versions]
    return min((registry.data_end(p.model, p.version) for p in released if p is not None), default=None)
