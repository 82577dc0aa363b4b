"""What the processes behind the home feed are made of, over planted data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bentos.event_log import EventLog
from bentos.events import EventsParts
from bentos.intake import STREAM, EventIntake
from bentos.loader import check_release
from bentos.networks import Networks
from bentos.pool import Pool
from bentos.ranking import RankingParts
from bentos.release import ServingRelease
from bentos.retrieval import RetrievalParts
from bentos.sequences import SequenceWriter
from tests.bentos import fakes
from tests.bentos.preview import FixedHolder


def retrieval_parts(folder: Path) -> RetrievalParts:
    return RetrievalParts(Pool(8), FixedHolder(_release(folder)))  # type: ignore[arg-type]


def ranking_parts(folder: Path, **changes: object) -> RankingParts:
    """As the loader leaves it: no index, of the networks the two-tower alone, and words without an encoder."""
    release = _release(folder, **changes)
    networks = Networks(two_tower=release.networks.two_tower)
    ranked = replace(release, indexes={}, networks=networks, queries=None)
    return RankingParts(Pool(8), FixedHolder(ranked))  # type: ignore[arg-type]


def events_parts(folder: Path, log: Path) -> EventsParts:
    """Events are kept below `log`, their ids in `folder`."""
    release, pool = _release(folder), Pool(8)
    intake = EventIntake(
        EventLog.open(log, STREAM),
        SequenceWriter(release.features).start(),
        release.features,
        release.ids,
        release.contract.vocabulary,
        pool,
        clock_ms=lambda: fakes.NOW_MS,
    )
    return EventsParts(pool, intake)


def _release(folder: Path, **changes: object) -> ServingRelease:
    release = fakes.planted_release(folder, learned=True, search=True, **changes)  # type: ignore[arg-type]
    check_release(release)
    return release
