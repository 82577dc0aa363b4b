"""Requests as the light ranker's rows: each candidate with what was known of it and of the user at the time.

Counters are daily, by the feature store's point-in-time join; what a user did lately is cut from the action
log by the code that also maintains it online.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_repo.sequence import SequenceLog
from training.data.point_in_time import PointInTime
from training.models.interactions import Pins
from training.models.light_ranking import Asker, LightSpec, request_rows
from training.models.source_lists import Fetched, SourceList, fetch
from training.pipelines.light_fitting import LightRows

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

MS_PER_DAY = 86_400_000


@dataclass(frozen=True)
class Request:
    """One request: who asked when, and what every source brought."""

    user_id: int
    time_ms: int
    lists: Sequence[SourceList]


@dataclass(frozen=True)
class Outcome:
    """What became of a request's pins; what is in neither was cut."""

    engaged: Ints
    impressed: Ints
    eligible: Ints | None = None
    """Pins that stood in line; None: all but those that the user had acted on."""
    logged: dict[int, float] | None = None
    """Chance with which each pin was logged; None: all were."""


@dataclass(frozen=True)
class World:
    """What rows are made from."""

    features: PointInTime
    pins: Pins
    """The catalogue; its vectors are not read."""
    log: SequenceLog
    """Actions of the users, up to the last request at least."""
    signs: NDArray[np.int8]
    """Sign of each action code."""


@dataclass(frozen=True)
class Candidates:
    """One request's candidates that stand in line, with their rows."""

    fetched: Fetched
    features: Floats


def candidates(
    world: World, spec: LightSpec, requests: Sequence[Request], eligible: Sequence[Ints | None] | None = None
) -> Iterator[Candidates]:
    """Every request's rows, in order: as the service would make them.

    `eligible` names the pins that stood in line; without it, those that the user had not acted on.
    """
    times = pd.Series(pd.to_datetime([r.time_ms for r in requests], unit="ms", utc=True))
    profiles = world.features.profiles(np.array([r.user_id for r in requests], np.int64), times)
    known: dict[int, Floats] = {}
    for place, request in enumerate(requests):
        sequence = world.log.sequence(request.user_id, request.time_ms)
        signs = world.signs[sequence.actions]
        fetched = fetch(request.lists, spec.sources)
        asked = None if eligible is None else eligible[place]
        barred = np.isin(fetched.pin_ids, sequence.pin_ids[signs != 0])
        rows = _rows(world.pins, fetched.pin_ids)
        kept = (rows >= 0) & (~barred if asked is None else np.isin(fetched.pin_ids, asked))
        fetched, rows = fetched.take(np.flatnonzero(kept)), rows[kept]
        midnight = request.time_ms - request.time_ms % MS_PER_DAY
        if midnight not in known:
            known = {midnight: _counters(world, midnight)}
        acted = _rows(world.pins, sequence.pin_ids[signs > 0])
        user = Asker(
            np.nan_to_num(profiles.scalars[place]),
            np.unique(profiles.followed[profiles.followed_starts[place] : profiles.followed_ends[place]]),
            world.pins.topics[acted[acted >= 0]],
        )
        features = request_rows(
            spec,
            fetched,
            known[midnight][rows],
            world.pins.created_at_ms[rows],
            world.pins.topics[rows],
            user,
            request.time_ms,
        )
        yield Candidates(fetched, features)


def labelled(
    world: World,
    spec: LightSpec,
    requests: Sequence[Request],
    outcomes: Sequence[Outcome],
    *,
    cut: int,
    seed: int,
) -> tuple[LightRows, Ints]:
    """Rows to learn from and the place of the request of each, (n,).

    Of the pins that were cut, `cut` a request are drawn evenly; the chance of that is in `logged`.
    """
    rng = np.random.default_rng((seed, 31))
    parts: list[tuple[Floats, Flags, Flags, Floats, Ints]] = []
    found = candidates(world, spec, requests, [outcome.eligible for outcome in outcomes])
    for place, (made, outcome) in enumerate(zip(found, outcomes, strict=True)):
        ids = made.fetched.pin_ids
        engaged = np.isin(ids, outcome.engaged)
        impressed = engaged | np.isin(ids, outcome.impressed)
        logged = np.ones(len(ids), np.float32)
        if outcome.logged is not None:
            logged = np.array([outcome.logged[pin] for pin in ids.tolist()], np.float32)
        others = np.flatnonzero(~impressed)
        drawn = np.sort(rng.permutation(others)[:cut])
        logged[drawn] *= len(drawn) / max(len(others), 1)
        rows = np.sort(np.append(np.flatnonzero(impressed), drawn))
        parts.append(
            (made.features[rows], engaged[rows], impressed[rows], logged[rows], np.full(len(rows), place))
        )
    if not parts:
        nothing = np.zeros(0, bool)
        return LightRows(
            np.empty((0, len(spec.names)), np.float32), nothing, nothing, np.empty(0, np.float32)
        ), (np.empty(0, np.int64))
    features, engaged, impressed, logged, owner = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return LightRows(features, engaged, impressed, logged), owner


def _counters(world: World, midnight_ms: int) -> Floats:
    """(p, len(PIN_SCALARS)) of the whole catalogue as of a midnight; zeros where nothing was known."""
    time = pd.Series(pd.to_datetime(np.full(len(world.pins.ids), midnight_ms), unit="ms", utc=True))
    return np.nan_to_num(world.features.pin_scalars(world.pins.ids, time))


def _rows(pins: Pins, ids: Ints) -> Ints:
    """Row of each pin, -1 where the catalogue does not have it."""
    if not len(pins.ids):
        return np.full(len(ids), -1, np.int64)
    at = np.minimum(np.searchsorted(pins.ids, ids), len(pins.ids) - 1)
    return np.where(pins.ids[at] == ids, at, -1)
