"""What the released sources would have fetched for users at a midnight, list by list.

A home that has served nobody has no log of what was cut, and the log of whoever served before it names other
sources with other scores. So the light ranker begins on a replay: the release's own sources, each on what was
known at a midnight, and what users did in the day after. The retrievers' weights were learned on days that are
replayed, so that their scores look a little better there than on new days; what a light ranker is measured on
lies after all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_repo.vectors.index import Filter
from feature_repo.vectors.replica import Replica
from feature_repo.vectors.rows import PinRows
from training.context import TrainingContext
from training.evaluation.histories import Histories
from training.evaluation.retrieval import HeldOut
from training.evaluation.served import (
    AtCut,
    Queries,
    conditional_queries,
    dcm_queries,
    listed,
    pinnerformer_queries,
    two_tower_queries,
)
from training.light.rule_sources import Popular
from training.models.interactions import Pins
from training.models.interests import InterestNetwork
from training.models.pin_board_graph import PinBoardGraph
from training.models.pinnerformer import PinnerFormer
from training.models.pinnersage import PinnerSageConfig, sample_medoids, user_interests
from training.models.pixie import Pixie, ReleasedPixie
from training.models.source_lists import SourceList
from training.models.two_tower import TwoTower
from training.pipelines.catalogues import catalogue_of, space_part
from training.pipelines.pixie import released_graph_at
from training.pipelines.retrievers import CONDITIONAL, DCM, PINNERFORMER, TWO_TOWER
from training.pipelines.user_actions import UserActions
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Listed = tuple[Ints, Floats]
"""One user's pins of one source, best first, and their scores."""

PINNERSAGE, PIXIE = "pinnersage", "pixie"
ROLES = (PINNERSAGE, PINNERFORMER, DCM, CONDITIONAL, TWO_TOWER, PIXIE)
"""Roles of a release that are sources, in funnel order."""
BUDGET = 600
"""Pins that a learned source, and Pixie, brings."""
PINNERSAGE_BUDGET = 480
PER_MEDOID, NEAR = 160, 0.5
"""As the service's PinnerSage source has them, which a test holds them to."""


@dataclass(frozen=True)
class Sources:
    """A release's sources, with the pins and the graph that they search as of a midnight."""

    files: Mapping[str, Path]
    """Folder of each source's version, by role."""
    pin_vectors: Pins | None
    """PinnerSage's space; None without PinnerSage."""
    graph: PinBoardGraph | None

    @classmethod
    def of(cls, ctx: TrainingContext, parts: Mapping[str, Part], as_of: datetime) -> Sources:
        """The sources among `parts` (by role), with nothing in them that happened from `as_of` on."""
        registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
        used = {role: parts[role] for role in ROLES if role in parts}
        vectors = graph = None
        if PINNERSAGE in used:
            vectors = catalogue_of(ctx, space_part(registry, used[PINNERSAGE].space or ""), as_of)
        if PIXIE in used:
            graph = released_graph_at(ctx, used[PIXIE], as_of)
        files = {role: registry.download(part.model, part.version) for role, part in used.items()}
        return cls(files, vectors, graph)


@dataclass(frozen=True)
class Replayed:
    """What was fetched for each user of one held-out set, as of its cut."""

    held: HeldOut
    past: Histories
    lists: list[list[SourceList]]
    """By user."""
    two_tower: Queries | None
    """The two-tower's users and pins as of the cut; None without a two-tower."""

    @property
    def time_ms(self) -> int:
        return self.past.cut_ms


def replay(lake: Lake, content: Pins, sources: Sources, held: HeldOut, seed: int) -> Replayed:
    """Ask every source for every user of `held`, in the funnel's order."""
    past = Histories.before(lake, held)
    at = AtCut.read(lake, content, past)
    files = sources.files
    two_tower = two_tower_queries(TwoTower.load(files[TWO_TOWER]), at) if TWO_TOWER in files else None
    asked: dict[str, Callable[[], Sequence[Listed]]] = {
        PINNERSAGE: lambda: _pinnersage(sources, at, seed),
        PINNERFORMER: lambda: _search(pinnerformer_queries(PinnerFormer.load(files[PINNERFORMER]), at), at),
        DCM: lambda: _search(dcm_queries(InterestNetwork.load(files[DCM]), at), at),
        CONDITIONAL: lambda: _search(
            conditional_queries(InterestNetwork.load(files[CONDITIONAL]), at, seed), at
        ),
        TWO_TOWER: lambda: _search(two_tower, at) if two_tower else [],
        PIXIE: lambda: _pixie(sources, past, seed),
    }
    found = {name: ask() for name, ask in asked.items() if name in files}
    found |= Popular.at(lake, held.cut).sources(past, content, seed)
    lists = [
        [SourceList(name, *of_users[user]) for name, of_users in found.items()] for user in range(len(held))
    ]
    return Replayed(held, past, lists, two_tower)


def _search(queries: Queries, at: AtCut) -> list[Listed]:
    """Pins that the user knows are listed too: the funnel's filters take them, after the ranks are given."""
    return listed(queries, at, BUDGET, novel=False)


def _pinnersage(sources: Sources, at: AtCut, seed: int) -> list[Listed]:
    """Neighbours of a few medoids of each user's interests as of the cut, in turns."""
    pins, config = sources.pin_vectors, PinnerSageConfig.load(sources.files[PINNERSAGE])
    assert pins is not None
    topics = [row[row > 0] for row in pins.topics]
    rows = PinRows.of(pins.ids, pins.vectors, topics, pins.created_at_ms, np.ones(len(pins.ids)))
    replica = Replica.of("replayed", rows.take(np.flatnonzero(rows.vectors.any(axis=1))))
    actions = UserActions.read(at.lake, pins, at.lake.interval()[0], at.cut)
    made_before, cut_ms = Filter(created_before_ms=at.past.cut_ms), at.past.cut_ms
    out: list[Listed] = []
    for user_id in at.users.tolist():
        place = int(np.searchsorted(actions.users, user_id))
        if place == len(actions) or actions.users[place] != user_id:
            out.append(_NOTHING)
            continue
        interests = user_interests(actions.history(place, cut_ms), cut_ms, config)
        drawn = sample_medoids(interests, config.sampled, seed=seed + user_id)
        if not len(drawn):
            out.append(_NOTHING)
            continue
        hits = replica.search(interests.vectors[drawn], PER_MEDOID, flt=made_before)
        near = hits.ids != interests.medoid_pin_ids[drawn][:, None]
        nearest = np.where(near, hits.scores, -np.inf).max(axis=1, keepdims=True)
        near &= hits.scores >= NEAR * np.maximum(nearest, 0.0)
        out.append(_distinct(np.where(near, hits.ids, 0).T.ravel(), hits.scores.T.ravel(), PINNERSAGE_BUDGET))
    return out


def _pixie(sources: Sources, past: Histories, seed: int) -> list[Listed]:
    released = ReleasedPixie.load(sources.files[PIXIE])
    graph, settings = sources.graph, released.settings
    assert graph is not None
    pixie, weights = Pixie(graph, settings.walk), settings.weights(past.vocabulary)
    out: list[Listed] = []
    for user in past.held.users.tolist():
        done = past.sequence(user)
        query = settings.query(done.pin_ids, done.actions, done.timestamps_ms, past.cut_ms, weights)
        if not len(query):
            out.append(_NOTHING)
            continue
        bias = settings.bias(graph, past.languages.get(user))
        walked = pixie.recommend(query, BUDGET, seed=seed + user, bias=bias)
        out.append((walked.pin_ids, walked.scores))
    return out


def _distinct(ids: Ints, scores: Floats, most: int) -> Listed:
    """The first `most` distinct pins, padding left out."""
    _, first = np.unique(ids, return_index=True)
    first = np.sort(first)
    first = first[ids[first] > 0][:most]
    return ids[first], scores[first].astype(np.float32)


_NOTHING: Listed = (np.empty(0, np.int64), np.empty(0, np.float32))
