"""One ranker, whatever its kind: a user's candidates in, a probability a head out.

    request, candidates -> ranker.score_heads -> (n, H) raw -> the version's calibrator -> (n, H) probabilities

A version's folder holds the ranker's own files and `calibration.json`, the calibrator fitted for that very
version (`Calibrator.ranker` is `model@version`). `load_ranker` reads the first, `load_calibrator` the second.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.models.calibration import Calibrator
    from training.models.pinnability import FeatureSpec

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

CONFIG = "ranker.json"
"""Of every kind; its `kind` says which."""

ENGAGE = "engage"
"""The head of any positive action, which every ranker has: two rankers are compared by it. No action of a
vocabulary bears this name, and utility weighs actions."""


class NotARanker(ValueError):
    """A folder whose files are of no ranker this code knows, or lack a part of one."""


@dataclass(frozen=True)
class Past:
    """What the user did before the last midnight, the newest actions among it, and was shown in vain; newest
    first, times in whole seconds (`feature_repo.history`)."""

    history: Floats  # (n, P) content vectors of the actions' pins
    actions: Ints  # (n,) codes
    surfaces: Ints  # (n,)
    times_ms: Ints  # (n,)
    shown: Floats  # (m, P) content vectors of pins shown
    shown_ms: Ints  # (m,)


@dataclass(frozen=True)
class Request:
    """One user, now. Histories are newest first; a pin without a vector has zeros."""

    history: Floats  # (L, P) content vectors of the actions' pins
    actions: Ints  # (L,) codes, 0 for padding
    surfaces: Ints  # (L,)
    times_ms: Ints  # (L,)
    request_ms: int
    user: Floats  # (U,) long-term vector, zeros where there is none
    past: Past | None = None
    """For a ranker that `reads_history`; None: nothing is known."""

    @classmethod
    def stranger(cls, request_ms: int, content_dim: int = 0, user_dim: int = 0) -> Request:
        """Somebody without any action."""
        none = np.empty(0, np.int64)
        history, user = np.empty((0, content_dim), np.float32), np.zeros(user_dim, np.float32)
        return cls(history, none, none, none, request_ms, user)


@dataclass(frozen=True)
class Candidates:
    """What is ranked."""

    content: Floats  # (N, P) content vectors, zeros for a pin without
    features: Floats  # (N, F) by the ranker's FeatureSpec

    def __len__(self) -> int:
        return len(self.content)


@runtime_checkable
class Ranker(Protocol):
    """What serving and evaluation need of a ranker. Immutable; threads may share it."""

    spec: FeatureSpec
    """Features beside the sequence, in order."""
    heads: tuple[str, ...]
    """What each column of the scores foretells: actions of the vocabulary, or ENGAGE."""
    user_space: str | None
    """The space whose vectors of users it reads, `pinnerformer@3`; None reads none."""
    user_dim: int
    """Width of that vector, 0 where it reads none."""
    content_dim: int
    """Width of the content vectors it reads, 0 where it reads none."""
    reads_history: bool
    """Whether it selects from the user's `Past`."""

    def score_heads(self, request: Request, candidates: Candidates) -> Floats:
        """Raw probability of each head, (n, len(heads)) float32 in [0, 1]: calibrate before reading it.

        A ranker of features alone reads nothing but `candidates.features`. Raises ValueError for arrays that
        do not belong together or vectors that are not finite.
        """

    def fitted_to(self, probes: Sequence[tuple[Request, Candidates]]) -> Ranker:
        """The same ranker as fast as this machine can serve it: in lower precision where the CPU gains by it
        and a few real requests are scored alike."""

    def save(self, folder: Path) -> None:
        """Write the model into `folder`; `load_ranker` reads it back."""


def load_ranker(folder: Path) -> Ranker:
    """The ranker saved in `folder`, ready to score. Raises FileNotFoundError where there is none, NotARanker
    for a kind this code does not know."""
    kind = json.loads((folder / CONFIG).read_text()).get("kind")
    if kind == "transact":
        from training.models.transact.ranker import TransActRanker

        return TransActRanker.load(folder)
    if kind in ("logistic", "gbdt"):
        from training.models.pinnability import load_pinnability

        return load_pinnability(folder)
    raise NotARanker(f"{folder / CONFIG} names kind {kind!r}; kinds are logistic, gbdt, transact")


def load_calibrator(folder: Path, ranker: str, heads: Sequence[str]) -> Calibrator:
    """The calibrator beside a ranker, checked against `ranker` (`model@version`) and its heads.

    Raises NotARanker where the version has none, CalibrationMismatch where it was fitted for another.
    """
    from training.models.calibration import Calibrator

    try:
        calibrator = Calibrator.load(folder)
    except FileNotFoundError as error:
        raise NotARanker(f"{ranker} has no calibrator beside its files; train it again") from error
    calibrator.check(ranker, heads)
    return calibrator
