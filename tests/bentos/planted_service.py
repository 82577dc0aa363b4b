"""The four BentoML services over planted data, for `bentoml serve tests.bentos.planted_service:Homefeed`.

Every process of the separate profile imports this module and gets a planted catalogue of its own; the home
is CORKBOARD_HOME, where the event log is real.
"""

from __future__ import annotations

import os
from pathlib import Path

from bentos import events, homefeed, ranking, retrieval
from tests.bentos import planted_processes
from tests.bentos.preview import planted_parts

HOME = Path(os.environ["CORKBOARD_HOME"])
# Processes share a home; each keeps what it alone writes in a folder of its own.
OWN = HOME / f"process{os.getpid()}"
OWN.mkdir(exist_ok=True)


def _homefeed_parts(settings: object, **given: object) -> object:
    if not given["with_events"]:
        engines = {name: given[name] for name in ("retrieval", "ranking")}
        return planted_parts(OWN, with_events=False, learned=True, **engines)
    return planted_parts(HOME, learned=True)


events.open_parts = lambda settings: planted_processes.events_parts(OWN, HOME / "events")  # type: ignore
retrieval.open_parts = lambda settings: planted_processes.retrieval_parts(OWN)  # type: ignore
ranking.open_parts = lambda settings: planted_processes.ranking_parts(OWN)  # type: ignore
homefeed.open_homefeed = _homefeed_parts  # type: ignore[assignment]

Homefeed = homefeed.Homefeed
