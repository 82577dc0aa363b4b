"""Serve the page over planted data, for looking at it and for the browser test.

    python -m tests.bentos.preview [--port 8123] [--world]

`--world` takes pins, topics and pictures from a tiny demo world; without it pins have no pictures.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bentos.catalogue import ActiveUsers
from bentos.engines import Engines, RankingEngine, RetrievalEngine
from bentos.event_log import EventLog
from bentos.features import Card
from bentos.intake import STREAM, EventIntake
from bentos.loader import check_release
from bentos.parts import HomefeedParts
from bentos.release import ServingRelease, TopicName
from bentos.sequences import SequenceWriter
from tests.bentos import fakes


@dataclass
class FixedHolder:
    """A release holder that always serves one release."""

    release: ServingRelease
    ready: bool = field(default=True)

    def current(self) -> ServingRelease:
        return self.release

    def at(self, version: int | None) -> ServingRelease:
        return self.release

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class PlantedParts(HomefeedParts):
    @property
    def users(self) -> ActiveUsers:  # type: ignore[override]
        users = np.array([fakes.COOK, fakes.GARDENER, fakes.FOLLOWER], np.int64)
        return ActiveUsers(users, np.array([42, 17, 3], np.int64))


def planted_parts(
    folder: Path,
    *,
    with_events: bool = True,
    retrieval: RetrievalEngine | None = None,
    ranking: RankingEngine | None = None,
    **changes: Any,
) -> PlantedParts:
    """The parts of a home feed over the planted catalogue, with search."""
    stack = fakes.planted_stack(folder, search=True, **changes)
    check_release(stack.release)
    local = stack.service.engines
    engines = Engines(stack.pool, retrieval or local.retrieval, ranking or local.ranking)
    intake = None
    if with_events:
        intake = EventIntake(
            EventLog.open(folder / "events", STREAM),
            SequenceWriter(stack.features).start(),
            stack.features,
            stack.release.ids,
            stack.release.contract.vocabulary,
            stack.pool,
            clock_ms=lambda: fakes.NOW_MS,
        )
    service = replace(stack.service, engines=engines)
    return PlantedParts(stack.pool, FixedHolder(stack.release), service, intake, None)  # type: ignore[arg-type]


def world_cards() -> tuple[dict[int, Card], dict[int, TopicName]]:
    """Cards for the planted pins out of a tiny demo world: each planted topic takes a topic of the world."""
    import pandas as pd

    from training.context import silent
    from training.data.world import simulate
    from training.data.world_config import WorldConfig

    with tempfile.TemporaryDirectory() as folder:
        paths = simulate(Path(folder), WorldConfig.tiny(), progress=silent)
        tables = paths.tables
        pins = pd.read_parquet(tables / "pins.parquet")
        topics = pd.read_parquet(tables / "topics.parquet")
    names = topics.set_index("topic_id")["name"].to_dict()
    pins["topic"] = [t[0] if len(t) else 0 for t in pins["topics"]]
    largest = pins["topic"].value_counts().index[: fakes.TOPICS]
    cards, named = {}, {}
    for place, topic in enumerate(largest, start=1):
        named[place] = TopicName(place, names[topic])
        rows = pins[pins["topic"] == topic]
        for k in range(fakes.PER_TOPIC):
            row = rows.iloc[k % len(rows)]
            pin = fakes.pin_of(place, k)
            cards[pin] = Card(
                pin,
                row["title"],
                row["description"] or "",
                row["link_domain"] or "",
                row["image"] or "",
                (place,),
            )
    return cards, named


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--port", type=int, default=8123)
    options.add_argument("--world", action="store_true")
    options.add_argument("--home", type=Path)
    given = options.parse_args()
    folder = given.home or Path(tempfile.mkdtemp(prefix="corkboard-preview-"))
    (folder / "metrics").mkdir(exist_ok=True)
    os.environ.update(
        CORKBOARD_HOME=str(folder),
        BENTOML_HOME=str(folder / "bentoml"),
        BENTOML_DO_NOT_TRACK="True",
        PROMETHEUS_MULTIPROC_DIR=str(folder / "metrics"),
    )
    import uvicorn

    from bentos import homefeed

    features = fakes.planted_features()
    changes: dict[str, Any] = {}
    if given.world:
        features.pictures, changes["topics"] = world_cards()
    homefeed.open_homefeed = lambda *_, **__: planted_parts(folder, features=features, **changes)  # type: ignore[assignment]
    uvicorn.run(homefeed.Homefeed.to_asgi(is_main=True), host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
