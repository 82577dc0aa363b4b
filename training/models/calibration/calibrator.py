"""A curve for every head of one ranker, and what they were fitted for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.models.calibration.curves import Curve, Identity
from training.models.calibration.sampling import restore_rate

Floats = NDArray[np.float32]

FILE = "calibration.json"


class CalibrationMismatch(ValueError):
    """A calibrator was fitted for another version of a ranker, other heads or other features."""


class HeadCalibration(BaseModel):
    """How one head's scores become probabilities."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: str
    negative_rate: float = Field(1.0, gt=0, le=1)
    """Share of negatives kept in the ranker's training, where its scores are not corrected for it already."""
    curve: Curve = Identity()
    """Applied after the correction."""
    rows: int = Field(0, ge=0)
    """Of the sample that the curve was fitted on."""
    positives: int = Field(0, ge=0)
    fallback: str | None = None
    """Why no curve was fitted; None where one was, or none was asked for."""


class Calibrator(BaseModel):
    """Calibrated probabilities of every head. Immutable; one small JSON file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranker: str
    """The version it was fitted for, `pinnability_gbdt@4`: scores of no other may pass through it."""
    heads: tuple[HeadCalibration, ...] = Field(min_length=1)
    """In the order of the ranker's heads."""
    features: tuple[str, ...] = ()
    """Columns that curves may read beside the score, in order."""
    sample: str = ""
    """What it was fitted on, in words: which days, which share."""

    @model_validator(mode="after")
    def _consistent(self) -> Calibrator:
        names = self.head_names
        if len(set(names)) != len(names):
            raise ValueError(f"heads named twice in {names}")
        for head in self.heads:
            width = len(getattr(head.curve, "weights", ()))
            if width not in (0, len(self.features)):
                raise ValueError(
                    f"head {head.head} weighs {width} features, the calibrator has {len(self.features)}"
                )
        return self

    @classmethod
    def identity(cls, ranker: str, heads: Sequence[str]) -> Calibrator:
        """Leaves the scores of every head as they are."""
        return cls(ranker=ranker, heads=tuple(HeadCalibration(head=head) for head in heads))

    @property
    def head_names(self) -> tuple[str, ...]:
        return tuple(head.head for head in self.heads)

    @property
    def fallbacks(self) -> dict[str, str]:
        """Heads without a curve of their own, with the reason and what stands in."""
        return {head.head: head.fallback for head in self.heads if head.fallback}

    @property
    def reads_features(self) -> bool:
        """Whether `calibrate` needs features."""
        return any(head.curve.reads_features for head in self.heads)

    def check(self, ranker: str, heads: Sequence[str]) -> None:
        """Raise CalibrationMismatch unless this was fitted for `ranker` and its `heads`.

        A calibrator does not outlive its ranker: other weights, or rows sampled otherwise, are another version,
        which is calibrated anew.
        """
        if ranker != self.ranker:
            raise CalibrationMismatch(f"the calibrator is for {self.ranker}, not {ranker}; fit it again")
        if tuple(heads) != self.head_names:
            raise CalibrationMismatch(
                f"the calibrator has heads {', '.join(self.head_names)}, "
                f"the ranker {', '.join(heads)}; fit it again"
            )

    def calibrate(self, p: Floats, features: Floats | None = None) -> Floats:
        """Probabilities (n, H) float32 in [0, 1] from scores (n, H) in [0, 1].

        `features` is (n, len(self.features)), NaN where unknown; not needed where no curve reads any.
        Raises CalibrationMismatch for blocks of another shape, ValueError naming a head whose scores are not
        probabilities.
        """
        wide = self._checked(np.asarray(p), features)
        beside = None if features is None else np.asarray(features, np.float64)
        out = np.empty(p.shape, np.float32)
        for column, head in enumerate(self.heads):
            full = restore_rate(wide[:, column], head.negative_rate)
            out[:, column] = head.curve.apply(full.astype(np.float64, copy=False), beside)
        return out

    def _checked(self, p: Floats, features: Floats | None) -> NDArray[np.float64]:
        if p.ndim != 2 or p.shape[1] != len(self.heads):
            raise CalibrationMismatch(f"scores are {p.shape}; one column a head is needed: {self.head_names}")
        if self.reads_features and (features is None or np.shape(features) != (len(p), len(self.features))):
            shape = None if features is None else np.shape(features)
            raise CalibrationMismatch(
                f"features are {shape}; {(len(p), len(self.features))} is needed: {', '.join(self.features)}"
            )
        wide = p.astype(np.float64)
        wrong = ~((wide >= 0) & (wide <= 1)).all(axis=0)  # NaN is no probability either
        if wrong.any():
            named = [name for name, bad in zip(self.head_names, wrong, strict=True) if bad]
            raise ValueError(
                f"scores of {', '.join(named)} are not all in [0, 1]; pass probabilities, not logits"
            )
        return wide

    def save(self, folder: Path) -> None:
        """Write `calibration.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(self.model_dump_json(indent=1))

    @classmethod
    def load(cls, folder: Path) -> Calibrator:
        """The calibrator saved in `folder`. Raises FileNotFoundError where there is none."""
        return cls.model_validate_json((folder / FILE).read_text())
