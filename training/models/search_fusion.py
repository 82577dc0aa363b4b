"""How what a search finds by meaning and by words becomes one list: weighted reciprocal rank fusion.

    score(pin) = meaning / (damping + place by meaning) + (1 - meaning) / (damping + place by words)

Places count from 1, and a list that lacks the pin adds nothing (Cormack, Clarke and Buettcher, SIGIR 2009).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.models.source_lists import DAMPING

FILE = "fusion.json"


class SearchFusion(BaseModel):
    """What each of the two lists counts. By default alike, with the damping of the paper."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    meaning: float = Field(0.5, ge=0, le=1)
    """Weight of meaning; that of words is the rest."""
    damping: int = Field(DAMPING, ge=0)
    """The smaller, the more the first places of either list count."""

    @property
    def weights(self) -> NDArray[np.float64]:
        """(2,): of meaning, of words."""
        return np.array([self.meaning, 1 - self.meaning])

    def save(self, folder: Path) -> None:
        """Write `fusion.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(self.model_dump_json(indent=2))

    @classmethod
    def load(cls, folder: Path) -> SearchFusion:
        """What `save` wrote; the default of a version that says nothing."""
        file = folder / FILE
        return cls.model_validate_json(file.read_text()) if file.exists() else cls()
