"""All batch features of one lake, up to one midnight."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.jobs import state
from feature_repo.jobs.catalogue import first_pin_rows, pin_base, pin_content
from feature_repo.jobs.database import connect
from feature_repo.jobs.history import histories
from feature_repo.jobs.popular import boards, topics
from feature_repo.jobs.sequences import sequences
from feature_repo.jobs.windows import snapshots
from feature_repo.views import (
    BOARD_FEATURES,
    PIN_CONTENT,
    PIN_STATS,
    TOPIC_FEATURES,
    USER_HISTORY,
    USER_PROFILE,
    USER_SEQUENCE,
)

if TYPE_CHECKING:
    from validation.lake import Lake

BATCH_VIEWS = tuple(
    view.name
    for view in (
        PIN_CONTENT,
        USER_PROFILE,
        PIN_STATS,
        TOPIC_FEATURES,
        BOARD_FEATURES,
        USER_SEQUENCE,
        USER_HISTORY,
    )
)
"""The views that come from the lake alone; vectors and interests come from training."""


def build_features(
    lake: Lake,
    out: Path,
    *,
    as_of: datetime,
    since: datetime | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, int]:
    """Writes every batch view of `lake` below the features folder `out`; returns the rows written by view.

    `as_of` is the UTC midnight that the features are computed for: they count what happened before it.
    Incremental: a lake that did not change costs nothing; otherwise only midnights after the first changed day
    are computed, found by comparing the lake with what the last build saw, or given as `since` (that day and
    all later ones count as changed). Pins, users or follows whose past changed have everything built again.
    Interrupted, it starts over where it was: every file is replaced whole, and what was seen is noted last.
    Raises ValueError for an `as_of` that is no UTC midnight.
    """
    if as_of.tzinfo is None or as_of.astimezone(UTC).time() != time():
        raise ValueError(f"as_of must be a UTC midnight, it is {as_of}")
    as_of = as_of.astimezone(UTC)
    before, now = state.load(out), state.observe(lake, as_of)
    if state.same(before, now) and since is None:
        progress("features: nothing changed")
        return dict.fromkeys(BATCH_VIEWS, 0)
    rows: dict[str, int] = {}
    with connect(lake) as db:
        progress("features: pins")
        pin_base(db)
        # Before any snapshot: what an ingest replaces from here on differs from it, and is built next time.
        now = now.model_copy(update={"past": state.past(db, as_of)})
        if since is not None:
            changed: date | None = since.astimezone(UTC).date()
        else:
            past = state.past(db, before.as_of) if before is not None else {}
            changed = state.changed_since(before, now, past)
        start = now.first
        if changed is None:
            for view in BATCH_VIEWS:
                if view != USER_HISTORY.name:  # written whole, and says who has a row online
                    shutil.rmtree(out / view, ignore_errors=True)
        else:
            start = max(start, datetime.combine(changed, time(), UTC))
        rows[PIN_CONTENT.name] = pin_content(db, out)
        first_pin_rows(db, out)
        first = min(start + timedelta(days=1), as_of)
        rows.update(snapshots(db, lake, out, first, as_of, progress))
        progress("features: topics and boards")
        rows[TOPIC_FEATURES.name] = topics(db, lake, out, as_of)
        rows[BOARD_FEATURES.name] = boards(db, lake, out, as_of)
        progress("features: sequences")
        rows[USER_SEQUENCE.name] = sequences(db, lake, out, as_of)
    progress("features: histories")
    rows[USER_HISTORY.name] = histories(lake, out, as_of)
    state.save(out, now)
    return rows
