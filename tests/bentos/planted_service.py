"""The four BentoML services over planted data, for `bentoml serve tests.bentos.planted_service:Homefeed`.

Every process of the separate profile imports this module and gets a planted catalogue of its own; the home
is CORKBOARD_HOME, where the event log is real.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from bentos import events, homefeed, ranking, retrieval
from bentos.event_log import EventLog
from bentos.intake import STREAM, EventIntake
from bentos.loader import check_release
from bentos.networks import Networks
from bentos.pool import Pool
from bentos.ranking import RankingParts
from bentos.release import ServingRelease
from bentos.retrieval import RetrievalParts
from bentos.sequences import SequenceWriter
from tests.bentos import fakes
from tests.bentos.preview import FixedHolder, planted_parts

HOME = Path(os.environ["CORKBOARD_HOME"])
# Processes share a home; each keeps what it alone writes in a folder of its own.
OWN = HOME / f"process{os.getpid()}"


def _release() -> ServingRelease:
    OWN.mkdir(exist_ok=True)
    release = fakes.planted_release(OWN, learned=True, search=True)
    check_release(release)
    return release


def _ranking_parts(settings: object) -> RankingParts:
    """As the loader leaves it: no index, of the networks the two-tower alone, and words without an encoder."""
    release = _release()
    networks = Networks(two_tower=release.networks.two_tower)
    return RankingParts(Pool(8), FixedHolder(replace(release, indexes={}, networks=networks, queries=None)))  # type: ignore


def _events_parts(settings: object) -> events.EventsParts:
    release, pool = _release(), Pool(8)
    intake = EventIntake(
        EventLog.open(HOME / "events", STREAM),
        SequenceWriter(release.features).start(),
        release.features,
        release.ids,
        release.contract.vocabulary,
        pool,
        clock_ms=lambda: fakes.NOW_MS,
    )
    return events.EventsParts(pool, intake)


def _homefeed_parts(settings: object, **given: object) -> object:
    OWN.mkdir(exist_ok=True)
    if not given["with_events"]:
        engines = {name: given[name] for name in ("retrieval", "ranking")}
        return planted_parts(OWN, with_events=False, learned=True, **engines)
    return planted_parts(HOME, learned=True)


events.open_parts = _events_parts  # type: ignore[assignment]
retrieval.open_parts = lambda settings: RetrievalParts(Pool(8), FixedHolder(_release()))  # type: ignore
ranking.open_parts = _ranking_parts  # type: ignore[assignment]
homefeed.open_homefeed = _homefeed_parts  # type: ignore[assignment]

Homefeed = homefeed.Homefeed
