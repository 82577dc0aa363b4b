"""Fit the light ranker: engaged pins against those shown in vain and those that were fetched and cut."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.models.light_ranking import LightRanker, LightSpec
from training.pipelines.fitting import NothingToLearn

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LightRows:
    """Candidates that were fetched, and what became of them."""

    features: Floats  # (n, len(LightSpec.names))
    engaged: NDArray[np.bool_]  # (n,)
    impressed: NDArray[np.bool_]  # (n,) False: the funnel cut it
    logged: Floats  # (n,) chance with which the row was logged: 1 where shown, the sampling rate where cut

    def __len__(self) -> int:
        return len(self.engaged)

    def take(self, rows: NDArray[np.int64]) -> LightRows:
        """The candidates of these rows."""
        return LightRows(*(getattr(self, f.name)[rows] for f in fields(self)))


class LightConfig(BaseModel):
    """Trees, and how much a pin that was never shown says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unimpressed_share: float = Field(1.0, ge=0)
    """Weight of all rows that were cut, over that of all that were shown in vain: whatever their counts and
    the sampling rate. 0 learns from what was shown only, and never sees most of what it will have to judge."""
    rounds: int = Field(150, ge=1)
    depth: int = Field(3, ge=1, le=16)
    learning_rate: float = Field(0.1, gt=0, le=1)
    min_child_weight: float = Field(20.0, ge=0)
    row_share: float = Field(0.8, gt=0, le=1)
    column_share: float = Field(0.7, gt=0, le=1)
    threads: int = Field(0, ge=0)
    """0: all cores."""


def row_weights(rows: LightRows, unimpressed_share: float) -> Floats:
    """Weight of each row, (n,): 1 where shown; 1 / `logged` where cut, scaled to `unimpressed_share`
    together."""
    cut = ~rows.impressed
    weight = np.where(cut, 1 / rows.logged, 1.0)
    together = weight[cut].sum()
    in_vain = float((rows.impressed & ~rows.engaged).sum())
    if together > 0:
        weight[cut] *= unimpressed_share * in_vain / together
    return weight.astype(np.float32)


def fit_light(
    rows: LightRows, spec: LightSpec, config: LightConfig | None = None, *, seed: int = 0
) -> LightRanker:
    """Fit on `rows`; raises NothingToLearn where nothing was engaged, or nothing shown in vain."""
    import xgboost

    config = config or LightConfig()
    if not rows.engaged.any() or not (rows.impressed & ~rows.engaged).any():
        raise NothingToLearn(
            f"{len(rows)} candidates, {int(rows.engaged.sum())} engaged, {int(rows.impressed.sum())} shown: "
            "a light ranker learns from pins acted on and pins shown in vain"
        )
    weight = row_weights(rows, config.unimpressed_share)
    used = weight > 0
    matrix = xgboost.QuantileDMatrix(
        rows.features[used],
        rows.engaged[used].astype(np.float32),
        weight=weight[used],
        feature_names=list(spec.names),
        nthread=config.threads or None,
    )
    booster = xgboost.train(
        {
            "objective": "binary:logistic",
            "tree_method": "hist",
            "max_depth": config.depth,
            "eta": config.learning_rate,
            "min_child_weight": config.min_child_weight,
            "subsample": config.row_share,
            "colsample_bytree": config.column_share,
            "seed": seed,
            "nthread": config.threads,
        },
        matrix,
        config.rounds,
    )
    booster.set_param({"nthread": 1})
    return LightRanker(spec, booster)
