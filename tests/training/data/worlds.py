"""One tiny world, simulated once a test session."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import pandas as pd

from tests.training.data.lakes import world_frames, write_lake
from training.data.world import WorldPaths, simulate
from training.data.world_config import WorldConfig
from training.data.world_truth import WorldTruth
from validation.lake import Lake
from validation.tables import Contract

END = date(2026, 3, 2)


@dataclass(frozen=True)
class World:
    """A simulated world with its lake and its truth."""

    config: WorldConfig
    paths: WorldPaths
    frames: dict[str, pd.DataFrame]
    contract: Contract
    lake: Lake
    truth: WorldTruth
    folder: tempfile.TemporaryDirectory[str]


@lru_cache(maxsize=1)
def tiny_world() -> World:
    """`WorldConfig.tiny()` ending at a fixed date; the folder lives as long as the process."""
    folder = tempfile.TemporaryDirectory(prefix="corkboard-world-")
    root = Path(folder.name)
    config = WorldConfig.tiny(end=END)
    paths = simulate(root / "world", config)
    frames, contract = world_frames(paths)
    lake = write_lake(root / "lake", frames, contract)
    return World(config, paths, frames, contract, lake, WorldTruth(paths.truth), folder)
