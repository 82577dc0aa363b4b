"""SASRec of RecTools as a baseline: it runs in an environment of its own, since it wants numpy < 2."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.evaluation import sasrec_job

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

REPOSITORY = Path(__file__).resolve().parents[2]
VENV = REPOSITORY / ".rectools-venv"
INSTALL = "SASRec runs in RecTools' own environment, which is not there: run `make rectools`"


EVERY_PIN = 5_000
"""Pins up to which softmax over all of them costs no more than over sampled ones."""
STEPS, LEAST_BATCH = 20, 16
"""A few hundred users in large batches are too few steps to learn anything from."""


class SasRecError(RuntimeError):
    """RecTools is not installed, or failed; the message says which."""


class SasRecConfig(BaseModel):
    """How RecTools' `SASRecModel` is made; softmax is the stronger form of its loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(20, ge=1)
    """Over every pin of every user, to the last."""
    factors: int = Field(64, ge=2)
    blocks: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    length: int = Field(100, ge=1)
    """Newest actions of a user that are read."""
    dropout: float = Field(0.2, ge=0, lt=1)
    learning_rate: float = Field(1e-3, gt=0)
    batch: int = Field(128, ge=1)
    loss: str | None = None
    """None: softmax over every pin, up to `EVERY_PIN` of them; over sampled ones beyond."""
    negatives: int = Field(256, ge=1)
    seed: int = 7

    def fitted_to(self, users: int, pins: int) -> SasRecConfig:
        """The same with its loss, and with batches of which an epoch has at least `STEPS`, none of fewer than
        `LEAST_BATCH` users."""
        loss = self.loss or ("softmax" if pins <= EVERY_PIN else "sampled_softmax")
        return self.model_copy(update={"loss": loss, "batch": few_users_batch(users, self.batch)})


def few_users_batch(users: int, most: int) -> int:
    """Users a batch, at most `most`: so few that an epoch has at least `STEPS`, but `LEAST_BATCH` of them."""
    return min(most, max(LEAST_BATCH, users // STEPS))


@dataclass(frozen=True)
class Recommended:
    """Pins named for users, those of one user together, best first."""

    users: Ints  # (n,)
    pins: Ints  # (n,)
    scores: Floats  # (n,)


def installed() -> bool:
    """Whether `make rectools` has been run, to its end."""
    return (VENV / ".installed").is_file()


def recommend(users: Ints, pins: Ints, asked: Ints, k: int, config: SasRecConfig) -> Recommended:
    """Train on (user, pin) pairs, oldest first, and name at most `k` new pins for each of `asked`.

    Users without a pair get none. Raises SasRecError where RecTools is not installed, and with its last lines
    where it fails.
    """
    if not installed():
        raise SasRecError(INSTALL)
    config = config.fitted_to(len(np.unique(users)), len(np.unique(pins)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "settings.json").write_text(json.dumps(config.model_dump() | {"k": k}))
        pd.DataFrame({"user_id": users, "pin_id": pins}).to_parquet(folder / "interactions.parquet")
        pd.DataFrame({"user_id": asked}).to_parquet(folder / "users.parquet")
        done = subprocess.run(
            [VENV / "bin" / "python", "-P", sasrec_job.__file__, folder],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SasRecError("RecTools failed: " + "\n".join(done.stderr.strip().splitlines()[-5:]))
        found = pd.read_parquet(folder / "recommended.parquet")
    return Recommended(
        found["user_id"].to_numpy(np.int64),
        found["pin_id"].to_numpy(np.int64),
        found["score"].to_numpy(np.float32),
    )
