"""Pinnability: how likely a user is to act on a pin shown to them (Pinterest Engineering, March 2015).

Pin, user and interaction features in one float32 row; a logistic regression or gradient-boosted trees over
it. Position is a feature in training and a constant when serving, so that scores compare across slots.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from training.models.calibration.sampling import restore_rate
from training.models.interactions import INTERACTION_FEATURES
from training.models.query_features import QUERY_FEATURES
from training.models.ranker import CONFIG, ENGAGE, Candidates, Request

if TYPE_CHECKING:
    import xgboost

Floats = NDArray[np.float32]

WEIGHTS = "ranker.safetensors"
TREES = "ranker.ubj"

USER_PREFIX, PIN_PREFIX, POSITION = "user_", "pin_", "position"


class FeatureSpec(BaseModel):
    """Which features a ranker reads, in order: user scalars, pin scalars, interactions, query, position."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: tuple[str, ...] = USER_SCALARS
    pin: tuple[str, ...] = PIN_SCALARS
    interactions: tuple[str, ...] = INTERACTION_FEATURES
    query: tuple[str, ...] = ()
    """Of QUERY_FEATURES; none where nobody searches."""
    space: str | None = None
    """The space whose vectors the interactions compare, `content@7`: serve with vectors of no other."""
    position: bool = True
    serving_position: float = Field(0.0, ge=0)
    """The position every candidate is scored at when serving."""

    @model_validator(mode="after")
    def _known(self) -> FeatureSpec:
        groups = (
            ("user", self.user, USER_SCALARS),
            ("pin", self.pin, PIN_SCALARS),
            ("interactions", self.interactions, INTERACTION_FEATURES),
            ("query", self.query, QUERY_FEATURES),
        )
        for group, names, known in groups:
            unknown = [n for n in names if n not in known]
            if unknown:
                raise ValueError(f"unknown {group} features {unknown}; known: {', '.join(known)}")
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{group} features named twice: {twice}")
        if not self.names:
            raise ValueError("a ranker needs at least one feature")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Column names of the assembled row; user and pin scalars carry their side's prefix."""
        position = (POSITION,) if self.position else ()
        users = tuple(USER_PREFIX + n for n in self.user)
        return (*users, *(PIN_PREFIX + n for n in self.pin), *self.interactions, *self.query, *position)

    def assemble(
        self,
        user_scalars: Floats,
        pin_scalars: Floats,
        interactions: Floats,
        position: Floats | None = None,
        query: Floats | None = None,
    ) -> Floats:
        """One C-contiguous float32 block, (n, len(names)), made without a copy of any input.

        `user_scalars` is (U,) for one user or (n, U); `pin_scalars` (n, P); `interactions` (n, I): all columns
        of USER_SCALARS, PIN_SCALARS, INTERACTION_FEATURES in their order, NaN where missing. `position` is
        (n,), or None for `serving_position`; `query` (n, Q), all of QUERY_FEATURES, or None where nothing is
        searched for. NaN becomes 0: a count that is not there is a count of none.
        Raises ValueError naming the block whose shape does not belong.
        """
        n = len(pin_scalars)
        one_user = np.ndim(user_scalars) == 1
        asked = np.zeros((n, len(QUERY_FEATURES)), np.float32) if query is None else query
        for name, block, shape in (
            ("user_scalars", user_scalars, (len(USER_SCALARS),) if one_user else (n, len(USER_SCALARS))),
            ("pin_scalars", pin_scalars, (n, len(PIN_SCALARS))),
            ("interactions", interactions, (n, len(INTERACTION_FEATURES))),
            ("query", asked, (n, len(QUERY_FEATURES))),
        ):
            if block.shape != shape:
                raise ValueError(f"{name} is {block.shape}; {shape} is expected")
        out = np.empty((n, len(self.names)), np.float32)
        start = 0
        for block, names, known in (
            (user_scalars, self.user, USER_SCALARS),
            (pin_scalars, self.pin, PIN_SCALARS),
            (interactions, self.interactions, INTERACTION_FEATURES),
            (asked, self.query, QUERY_FEATURES),
        ):
            chosen = block if names == known else block[..., [known.index(n) for n in names]]
            out[:, start : start + len(names)] = chosen
            start += len(names)
        if self.position:
            out[:, start] = self.serving_position if position is None else position
        out[~np.isfinite(out)] = 0
        return out


class _Header(BaseModel):
    """`ranker.json`: everything of a ranker that is not weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["logistic", "gbdt"]
    spec: FeatureSpec
    heads: tuple[str, ...] = (ENGAGE,)
    negative_rate: float = Field(1.0, gt=0, le=1)
    """Share of negatives kept in training; scores are corrected back to the full population."""


@dataclass(frozen=True)
class LogisticRanker:
    """Logistic regression over signed-log, standardised features."""

    spec: FeatureSpec
    mean: Floats  # (F,) of the signed-log features
    scale: Floats  # (F,) their standard deviation, 1 where constant
    weights: Floats  # (F,)
    bias: float
    negative_rate: float = 1.0
    heads: tuple[str, ...] = (ENGAGE,)
    user_space: ClassVar[None] = None
    user_dim: ClassVar[int] = 0
    content_dim: ClassVar[int] = 0
    reads_history: ClassVar[bool] = False

    def score(self, features: Floats) -> Floats:
        logit = standardise(features, self.mean, self.scale) @ self.weights + np.float32(self.bias)
        return restore_rate(_sigmoid(logit), self.negative_rate)

    def score_heads(self, request: Request, candidates: Candidates) -> Floats:
        return self.score(candidates.features)[:, None]

    def fitted_to(self, probes: Sequence[tuple[Request, Candidates]]) -> LogisticRanker:
        return self

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        _save_header(
            folder,
            _Header(kind="logistic", spec=self.spec, heads=self.heads, negative_rate=self.negative_rate),
        )
        tensors = {"mean": self.mean, "scale": self.scale, "weights": self.weights}
        tensors["bias"] = np.array([self.bias], np.float32)
        save_file({k: np.ascontiguousarray(v, np.float32) for k, v in tensors.items()}, folder / WEIGHTS)


@dataclass(frozen=True)
class GbdtRanker:
    """Gradient-boosted trees (xgboost), scored on one thread without building a DMatrix."""

    spec: FeatureSpec
    booster: xgboost.Booster
    negative_rate: float = 1.0
    heads: tuple[str, ...] = (ENGAGE,)
    user_space: ClassVar[None] = None
    user_dim: ClassVar[int] = 0
    content_dim: ClassVar[int] = 0
    reads_history: ClassVar[bool] = False

    def score(self, features: Floats) -> Floats:
        if len(features) == 0:
            return np.empty(0, np.float32)
        raw = self.booster.inplace_predict(np.ascontiguousarray(features, np.float32), validate_features=False)
        return restore_rate(raw, self.negative_rate)

    def score_heads(self, request: Request, candidates: Candidates) -> Floats:
        return self.score(candidates.features)[:, None]

    def fitted_to(self, probes: Sequence[tuple[Request, Candidates]]) -> GbdtRanker:
        return self

    def save(self, folder: Path) -> None:
        _save_header(
            folder, _Header(kind="gbdt", spec=self.spec, heads=self.heads, negative_rate=self.negative_rate)
        )
        self.booster.save_model(folder / TREES)


PinnabilityRanker = LogisticRanker | GbdtRanker


def load_pinnability(folder: Path) -> PinnabilityRanker:
    """The ranker saved in `folder`, ready to score. Raises FileNotFoundError where there is none."""
    header = _Header.model_validate_json((folder / CONFIG).read_text())
    if header.kind == "gbdt":
        import xgboost

        booster = xgboost.Booster()
        booster.load_model(folder / TREES)
        booster.set_param({"nthread": 1})
        return GbdtRanker(header.spec, booster, header.negative_rate, header.heads)
    from safetensors.numpy import load_file

    tensors = load_file(folder / WEIGHTS)
    mean, scale, weights = tensors["mean"], tensors["scale"], tensors["weights"]
    bias = float(tensors["bias"][0])
    return LogisticRanker(header.spec, mean, scale, weights, bias, header.negative_rate, header.heads)


def signed_log(features: Floats) -> Floats:
    """sign(x) * log1p(|x|), (n, F): counts of any size become comparable, cosines hardly change."""
    return np.copysign(np.log1p(np.abs(features)), features)


def standardise(features: Floats, mean: Floats, scale: Floats) -> Floats:
    """Signed-log features with the training set's mean and spread taken out, (n, F) float32."""
    return (signed_log(features) - mean) / scale


def _sigmoid(logit: Floats) -> Floats:
    return (1.0 / (1.0 + np.exp(-np.clip(logit, -30.0, 30.0)))).astype(np.float32)


def _save_header(folder: Path, header: _Header) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(header.model_dump(mode="json"), indent=2))
