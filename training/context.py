"""Where one training run reads and writes: the only thing every pipeline is given."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

Progress = Callable[[str], None]
"""Called with one line of plain text when something worth a line has happened."""


def silent(message: str) -> None:
    """Progress that goes nowhere."""


def ignore_advice() -> None:
    """Advice of libraries to those who call them is nothing that a user of ours can follow."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)


@dataclass(frozen=True)
class TrainingContext:
    """Paths, addresses, the clock and the seed of a training run. Creating it touches nothing."""

    lake: Path
    """Validated tables (`validation.lake.Lake`)."""
    features: Path
    """Parquet tables of the feature jobs, which Feast's offline store reads."""
    training_sets: Path
    """Folder of point-in-time training sets, one folder a set."""
    feast_home: str
    """Value of CORKBOARD_HOME under which Feast finds its registry and stores."""
    mlflow_uri: str
    mlflow_artifacts: Path
    """Artifact folder of experiments this run creates (a server chooses its own)."""
    milvus_uri: str
    seed: int = 7
    text_encoder: str = "auto"
    """Who reads the words of pins (`ContentConfig.text_encoder`)."""
    as_of: datetime | None = None
    """Train on what was known before this UTC instant; None is the end of the lake's actions."""
    keep_weights: bool = False
    """Encoders (content, PinSage, the learned retrievers) keep the weights of their newest version, which take
    in what is new."""
    warm_start: bool = False
    """TransAct goes on from the weights of its newest version, on the rows since."""
    lanes: int = 1
    """Processes that learn models side by side; 1 learns all in this one."""
    progress: Progress = silent
