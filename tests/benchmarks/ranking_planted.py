"""What users would do with the test rows by the demo world's own laws, were every pin looked at."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infra.home import Home
from infra.jobs import WORLD
from training.data.training_set import Block
from training.data.world_ads import PAGE_MS
from training.data.world_behaviour import chances, examination
from training.data.world_truth import WorldTruth
from validation.lake import Lake
from validation.tables import (
    ACTION,
    ANCHOR,
    IMPRESSIONS,
    PIN_ID,
    POSITION,
    REQUEST_ID,
    SOURCE,
    TIMESTAMP,
    USER_ID,
)

FROM_CLOSEUP = timedelta(milliseconds=PAGE_MS)

DEVIATIONS = 6.0
"""Standard deviations between what was done and what was to be expected, from which on worlds differ."""


def chances_of(
    home: Home, heads: tuple[str, ...], block: Block, labels: NDArray[np.int8]
) -> NDArray[np.float64] | None:
    """Chance (n, H) of each answer to the rows of `block`, whose answers are `labels` (n, H).

    None where the home holds no world that tells what its sessions followed. Raises ValueError where the laws
    do not expect, at the logged positions, about as many answers as were logged: the rows are of another world.
    """
    truth = WorldTruth(home.datasets / WORLD / "truth")
    if not (truth.folder / "requests.parquet").exists():
        return None
    parts = []
    for day, rows in block.keys.groupby(block.keys["timestamp"].dt.floor("D")):
        ids = (rows[name].to_numpy() for name in ("user_id", "pin_id", "request_id"))
        parts.append(pd.DataFrame(truth.chances(*ids, day), index=rows.index))
    planted = pd.concat(parts).loc[block.keys.index, list(heads)].to_numpy()
    logged = planted * examination(block.position, truth.config.behaviour)[:, None]
    expected, done = logged.sum(axis=0), labels.sum(axis=0)
    apart = np.abs(done - expected) / np.sqrt((logged * (1 - logged)).sum(axis=0))
    if (apart > DEVIATIONS).any():
        raise ValueError(
            f"{truth.folder} is of another world: it expects {expected.round()}, logged are {done}"
        )
    return planted


def ad_clicks(home: Home, block: Block, clicks: NDArray[np.float32]) -> NDArray[np.float64]:
    """Chance (n,) that each ad of `block` was clicked, whether it was looked at included; `clicks` (n,) were.

    An ad follows the intent of the session that opened the pin it stands beside. Raises ValueError where the
    laws do not expect about as many clicks as were logged: the rows are of another world.
    """
    truth, rows = WorldTruth(home.datasets / WORLD / "truth"), _sessions(Lake(home.lake), block)
    found = np.empty(len(rows))
    for (day, source), own in rows.groupby([rows[TIMESTAMP].dt.floor("D"), SOURCE]):
        law = truth.config.ads.sources[source].behaviour
        users, pins = own[USER_ID].to_numpy(), own[PIN_ID].to_numpy()
        affinity = truth.affinity(users, pins, day, truth.requests.loc[own["session"]].to_numpy())
        quality, bias = truth.pins.loc[pins, "quality"].to_numpy(), truth.users.loc[users, "bias"].to_numpy()
        clicked = chances(affinity, quality, bias, law, np.zeros(len(own), bool))["click"]
        found[own.index] = clicked * examination(own[POSITION].to_numpy(), law)
    apart = abs(clicks.sum() - found.sum()) / np.sqrt((found * (1 - found)).sum())
    if apart > DEVIATIONS:
        raise ValueError(
            f"{truth.folder} is of another world: {found.sum():.0f} clicks expected, {clicks.sum():.0f} logged"
        )
    return found


def _sessions(lake: Lake, block: Block) -> pd.DataFrame:
    """The keys of `block`, a page of ads each, with the request (`session`) in which its pin was opened."""
    times = block.keys[TIMESTAMP]
    start, end = times.min() - FROM_CLOSEUP, times.max() + timedelta(microseconds=1)
    shown = lake.read(IMPRESSIONS.name, [REQUEST_ID, PIN_ID, ANCHOR], start, end)
    rows = block.keys.merge(shown, on=[REQUEST_ID, PIN_ID], validate="one_to_one")
    done = lake.read("actions", [USER_ID, PIN_ID, ACTION, TIMESTAMP, REQUEST_ID], start, end)
    opened = done[done[ACTION] == lake.contract().vocabulary.code("closeup")]
    opened = opened.rename(columns={PIN_ID: ANCHOR, TIMESTAMP: "opened", REQUEST_ID: "session"})
    rows["opened"] = rows[TIMESTAMP] - FROM_CLOSEUP
    keys = [USER_ID, ANCHOR, "opened"]
    return rows.merge(opened[[*keys, "session"]], on=keys, validate="many_to_one")
