"""The curves that turn one head's scores into probabilities. Fitted elsewhere, applied anywhere, plain JSON."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

EPSILON = 1e-7
"""Scores are kept this far from 0 and 1 before a logit (float32 scores do reach 1)."""


class _Curve(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def reads_features(self) -> bool:
        """Whether `apply` needs features beside the score."""
        return False


class Identity(_Curve):
    """Scores as they are."""

    kind: Literal["identity"] = "identity"

    def apply(self, p: Doubles, features: Doubles | None = None) -> Doubles:
        """(n,) -> the same (n,)."""
        return p


class Platt(_Curve):
    """sigmoid(slope * logit(p) + bias + weights . standardised features)."""

    kind: Literal["platt"] = "platt"
    slope: float = Field(gt=0)
    """Above 0: calibration never turns a head's order round, unless features do."""
    bias: float
    weights: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    """Of each feature on the sample."""
    scale: tuple[float, ...] = ()
    """Standard deviation of each feature on the sample, 1 where constant."""

    @model_validator(mode="after")
    def _parallel(self) -> Platt:
        if not len(self.weights) == len(self.mean) == len(self.scale):
            raise ValueError("weights, mean and scale must be of one length")
        if any(s <= 0 for s in self.scale):
            raise ValueError("scales must be above 0")
        return self

    @property
    def reads_features(self) -> bool:
        return bool(self.weights)

    @cached_property
    def _tables(self) -> tuple[Doubles, Doubles, Doubles]:
        return np.array(self.weights), np.array(self.mean), np.array(self.scale)

    def apply(self, p: Doubles, features: Doubles | None = None) -> Doubles:
        """(n,), (n, F) -> (n,). A feature that is missing (NaN) counts as its mean."""
        line = self.slope * logit(p) + self.bias
        if self.weights:
            assert features is not None  # Calibrator has checked it
            weights, mean, scale = self._tables
            line += standardised(features, mean, scale) @ weights
        return sigmoid(line)


class Isotonic(_Curve):
    """A rising function through knots, linear between them and level beyond the ends."""

    kind: Literal["isotonic"] = "isotonic"
    x: tuple[float, ...] = Field(min_length=1)
    y: tuple[Annotated[float, Field(ge=0, le=1)], ...]

    @model_validator(mode="after")
    def _rising(self) -> Isotonic:
        if len(self.x) != len(self.y):
            raise ValueError("x and y must be of one length")
        if (np.diff(self.x) <= 0).any() or (np.diff(self.y) < 0).any():
            raise ValueError("x must rise, and y must not fall")
        return self

    @cached_property
    def _tables(self) -> tuple[Doubles, Doubles]:
        return np.array(self.x), np.array(self.y)

    def apply(self, p: Doubles, features: Doubles | None = None) -> Doubles:
        """(n,) -> (n,)."""
        return np.interp(p, *self._tables)


Curve = Annotated[Identity | Platt | Isotonic, Field(discriminator="kind")]


def logit(p: Doubles) -> Doubles:
    """log(p / (1 - p)), with p kept EPSILON from both ends."""
    kept = np.clip(p, EPSILON, 1 - EPSILON)
    return np.log(kept) - np.log1p(-kept)


def sigmoid(x: Doubles) -> Doubles:
    """1 / (1 + exp(-x)), without overflow."""
    return 1.0 / (1.0 + np.exp(-np.clip(x, -40.0, 40.0)))


def standardised(features: Doubles, mean: Doubles, scale: Doubles) -> Doubles:
    """(features - mean) / scale, (n, F); what is not finite becomes 0, the mean."""
    return np.nan_to_num((features - mean) / scale, nan=0.0, posinf=0.0, neginf=0.0)
