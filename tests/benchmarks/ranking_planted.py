"""What users would do with the test rows by the demo world's own laws, were every pin looked at."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infra.home import Home
from infra.jobs import WORLD
from training.data.training_set import Block
from training.data.world_behaviour import examination
from training.data.world_truth import WorldTruth

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
